"""Simulation-based calibration of the collapsed sampler: ranks of true values among 99 draws.

    python tests/simulations/calibration.py [--replications 500] [--workers 2] [--plots FOLDER] [name ...]

Parameters from the prior, data from the parameters, 99 draws from the posterior of those data. Results are in
calibration.md.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

import bayeslmm as bl


def design(subjects=12, rows=6):
    """Subjects over the same times, beside a factor that crosses them."""
    g = np.repeat(np.arange(subjects), rows)
    rng = np.random.default_rng(0)
    return pd.DataFrame({"g": g.astype(str), "t": np.tile(np.arange(float(rows)), subjects),
                         "c": rng.permutation(np.resize(list("abcdef"), len(g))), "y": rng.normal(size=len(g))})  # fmt: skip


def cases():
    """The model and its priors, by name."""
    unit = bl.HalfNormal(1.0)
    priors = {"beta": bl.Normal(0.0, 2.0), "sigma": unit, "sd_g": unit}
    serial = bl.Exponential("t") + bl.Independent()
    return {
        "random slope": (bl.LMM("y ~ t + (t | g)", design()), priors),
        "serial": (bl.LMM("y ~ t + (1 | g)", design(), residual=serial),
                   {**priors, "sigma_serial": unit, "range": bl.LogNormal(0.5, 0.7)}),
        "crossed": (bl.LMM("y ~ t + (1 | g) + (1 | c)", design()), {**priors, "sd_c": unit}),
    }  # fmt: skip


def main():
    options = argparse.ArgumentParser()
    options.add_argument("names", nargs="*")
    options.add_argument("--replications", type=int, default=500)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--plots", type=Path)
    given = options.parse_args()
    for name, (model, priors) in cases().items():
        if given.names and name not in given.names:
            continue
        start = time.perf_counter()
        found = bl.sbc(model, given.replications, priors=priors, seed=3, workers=given.workers, progress=True)
        chains = np.mean([m != "importance sampling" for m in found.method])
        print(f"{name}: {time.perf_counter() - start:.0f} s, largest k̂ {found.khat.max():.2f}, by chains {chains:.1%}")
        print(found.test().round(4).to_string(), flush=True)
        if given.plots:
            given.plots.mkdir(parents=True, exist_ok=True)
            found.plot().savefig(given.plots / f"{name.replace(' ', '-')}.png", dpi=110)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
