"""Random intercept + exponential + measurement error, fitted to simulated sets: does every fit end well?

60 subjects, irregular times, 1 to 12 rows each. For each set: the fit must not fail, its log-likelihood must not be
below that at the true parameters, and a fit that did not converge must say so.

    python tests/simulations/three_components.py 1000
"""

import sys
import time

import numpy as np
import pandas as pd

import bayeslmm as bl
from bayeslmm.kernel.blocks import arrange
from bayeslmm.kernel.likelihood import evaluate

TRUTH = np.array([1.5**2, 1.0**2, 2.0, 0.5**2])  # sd_id², sigma_serial², range, sigma²


def simulate(seed: int, subjects: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 13, subjects)
    rows = []
    for i, m in enumerate(size):
        t = np.sort(rng.uniform(0, 12, m))
        lag = np.abs(np.subtract.outer(t, t))
        V = TRUTH[0] + TRUTH[1] * np.exp(-lag / TRUTH[2]) + TRUTH[3] * np.eye(m)
        y = 10 + 0.3 * t + rng.multivariate_normal(np.zeros(m), V)
        rows.append(pd.DataFrame({"id": f"s{i:02d}", "t": t, "y": y}))
    return pd.concat(rows, ignore_index=True)


def run(seed: int) -> dict:
    data = simulate(seed)
    model = bl.LMM("y ~ t + (1 | id)", data, residual=bl.Exponential("t") + bl.Independent())
    start = time.perf_counter()
    fit = model.fit()
    seconds = time.perf_counter() - start
    blocks = arrange(model.design, model.covariance, model.residual)
    truth = evaluate(blocks, model.covariance, TRUTH / blocks.unit, reml=True, order=0).value
    return {"seed": seed, "status": fit.convergence.status, "gain": fit.loglik - truth, "seconds": seconds,
            "gradient": fit.convergence.gradient, "iterations": fit.convergence.iterations}  # fmt: skip


def main(count: int) -> None:
    table = pd.DataFrame([run(seed) for seed in range(count)])
    print(table["status"].value_counts().to_string())
    print(f"lowest gain over the truth: {table['gain'].min():.6f}")
    print(f"largest decrement of a converged fit: {table.loc[table.status != 'not converged', 'gradient'].max():.1e}")
    print(f"seconds a fit: median {table['seconds'].median():.3f}, longest {table['seconds'].max():.3f}")
    print(table[table["status"] == "not converged"].to_string())


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
