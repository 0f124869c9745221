"""Sensitivity to the prior and to the data, where the answer is known: the power of a prior is a prior.

ArviZ raises the prior (or the likelihood) to a power α by weighting draws with exp((α - 1) log p). Here the
posterior under that power is drawn anew: Normal(m, s)^α is Normal(m, s/√α), half-normal likewise, Exp(λ)^α
is Exp(αλ), LKJ(η)^α is LKJ(1 + α(η - 1)); a likelihood squared is the likelihood of every measurement twice.
"""

import arviz as az
import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl

DRAWS = 2000  # of each of four chains


def table(tree, names):
    """Draws (S, quantities) of some variables, with the lower triangle of a correlation matrix."""
    found = {}
    for name in names:
        x = tree["posterior"][name].values
        x = x.reshape(x.shape[0] * x.shape[1], -1)
        keep = [2] if name.startswith("corr_") else range(x.shape[1])
        found |= {f"{name}[{j}]": x[:, j] for j in keep}
    return pd.DataFrame(found)


def log_density(tree, group):
    """log p summed over all variables and all rows or subjects (S,), as ArviZ does."""
    sums = [x.sum([d for d in x.dims if d not in ("chain", "draw")]) for x in tree[group].data_vars.values()]
    return sum(sums).values.ravel()


def cjs(a, b):
    """Cumulative Jensen-Shannon distance of two samples, the larger of both directions."""
    return max(_directed(a, b), _directed(-a, -b))


def _directed(a, b):
    at = np.sort(np.concatenate([a, b]))
    width = np.diff(at)
    P, Q = (np.searchsorted(np.sort(x), at[:-1], side="right") / len(x) for x in (a, b))

    def part(P, Q):
        ratio = np.divide(2 * P, P + Q, out=np.ones_like(P), where=P > 0)
        return np.sum(width * P * np.log2(ratio)) + np.sum(width * (Q - P)) / np.log(4)

    return np.sqrt((part(P, Q) + part(Q, P)) / np.sum(width * (P + Q)))


def moments_agree(tree, log_weight, refit, names, worth=1.0):
    """Mean and sd of the weighted draws are those of the refit, within the error of both.

    worth: independent draws that one of the tree's is worth.
    """
    draws, other = table(tree, names), table(refit, names)
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    effective = worth / np.sum(weight**2)
    assert effective > 300
    error = 5 * np.sqrt(1 / effective + 1 / len(other))
    for name in draws:
        x, y = draws[name].to_numpy(), other[name].to_numpy()
        mean = np.sum(weight * x)
        sd = np.sqrt(np.sum(weight * (x - mean) ** 2))
        assert mean == pytest.approx(y.mean(), abs=error * y.std()), name
        kurtosis = np.mean((y - y.mean()) ** 4) / y.var() ** 2
        assert sd == pytest.approx(y.std(), rel=error * np.sqrt((kurtosis - 1) / 4)), name


# --- the prior --------------------------------------------------------------------------------------------

NAMES = ["beta", "sd_Subject", "corr_Subject", "sigma"]


def powered(α):
    """Priors that say something, to the power α."""
    return {
        "Intercept": bl.Normal(320.0, 8.0 / np.sqrt(α)),
        "Days": bl.Normal(4.0, 3.0 / np.sqrt(α)),
        "sd_Subject[Intercept]": bl.HalfNormal(12.0 / np.sqrt(α)),
        "sd_Subject[Days]": bl.Exp(0.4 * α),
        "corr_Subject": bl.LKJ(1 + α * 2),
        "sigma": bl.HalfNormal(10.0 / np.sqrt(α)),
    }


