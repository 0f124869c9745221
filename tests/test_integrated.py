"""The PyMC model with the random effects integrated out, and w drawn from posteriors without it."""

import numpy as np
import pytest
from scipy import stats
from test_likelihood import build

import bayeslmm as bl
from bayeslmm.hierarchical.collapsed.sampler import sample_collapsed
from bayeslmm.hierarchical.recover import random_effect_draws
from bayeslmm.marginal.covariances import subject_covariance


def natural_parameters(model, values):
    """The natural parameters of the covariance from the variables of the PyMC model."""
    out = []
    for parameter in model.covariance.parameters:
        x = np.asarray(values[parameter.name])
        out += list(x[np.tril_indices(len(x), -1)] if x.ndim == 2 else np.ravel(x))
    return np.array(out)


def check(formula, residual, balanced):
    model = build(3, 9, balanced, formula, residual, residual == "independent")
    built = model.to_pymc("marginal")
    outputs = [*built.free_RVs, *built.deterministics]
    logp = built.logp(vars=built.observed_RVs, sum=True)
    wanted = [logp, *built.replace_rvs_by_values(outputs)]
    function = built.compile_fn(wanted, on_unused_input="ignore", mode="FAST_COMPILE")
    found = function(built.initial_point())
    values = dict(zip([x.name for x in outputs], found[1:], strict=True))
    d = model.design
    θ = model.covariance.linear_from_natural(natural_parameters(model, values))
    V = subject_covariance(d, model.covariance, model.residual, θ, np.arange(len(d.y)), marginal=True)
    mean = d.X @ values["beta"] + d.offset
    assert float(found[0]) == pytest.approx(stats.multivariate_normal(mean, V).logpdf(d.y), rel=1e-9)


def test_likelihood_is_that_of_the_marginal_model():
    check("slope", "independent", True)


CASES = [("nested slope", "by row"), ("crossed slopes", "by row"), ("slope", "exponential + nugget"),
         ("crossed", "independent"), ("intercept", "toeplitz by visit")]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("formula", "residual"), CASES)
def test_likelihood_of_every_kind(formula, residual):
    check(formula, residual, True)


@pytest.fixture(scope="module")
def model():
    return bl.LMM("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))


def test_effects_are_found_afterwards(model):
    tree = sample_collapsed(model, random_seed=1, prior_draws=0)
    found = random_effect_draws(model, tree, random_seed=2)["w_Subject"]
    first = tree["posterior"]["w_Subject"]
    sample = ("chain", "draw")
    error = first.std(sample) / np.sqrt(4000)
    assert float((np.abs(found.mean(sample) - first.mean(sample)) / error).max()) < 4.5
    np.testing.assert_allclose(found.std(sample), first.std(sample), rtol=0.07)
    some = random_effect_draws(model, tree, ["335", "310"], random_seed=2)["w_Subject"]
    assert some.coords["Subject"].values.tolist() == ["335", "310"]
    np.testing.assert_allclose(some.mean(sample), first.mean(sample).sel(Subject=["335", "310"]), atol=1.5)
    with pytest.raises(bl.InferenceError, match="no level 'x'"):
        random_effect_draws(model, tree, "x")


@pytest.mark.slow
def test_marginal_draws_agree_with_the_collapsed_sampler(model):
    import pymc as pm

    with model.to_pymc("marginal"):
        tree = pm.sample(1000, tune=1000, chains=2, random_seed=1, progressbar=False)
    exact = sample_collapsed(model, draws=2000, random_seed=1, prior_draws=0)["posterior"]
    for name in ("beta", "sd_Subject", "sigma"):
        a, b = (x[name].stack(s=("chain", "draw")) for x in (tree["posterior"], exact))
        scale = np.asarray(b.std("s"))
        np.testing.assert_allclose(a.mean("s") / scale, b.mean("s") / scale, atol=0.15)
    w = random_effect_draws(model, tree, random_seed=1)["w_Subject"].mean(("chain", "draw"))
    np.testing.assert_allclose(w, exact["w_Subject"].mean(("chain", "draw")), atol=2.5)
