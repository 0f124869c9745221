"""The PyMC model with the random effects integrated out, and w drawn from posteriors without it."""

import numpy as np
import pytest
from scipy import stats
from test_likelihood import FORMULAS, RESIDUALS, build

import bayeslmm as bl
from bayeslmm.hierarchical.collapsed.sampler import sample_collapsed
from bayeslmm.hierarchical.recover import random_effect_draws
from bayeslmm.marginal.covariances import subject_covariance


def natural_parameters(model, values):
    """The natural parameters of the covariance from the variables of the PyMC model."""
    out, left = [], {}
    for parameter in model.covariance.parameters:
        x = np.asarray(values[parameter.name])
        entries = left.setdefault(parameter.name, list(x[np.tril_indices(len(x), -1)] if x.ndim == 2 else np.ravel(x)))
        out += [entries.pop(0) for _ in range(len(parameter))]  # bars of one factor share the name of their sd
    return np.array(out)


def check(formula, residual, balanced):
    model = build(3, 9, balanced, formula, residual, residual == "independent")
    built = model.to_pymc("marginal")
    outputs = [*built.free_RVs, *built.deterministics]
    logp = built.logp(vars=built.observed_RVs, sum=True)
    wanted = [logp, *built.replace_rvs_by_values(outputs)]
    function = built.compile_fn(wanted, on_unused_input="ignore", mode="FAST_COMPILE")
    rng = np.random.default_rng(1)  # a correlation of zero would hide where it stands
    found = function({name: x + 0.5 * rng.normal(size=np.shape(x)) for name, x in built.initial_point().items()})
    values = dict(zip([x.name for x in outputs], found[1:], strict=True))
    d = model.design
    θ = model.covariance.linear_from_natural(natural_parameters(model, values))
    V = subject_covariance(d, model.covariance, model.residual, θ, np.arange(len(d.y)), marginal=True)
    mean = d.X @ values["beta"] + d.offset
    assert float(found[0]) == pytest.approx(stats.multivariate_normal(mean, V).logpdf(d.y), rel=1e-9)


@pytest.mark.parametrize("formula", [f for f in FORMULAS if f != "none"])
def test_likelihood_with_every_kind_of_random_effects(formula):
    check(formula, "independent", True)


@pytest.mark.parametrize("residual", RESIDUALS)
@pytest.mark.parametrize("balanced", [True, False], ids=["balanced", "unbalanced"])
def test_likelihood_with_every_residual(residual, balanced):
    check("slope" if residual == "power" else "intercept", residual, balanced)


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


def test_coefficients_without_intercept_may_have_priors_of_different_families():
    data = bl.load_dataset("sleepstudy").assign(late=lambda d: (d["Days"] > 5) * 1.0)
    model = bl.LMM("Reaction ~ 0 + Days + late + (1 | Subject)", data)
    built = model.to_pymc("marginal", priors={"Days": bl.StudentT(3, 0, 20), "late": bl.Normal(1, 30)})
    point = built.initial_point()
    beta = built.compile_fn(built.replace_rvs_by_values([built["beta"]]), inputs=built.value_vars, mode="FAST_COMPILE",
                            on_unused_input="ignore")(point)[0]  # fmt: skip
    found = built.compile_logp(vars=[built["beta"]], jacobian=False, mode="FAST_COMPILE")(point)
    assert float(found) == pytest.approx(stats.t.logpdf(beta[0] / 20, 3) - np.log(20) + stats.norm.logpdf(beta[1], 1, 30))
    np.testing.assert_allclose(built.rvs_to_transforms[built["beta"]].location, model.fit().beta, rtol=1e-6)
