"""Sandwich, profile intervals and bootstrap beside clubSandwich and lme4, in one run; each time is the best
of three.

    OMP_NUM_THREADS=1 python benchmarks/intervals.py      (needs R with lme4 and clubSandwich)
"""

import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

import bayeslmm as bl

R = """
suppressMessages({library(lme4); library(clubSandwich)})
seconds <- function(f) min(replicate(3, suppressMessages(suppressWarnings(system.time(f())[["elapsed"]]))))
clusters <- read.csv("FOLDER/clusters.csv")
sleep <- read.csv("FOLDER/sleep.csv")
wide <- suppressWarnings(lmer(y ~ t * x + z + (t | g), clusters))
fit <- lmer(Reaction ~ Days + (Days | Subject), sleep, REML = FALSE)
each <- function(m) c(fixef(m), as.data.frame(VarCorr(m))$sdcor)
cat(sprintf('{"sandwich": %.4f, "profile": %.4f, "bootstrap": %.4f}',
  seconds(function() coef_test(wide, vcov = vcovCR(wide, type = "CR2"), test = "Satterthwaite")),
  seconds(function() confint(fit, method = "profile")), seconds(function() bootMer(fit, each, nsim = 200))))
"""


def clusters() -> pd.DataFrame:
    """1,000 clusters of 10 at irregular times, with a random intercept and slope."""
    rng = np.random.default_rng(1)
    N, m = 1000, 10
    g = np.repeat(np.arange(N), m)
    t = np.tile(np.arange(m), N) + rng.uniform(0, 0.5, N * m)
    x, z = rng.normal(size=N)[g], rng.normal(size=N * m)
    w = rng.normal(size=(N, 2)) * [1.0, 0.2]
    y = 1 + 0.5 * t + x + 0.3 * z + w[g, 0] + w[g, 1] * t + rng.normal(size=N * m)
    return pd.DataFrame({"y": y, "t": t, "x": x, "z": z, "g": g})


def seconds(work: Callable[[], object]) -> float:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    data, sleep = clusters(), bl.load_dataset("sleepstudy")
    wide = bl.LMM("y ~ t * x + z + (t | g)", data).fit()
    fit = bl.LMM("Reaction ~ Days + (Days | Subject)", sleep).fit("ML")
    ours = {
        "sandwich": seconds(lambda: wide.robust("CR2").summary()),
        "profile": seconds(lambda: fit.confint("profile")),
        "bootstrap": seconds(lambda: fit.bootstrap(200, seed=1)),
    }
    with tempfile.TemporaryDirectory() as folder:
        data.to_csv(Path(folder) / "clusters.csv", index=False)
        sleep.to_csv(Path(folder) / "sleep.csv", index=False)
        script = R.replace("FOLDER", folder)
        done = subprocess.run(["Rscript", "-e", script], capture_output=True, text=True, check=True)
    theirs = json.loads(done.stdout)
    titles = {
        "sandwich": "CR2 and df, 1,000 clusters of 10 (clubSandwich)",
        "profile": "profile intervals, sleepstudy (lme4)",
        "bootstrap": "200 bootstrap refits, sleepstudy (lme4)",
    }
    for name, title in titles.items():
        ratio = theirs[name] / ours[name]
        print(
            f"{title:50s} {1e3 * ours[name]:8.1f} ms, R {1e3 * theirs[name]:8.1f} ms: {ratio:.0f} times "
            "as fast"
        )


if __name__ == "__main__":
    main()
