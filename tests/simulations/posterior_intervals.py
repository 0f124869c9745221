"""How wide 90 % prediction intervals of the posterior are beside the closed form's, by the number of
subjects.

    OMP_NUM_THREADS=1 python tests/simulations/posterior_intervals.py [sets] >> tests/simulations/posterior_intervals.md

y ~ t + (t | id) with 6 rows a subject, flat priors ("reml"). Predicted is a new measurement one step ahead,
of a subject of the data and of a new one. The closed form takes the variance parameters for known; its
Kenward-Roger version allows for their estimation.
"""

import sys
import warnings

import numpy as np
import pandas as pd

import bayeslmm as bl

ROWS = 6
NEW = pd.DataFrame({"t": [6.0, 6.0], "id": ["s1", "new"]})


def draw(rng: np.random.Generator, subjects: int) -> pd.DataFrame:
    t = np.tile(np.arange(float(ROWS)), subjects)
    code = np.repeat(np.arange(subjects), ROWS)
    w = rng.normal(size=(subjects, 2)) * [1.0, 0.3]
    y = 2 + 0.5 * t + w[code, 0] + w[code, 1] * t + 0.7 * rng.normal(size=len(t))
    return pd.DataFrame({"id": np.char.add("s", code.astype(str)), "t": t, "y": y})


def widths(seed: int, subjects: int) -> np.ndarray:
    """Widths (3 methods, 2 targets): normal quantiles, Kenward-Roger, posterior."""
    model = bl.LMM("y ~ t + (t | id)", draw(np.random.default_rng([seed, subjects]), subjects))
    fit = model.fit()
    closed = [fit.predict(NEW, what="response", interval=0.9, df=df) for df in (None, "kenward-roger")]
    posterior = model.sample(draws=1000, chains=2, random_seed=seed, priors="reml")
    y = bl.posterior_predict(model, posterior, NEW, random_seed=seed)["predictions"]["y"]
    low, high = y.quantile([0.05, 0.95], ("chain", "draw")).values
    return np.array([*((x["upper"] - x["lower"]).to_numpy() for x in closed), high - low])


def main(sets: int) -> None:
    warnings.simplefilter("ignore")
    print("| subjects | target | closed form | closed form, Kenward-Roger | posterior | posterior / closed form |")
    print("|---|---|---|---|---|---|")
    for subjects in (6, 12, 30, 200):
        found = np.array([widths(seed, subjects) for seed in range(sets)])
        middle = np.median(found, axis=0)
        for k, target in enumerate(("known subject", "new subject")):
            ratio = np.median(found[:, 2, k] / found[:, 0, k])
            print(
                f"| {subjects} | {target} | {middle[0, k]:.2f} | {middle[1, k]:.2f} | {middle[2, k]:.2f} | {ratio:.3f} |"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
