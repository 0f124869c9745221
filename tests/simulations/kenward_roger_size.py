"""Size of the Kenward-Roger F at 5 %: 10 subjects x 4 visits, no difference between visits.

Each set is drawn from a random intercept and slope model; the F test of three visit contrasts (and, under an unstructured
covariance, Hotelling's T²) is counted. The naive chi-square of the same statistic stands beside it.

    python tests/simulations/kenward_roger_size.py 10000
"""

import sys
import warnings

import numpy as np
import pandas as pd
from rich.progress import track

import bayeslmm as bl

VISIT = np.tile(np.arange(4.0), 10)
SUBJECT = np.repeat(np.arange(10), 4)


def simulate(rng: np.random.Generator) -> pd.DataFrame:
    w = rng.normal(size=(10, 2)) @ np.diag([1.0, 0.4])
    y = w[SUBJECT, 0] + w[SUBJECT, 1] * (VISIT - 1.5) + rng.normal(size=40)
    return pd.DataFrame({"y": y, "t": VISIT - 1.5, "v": VISIT.astype(int).astype(str), "id": SUBJECT.astype(str)})


def p_values(data: pd.DataFrame) -> tuple[float, float, bool]:
    fit = bl.LMM("y ~ v + (t | id)", data).fit()
    kr, chi2 = fit.test("v", "kenward-roger"), fit.test("v", "asymptotic")
    return kr["p"], chi2["p"], bool(fit.convergence)


def sizes(count: int, seed: int = 20261122) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    sets = (simulate(rng) for _ in range(count))
    return pd.DataFrame([p_values(data) for data in track(sets, total=count, disable=count < 100)],
                        columns=["kenward_roger", "chi_square", "converged"])  # fmt: skip


if __name__ == "__main__":
    warnings.simplefilter("error")
    table = sizes(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
    for name in ("kenward_roger", "chi_square"):
        rate = (table[name] < 0.05).mean()
        print(f"{name}: {100 * rate:.2f} % of {len(table)} sets (standard error {100 * np.sqrt(rate * (1 - rate) / len(table)):.2f})")
    print(f"converged: {table['converged'].mean():.4f}; p missing in {table['kenward_roger'].isna().sum()}")
