"""Kenward-Roger of a crossed design with 3,600 rows, beside pbkrtest in the same run.

python benchmarks/kenward_roger.py      (needs R with lme4 and pbkrtest)
"""

import json
import resource
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

import bayeslmm as bl

R = """
suppressMessages({library(lme4); library(pbkrtest)})
d <- read.csv("FILE", colClasses = c(a = "character", b = "character"))
m <- lmer(y ~ x + (1 | a) + (1 | b), d)
t <- system.time(V <- vcovAdj(m))[["elapsed"]]
cat(sprintf('{"seconds": %.4f, "se": [%.10f, %.10f]}', t, sqrt(V[1, 1]), sqrt(V[2, 2])))
"""


def simulate() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    a, b = np.repeat(np.arange(60), 60), np.tile(np.arange(60), 60)
    x = rng.normal(size=3600)
    y = 2 * rng.normal(size=60)[a] + 1.5 * rng.normal(size=60)[b] + rng.normal(size=3600) + 0.1 * x
    return pd.DataFrame({"y": y, "x": x, "a": [f"a{i}" for i in a], "b": [f"b{i}" for i in b]})


def main() -> None:
    data = simulate()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    fit = bl.LMM("y ~ x + (1 | a) + (1 | b)", data).fit()
    fitted = time.perf_counter() - start
    times = []
    for _ in range(5):
        start = time.perf_counter()
        table = fit.summary("kenward-roger")
        times.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"bayeslmm: fit {fitted:.3f} s, Kenward-Roger table {min(times):.4f} s, SE {table['se'].round(8).tolist()}")
    print(f"memory: peak {peak / 1024:.0f} MB, of which {(peak - before) / 1024:.0f} MB since the data were made")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "d.csv"
        data.to_csv(file, index=False)
        script = R.replace("FILE", str(file))
        out = json.loads(subprocess.run(["Rscript", "-e", script], capture_output=True, text=True, check=True).stdout)
    print(f"pbkrtest::vcovAdj: {out['seconds']:.3f} s, SE {out['se']}")
    print(
        f"ratio, Kenward-Roger alone: {out['seconds'] / min(times):.0f}; with our whole fit: {out['seconds'] / (fitted + min(times)):.0f}"
    )


if __name__ == "__main__":
    main()
