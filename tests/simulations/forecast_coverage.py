"""How often 90 % prediction intervals hold the next measurement of each subject.

    OMP_NUM_THREADS=1 python tests/simulations/forecast_coverage.py [number of sets] >> forecast_coverage.md

30 subjects are measured at 5 to 8 of 8 times; the model is fitted and the response one
step after the last time is predicted. Truth: σ² = 1, range 3, τ² = 0.5, with and without a random intercept
of variance 1.
"""

import sys
import time
import warnings

import numpy as np
import pandas as pd

import bayeslmm as bl

SUBJECTS, TIMES, LEVEL = 30, 8, 0.9
METHODS = (None, "satterthwaite", "kenward-roger")
RESIDUAL = bl.Exponential("t", subject="id") + bl.Independent()
FORMULAS = {0.0: "y ~ t", 1.0: "y ~ t + (1 | id)"}


def draw(rng: np.random.Generator, intercept: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows to fit and the rows to forecast."""
    t = np.arange(TIMES + 1.0)
    process = np.linalg.cholesky(np.exp(-np.abs(np.subtract.outer(t, t)) / 3))
    y = 2 + 0.3 * t + rng.normal(size=(SUBJECTS, TIMES + 1)) @ process.T
    y += np.sqrt(0.5) * rng.normal(size=y.shape) + np.sqrt(intercept) * rng.normal(size=(SUBJECTS, 1))
    data = pd.DataFrame({"id": np.repeat([f"s{i}" for i in range(SUBJECTS)], TIMES + 1),
                         "t": np.tile(t, SUBJECTS), "y": y.ravel()})  # fmt: skip
    last = (data["t"] == TIMES).to_numpy()
    order = rng.uniform(size=(SUBJECTS, TIMES + 1)).argsort(axis=1).argsort(axis=1).ravel()
    return data[~last & (order <= rng.integers(5, 9, SUBJECTS).repeat(TIMES + 1))], data[last]


def one_set(seed: int, intercept: float) -> np.ndarray:
    """Share of subjects whose forecast interval holds the truth, and mean width: (methods, 2)."""
    seen, ahead = draw(np.random.default_rng([seed, int(intercept)]), intercept)
    fit = bl.LMM(FORMULAS[intercept], seen, residual=RESIDUAL).fit()
    out = []
    for df in METHODS:
        x = fit.predict(ahead, what="response", interval=LEVEL, df=df, information=df and "expected")
        inside = (x["lower"].to_numpy() <= ahead["y"].to_numpy()) & (
            ahead["y"].to_numpy() <= x["upper"].to_numpy()
        )
        out.append([inside.mean(), (x["upper"] - x["lower"]).mean()])
    return np.array(out)


def coverage(sets: int, intercept: float) -> tuple[np.ndarray, np.ndarray, int]:
    """Mean (methods, 2) over sets, its standard error, and how many sets had no answer by some method."""
    found, failed = [], 0
    for seed in range(sets):
        try:
            found.append(one_set(seed, intercept))
        except bl.BayesLMMError:
            failed += 1
    x = np.array(found)
    return x.mean(axis=0), x.std(axis=0) / np.sqrt(len(x)), failed


def main(sets: int) -> None:
    warnings.simplefilter("ignore")
    for intercept, formula in FORMULAS.items():
        start = time.process_time()
        mean, error, failed = coverage(sets, intercept)
        seconds = time.process_time() - start
        print(f"\n`{formula}`, `{RESIDUAL}`: {sets} sets of {SUBJECTS} subjects, {failed} without an answer, "
              f"{seconds:.0f} s on one core\n")  # fmt: skip
        print("| df | coverage | standard error | mean width |\n|---|---|---|---|")
        for i, df in enumerate(METHODS):
            print(f"| {df or 'normal quantiles'} | {mean[i, 0]:.4f} | {error[i, 0]:.4f} | {mean[i, 1]:.3f} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
