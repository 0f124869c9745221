"""What the collapsed sampler does with few subjects: k̂, escalation, and NUTS beside the sets in which chains took over.

    python tests/simulations/few_subjects.py [--sets 50] [--checked 3] [--nuts-sampler nutpie]

Every set is simulated anew, half of them without any variance between subjects. Results are in collapsed.md.
"""

import argparse
import warnings

import collapsed
import numpy as np
import pandas as pd

import bayeslmm as bl

SERIAL = bl.Exponential("t") + bl.Independent()
MODELS = {
    "random intercept": ("y ~ t + (1 | g)", None),
    "random slope, correlated": ("y ~ t + (t | g)", None),
    "random intercept + exponential + nugget": ("y ~ t + (1 | g)", SERIAL),
}


def data(subjects, single, spread, rng):
    """3 rows a subject, or one for half of them; spread: sd of the random intercept and slope."""
    g = np.repeat(np.arange(subjects), 3)
    t = np.tile([0.0, 1.0, 2.0], subjects)
    w = spread * rng.normal(size=(subjects, 2))
    y = 5 + t + w[g, 0] + w[g, 1] * t + rng.normal(size=len(g))
    table = pd.DataFrame({"g": np.char.add("s", g.astype(str)), "t": t, "y": y})
    return table[(g % 2 == 0) | (t == 0)] if single else table


def survey(sets, checked, sampler):
    """One row for each model and number of subjects; then NUTS beside the first sets that chains drew."""
    rows, suspects = [], []
    for name, (formula, residual) in MODELS.items():
        for subjects in (3, 5, 8):
            for single in (False, True)[: 1 if "(t |" in formula else 2]:  # slopes need more than one row
                found = []
                for k in range(sets):
                    rng = np.random.default_rng([subjects, single, k])
                    model = bl.LMM(formula, data(subjects, single, float(k % 2), rng), residual=residual)
                    tree = model.sample(draws=500, random_seed=k, prior_draws=0)
                    found.append((tree.attrs["khat"], tree.attrs["method"] != "importance sampling"))
                    if found[-1][1]:
                        suspects.append((f"{name}, {subjects} subjects, {'half single, ' * single}set {k}", model))
                khat, chains = np.array(found).T
                rows.append({"model": name, "subjects": subjects, "rows": "3, half of them 1" if single else "3",
                             "median k̂": np.median(khat), "largest k̂ accepted": khat[chains == 0].max(initial=-np.inf),
                             "chains took over": f"{int(chains.sum())} of {sets}"})  # fmt: skip
                print(rows[-1], flush=True)
    print(pd.DataFrame(rows).round(2).to_string(index=False))
    for name, model in suspects[:: max(1, len(suspects) // max(checked, 1))][:checked]:
        print(collapsed.shown(collapsed.compare(name, model, collapsed.FEW, sampler)), flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    options = argparse.ArgumentParser()
    options.add_argument("--sets", type=int, default=50)
    options.add_argument("--checked", type=int, default=3)
    options.add_argument("--nuts-sampler", default="pymc")
    given = options.parse_args()
    survey(given.sets, given.checked, given.nuts_sampler)
