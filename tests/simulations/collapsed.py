"""The collapsed sampler beside PyMC's NUTS under the same priors: 20,000 draws of each, every quantity.

    python tests/simulations/collapsed.py [--nuts-sampler nutpie] [--times SHARE] [name ...]

For each variance parameter, coefficient and random effect: mean, sd and the 5, 50 and 95 % quantiles, and their
difference in Monte Carlo standard errors (those of NUTS from its effective sample size, those of the collapsed
sampler from independent draws). Results are in collapsed.md.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from arviz_stats.base import array_stats
from scipy import stats

import bayeslmm as bl
from bayeslmm.draws import effect_draws, population_draws

QUANTILES = (0.05, 0.5, 0.95)
# parametrization of NUTS, draws of each of its four chains, acceptance aimed at
RUNS = {
    "sleepstudy": ("centered", 30_000, 0.9),
    "sleepstudy ||": ("centered", 30_000, 0.9),
    "orthodont by Sex": ("centered", 120_000, 0.9),
    "bodyweight serial + nugget": ("centered", 120_000, 0.9),
    "pastes": ("noncentered", 60_000, 0.97),
    "penicillin": ("noncentered", 250_000, 0.9),
    "fev unstructured": ("noncentered", 15_000, 0.9),
}
FEW = ("noncentered", 60_000, 0.99)


def models():
    fev = pd.read_csv(Path(__file__).parents[1] / "oracle" / "fev.csv")
    sleep = bl.load_dataset("sleepstudy")
    few = {k: sleep[sleep["Subject"].isin(sorted(set(sleep["Subject"]))[:k]) & sleep["Days"].isin([0, 4, 8])]
           for k in (3, 5, 8)}  # fmt: skip
    rng = np.random.default_rng(7)
    zero = pd.DataFrame({"g": np.repeat([f"s{i}" for i in range(8)], 3), "x": np.tile([0.0, 1.0, 2.0], 8)})
    zero["y"] = 5 + rng.normal(size=24)
    single = zero[(zero["x"] > 0) | zero["g"].isin(["s0", "s1", "s2", "s3"])]
    single = single[(single["x"] < 1.5) | (single["g"] < "s4")]
    return {
        "sleepstudy": bl.LMM("Reaction ~ Days + (Days | Subject)", sleep),
        "sleepstudy ||": bl.LMM("Reaction ~ Days + (Days || Subject)", sleep),
        "orthodont by Sex": bl.LMM("distance ~ age * Sex + (1 | Subject)", bl.load_dataset("orthodont"),
                                   residual=bl.Independent(by="Sex")),
        "bodyweight serial + nugget": bl.LMM("weight ~ Time * Diet + (Time | Rat)", bl.load_dataset("bodyweight"),
                                             residual=bl.Exponential("Time") + bl.Independent()),
        "pastes": bl.LMM("strength ~ 1 + (1 | batch/cask)", bl.load_dataset("pastes")),
        "penicillin": bl.LMM("diameter ~ 1 + (1 | plate) + (1 | sample)", bl.load_dataset("penicillin")),
        "fev unstructured": bl.LMM("FEV1 ~ ARMCD", fev, residual=bl.Unstructured("AVISIT", subject="USUBJID")),
        **{f"sleepstudy, {k} subjects x 3": bl.LMM("Reaction ~ Days + (Days | Subject)", d) for k, d in few.items()},
        "no variance between 8 subjects": bl.LMM("y ~ x + (x | g)", zero),
        "half of 8 subjects with one row": bl.LMM("y ~ x + (1 | g)", single),
    }  # fmt: skip


def quantities(model, tree):
    """Every number of the posterior, (chain, draw) each."""
    posterior = tree["posterior"].to_dataset()
    found = {name: x.values for name, x in population_draws(model, posterior).data_vars.items()}
    for term in model.design.terms:
        w = effect_draws(model, posterior, term.group)
        for i, j in np.ndindex(w.shape[2:]):
            found[f"w_{term.group}[{term.levels[i]}, {term.effects[j]}]"] = w[:, :, i, j]
    return found


def errors(x, independent):
    """(value, standard error) of mean, sd and quantiles."""
    flat = x.ravel()

    def size(method, **options):
        return flat.size if independent else float(array_stats.ess(x, method=method, **options))

    sd = flat.std(ddof=1)
    kurtosis = np.mean((flat - flat.mean()) ** 4) / sd**4
    yield flat.mean(), sd / np.sqrt(size("mean"))
    yield sd, sd * np.sqrt(max(kurtosis - 1, 0.1) / 4 / size("sd"))
    for q in QUANTILES:
        n = size("quantile", prob=q)
        low, high = stats.beta.ppf(stats.norm.cdf([-1, 1]), n * q + 1, n * (1 - q) + 1)
        a, b = np.quantile(flat, [low, high])
        yield np.quantile(flat, q), (b - a) / 2


def compare(name, model, run=FEW, sampler="pymc", draws=20_000, seed=1):
    """One row of the table; run: as in RUNS."""
    parametrization, each, accept = run
    start = time.perf_counter()
    collapsed = model.sample(draws=draws // 4, random_seed=seed, prior_draws=0)
    took = [time.perf_counter() - start]
    start = time.perf_counter()
    nuts = model.sample("nuts", draws=each, tune=1500, chains=4, cores=2, random_seed=seed,
                        nuts_sampler=sampler, parametrization=parametrization,
                        target_accept=accept, prior_draws=0, progressbar=False)  # fmt: skip
    took.append(time.perf_counter() - start)
    a, b = quantities(model, collapsed), quantities(model, nuts)
    exact = collapsed.attrs["method"] == "importance sampling"
    z = pd.DataFrame(
        {key: [(x - y) / np.hypot(e, f) for (x, e), (y, f) in zip(errors(a[key], exact), errors(b[key], False), strict=True)]
         for key in a}, index=["mean", "sd", *(f"q{q}" for q in QUANTILES)]).T  # fmt: skip
    least = min((float(array_stats.ess(x, method="bulk")), name) for name, x in b.items())
    row, column = np.unravel_index(np.argmax(z.abs().to_numpy()), z.shape)
    worst = (z.index[row], z.columns[column])
    divergent = int(nuts["sample_stats"]["diverging"].sum())
    return {
        "model": name, "NUTS": parametrization, "draws": 4 * each, "quantities": len(z),
        "largest |z|": z.abs().to_numpy().max(), "where": f"{worst[0]}, {worst[1]}",
        "share of |z| > 2": float((z.abs() > 2).to_numpy().mean()), "NUTS ESS (least)": least[0], "of": least[1],
        "divergences": divergent,
        "khat": collapsed.attrs["khat"], "method": collapsed.attrs["method"], "ESS of weights": collapsed.attrs["ess"],
        "seconds": took[0], "NUTS seconds": took[1],
    }  # fmt: skip


def shown(row):
    """A row with readable numbers."""
    return {k: round(float(v), 3) if isinstance(v, float) else v for k, v in row.items()}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    options = argparse.ArgumentParser()
    options.add_argument("names", nargs="*")
    options.add_argument("--nuts-sampler", default="pymc")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--times", type=float, default=1.0, help="share of the draws of NUTS")
    given = options.parse_args()
    for name, model in models().items():
        if not given.names or name in given.names:
            kind, each, accept = RUNS.get(name, FEW)
            run = (kind, int(given.times * each), accept)
            row = compare(name, model, run, given.nuts_sampler, seed=given.seed)
            print(shown(row), flush=True)