@pytest.fixture(scope="module")
def sleepstudy():
    return bl.LMM("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))


@pytest.fixture(scope="module")
def informed(sleepstudy):
    """The posterior under the priors to the powers 1/2, 1 and 2."""
    return {
        α: sleepstudy.sample(draws=DRAWS, random_seed=int(10 * α), priors=powered(α), prior_draws=0)
        for α in (0.5, 1.0, 2.0)
    }


@pytest.mark.parametrize("α", [0.5, 2.0])
def test_weighting_by_our_log_prior_is_refitting_under_its_power(informed, α):
    base = informed[1.0]
    moments_agree(base, (α - 1) * log_density(base, "log_prior"), informed[α], NAMES)


def test_arviz_finds_the_sensitivity_that_refits_have(informed):
    found = az.psense(informed[1.0], group="prior", alphas=(0.5, 2.0), var_names=NAMES)
    x, low, high = (table(informed[α], NAMES) for α in (1.0, 0.5, 2.0))
    for name in x:
        variable, j = name.rstrip("]").split("[")
        expected = (cjs(x[name], low[name]) + cjs(x[name], high[name])) / 2
        assert expected > 0.03, name
        assert float(found[variable].values.ravel()[int(j)]) == pytest.approx(expected, abs=0.015), name


def test_draws_of_nuts_are_weighted_alike():
    model = bl.LMM("Reaction ~ Days + (1 | Subject)", bl.load_dataset("sleepstudy"))
    names = ["beta", "sd_Subject", "sigma"]

    def priors(α):
        own = powered(α)
        return {"Intercept": own["Intercept"], "sd_Subject": own["sd_Subject[Intercept]"], "sigma": own["sigma"]}

    options = {"draws": 1500, "tune": 500, "chains": 2, "cores": 1, "random_seed": 1, "progressbar": False}
    tree = model.sample("nuts", priors=priors(1.0), prior_draws=0, **options)
    refit = model.sample(draws=DRAWS, random_seed=1, priors=priors(2.0), prior_draws=0)
    moments_agree(tree, log_density(tree, "log_prior"), refit, names, worth=0.4)
    same = model.sample(draws=DRAWS, random_seed=2, priors=priors(1.0), prior_draws=0)
    ours, theirs = (az.psense_summary(t, var_names=names) for t in (same, tree))
    np.testing.assert_allclose(theirs["prior"], ours["prior"], atol=0.04)
    assert list(theirs["diagnosis"]) == list(ours["diagnosis"])


# --- the likelihood ---------------------------------------------------------------------------------------


def few():
    """Five people; `series` is who was measured when, and the same as `id` until the data are doubled."""
    rng = np.random.default_rng(5)
    code, t = np.repeat(np.arange(5), 6), np.tile(np.arange(6.0), 5)
    y = 3 + 0.5 * t + rng.normal(size=5)[code] + 0.8 * rng.normal(size=30)
    return pd.DataFrame({"id": code.astype(str), "series": code.astype(str), "t": t, "y": y})


@pytest.mark.parametrize("residual", [None, bl.Exponential("t", subject="series")], ids=["rows", "subjects"])
def test_weighting_by_the_log_likelihood_is_seeing_the_data_twice(residual):
    """Given w: pointwise by row where errors are independent, by subject where they are correlated."""
    once = few()
    twice = pd.concat([once, once.assign(series="again " + once["series"])], ignore_index=True)
    small, large = (bl.LMM("y ~ t + (1 | id)", data, residual=residual) for data in (once, twice))
    priors = bl.default_priors(small)
    tree = small.sample(draws=2 * DRAWS, random_seed=1, priors=priors)
    other = large.sample(draws=DRAWS, random_seed=2, priors=priors)
    assert tree["log_likelihood"]["y"].sizes == {"chain": 4, "draw": 2 * DRAWS} | (
        {"obs": 30} if residual is None else {"series": 5}
    )
    names = ["beta", "sd_id", "w_id", *(["sigma"] if residual is None else ["sigma_serial", "range"])]
    moments_agree(tree, log_density(tree, "log_likelihood"), other, names)
    table = az.psense_summary(tree, var_names=names)
    assert table.loc["sigma" if residual is None else "sigma_serial", "likelihood"] > 0.1


# --- what the summary says --------------------------------------------------------------------------------


def test_a_prior_against_the_data_is_flagged(sleepstudy):
    """The slope is 10.5 with a standard error of 1.5, the error 25: neither prior believes it."""
    given = {"Days": bl.Normal(0.0, 1.0), "sigma": bl.HalfNormal(3.0)}
    tree = sleepstudy.sample(random_seed=1, priors=given)
    found = az.psense_summary(tree, var_names=["beta", "sigma"])
    assert "potential" in found.loc["beta[Days]", "diagnosis"]
    assert found.loc["beta[Days]", "prior"] > 0.2
    assert found.loc["sigma", "diagnosis"] == "potential prior-data conflict"
    assert found.loc["beta[Intercept]", "prior"] < 0.05


@pytest.mark.parametrize("seed", range(3))
def test_default_priors_give_no_false_alarm(sleepstudy, seed):
    found = az.psense_summary(sleepstudy.sample(random_seed=seed), var_names=["beta", "sd_Subject", "sigma"])
    assert (found["diagnosis"] == "✓").all()
    assert found["prior"].max() < 0.04
    assert found.loc["sigma", "likelihood"] > 0.3
