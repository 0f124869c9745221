"""Effective draws a second: the collapsed sampler, Bambi with nutpie, rstanarm, on the same data in one run.

    python benchmarks/collapsed.py [--bambi PYTHON] [--nutpie PYTHON] [--rstanarm] [--cold] [--large] [--only NAME]

PYTHON is an interpreter with bambi and nutpie, or with bayeslmm and nutpie (to time `to_pymc`). --cold: peers that compile
start without a cache of compiled functions, as on a first run. The least effective sample size over all parameters and random
effects, divided by seconds of wall time from the table to the draws: compiling included, imports not.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import arviz as az
import numpy as np
import pandas as pd

import bayeslmm as bl
import bayeslmm.hierarchical.collapsed.sampler  # imports are not timed
import bayeslmm.model

PEERS = Path(__file__).parent / "peers"


def slopes(subjects, rows, *, balanced, seed=1):
    """Random intercepts and slopes."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(subjects), rows)
    t = np.tile(np.arange(rows, dtype=float), subjects) if balanced else rng.uniform(0, rows - 1, len(g)).round(3)
    w = rng.normal(size=(subjects, 2)) @ np.array([[2.0, 0.1], [0.0, 0.4]])
    y = 5 + 0.7 * t + w[g, 0] + w[g, 1] * t + rng.normal(size=len(g))
    return pd.DataFrame({"y": y, "t": t, "g": np.char.add("s", g.astype(str))})


def three_components(subjects, rows, seed=1):
    """Random slopes, a serial process and measurement error."""
    data = slopes(subjects, rows, balanced=True, seed=seed)
    rng = np.random.default_rng(seed + 1)
    lag = np.abs(np.subtract.outer(np.arange(rows), np.arange(rows)))
    serial = rng.normal(size=(subjects, rows)) @ np.linalg.cholesky(np.exp(-lag / 2.0)).T
    return data.assign(y=data["y"] + serial.ravel())


def ours(data, formula, **options):
    start = time.perf_counter()
    model = bl.LMM(formula, data, **options)
    tree = model.sample(draws=1000, chains=4, random_seed=1)
    seconds = time.perf_counter() - start
    names = [n for n in tree["posterior"].data_vars if not n.startswith(("chol_", "z_"))]
    ess = az.ess(tree["posterior"].to_dataset()[names])
    least = min(min(float(v.min()) for v in ess.data_vars.values()), tree.attrs["ess"])
    return {"seconds": seconds, "ess": least, "khat": tree.attrs["khat"]}


def peer(command, cold=False):
    """What a program in a process of its own prints; cold: with an empty folder for compiled functions."""
    with tempfile.TemporaryDirectory() as empty:
        flags = {"PYTENSOR_FLAGS": f"base_compiledir={empty}", "NUMBA_CACHE_DIR": empty} if cold else {}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **flags})
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return json.loads(lines[-1]) if lines else {"seconds": np.nan, "ess": np.nan, "error": done.stderr[-300:]}


def large():
    data = three_components(200_000, 10)
    start = time.perf_counter()
    model = bl.LMM("y ~ t + (t | g)", data, residual=bl.Exponential("t") + bl.Independent())
    built = time.perf_counter() - start
    start = time.perf_counter()
    tree = model.sample(draws=1000, chains=4, random_seed=1)
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    w = bl.random_effect_draws(model, tree, ["s17", "s140000"], random_seed=1)
    on_demand = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"model": built, "sample": seconds, "w of two subjects": on_demand, "peak GiB": memory,
            "khat": tree.attrs["khat"], "ess": tree.attrs["ess"], "draws of w": w["w_g"].size}  # fmt: skip


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--bambi")
    arguments.add_argument("--nutpie")
    arguments.add_argument("--cold", action="store_true")
    arguments.add_argument("--rstanarm", action="store_true")
    arguments.add_argument("--large", action="store_true")
    arguments.add_argument("--only")
    options = arguments.parse_args()
    if options.large:
        print(json.dumps(large()))
        return
    sleep = bl.load_dataset("sleepstudy")
    cases = {
        "sleepstudy": (lambda: sleep, "Reaction ~ Days + (Days | Subject)", "Subject"),
        "1,000 x 10 balanced": (lambda: slopes(1000, 10, balanced=True), "y ~ t + (t | g)", "g"),
        "1,000 x 10 irregular": (lambda: slopes(1000, 10, balanced=False), "y ~ t + (t | g)", "g"),
    }
    for name, (make, formula, group) in cases.items():
        if options.only and options.only != name:
            continue
        data = make()
        found = {"bayeslmm": ours(data, formula)}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "data.csv"
            data.to_csv(path, index=False)
            given = [str(path), formula, group]
            if options.bambi:
                found["Bambi + nutpie"] = peer([options.bambi, str(PEERS / "bambi_nutpie.py"), *given], options.cold)
            for kind in ("marginal", "noncentered") if options.nutpie else ():
                command = [options.nutpie, str(PEERS / "bayeslmm_nutpie.py"), *given, kind]
                found[f"to_pymc({kind!r}) + nutpie"] = peer(command, options.cold)
            if options.rstanarm:
                found["rstanarm"] = peer(["Rscript", str(PEERS / "rstanarm.R"), *given])
        for who, x in found.items():
            x["ESS/s"] = x["ess"] / x["seconds"]
            x["times"] = found["bayeslmm"]["ESS/s"] / x["ESS/s"]
            rounded = {k: round(v, 2) if isinstance(v, float) else v for k, v in x.items()}
            print(name, who, rounded, flush=True)


if __name__ == "__main__":
    sys.exit(main())
