"""Draws from a fit, and many fits at once: the batched likelihood is the ordinary one, refits are ordinary
fits.
"""

from dataclasses import replace

import numpy as np
import pytest

import bayeslmm as bl
from bayeslmm.kernel.batched import evaluate_all, family, maximise_all
from bayeslmm.kernel.blocks import arrange
from bayeslmm.kernel.estimate import estimate
from bayeslmm.kernel.likelihood import evaluate
from bayeslmm.kernel.refit import Problem, inside, refit

ORTHODONT = "distance ~ age * Sex"
LINEAR = {
    "slope": (ORTHODONT + " + (age | Subject)", None),
    "diagonal": (ORTHODONT + " + (age || Subject)", None),
    "by sex": (ORTHODONT + " + (1 | Subject)", bl.Independent(by="Sex")),
    "unstructured": (ORTHODONT, bl.Unstructured("age", subject="Subject")),
    "compound symmetry": (ORTHODONT, bl.CompoundSymmetry("age", subject="Subject")),
}


def _model(name):
    formula, residual = LINEAR[name]
    return bl.LMM(formula, bl.load_dataset("orthodont"), residual=residual)


def _responses(model, count, seed=0):
    y = model.design.y
    return y[:, None] + np.random.default_rng(seed).normal(size=(len(y), count))


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("name", LINEAR)
def test_batched_likelihood_is_the_likelihood(name, reml):
    model = _model(name)
    Y = _responses(model, 4)
    θ = model.fit().estimate.θ * np.array([1.0, 1.1, 1.3, 0.8])[:, None]
    blocks = arrange(model.design, model.covariance, model.residual, responses=Y)
    found = evaluate_all(family(blocks, model.covariance, θ[0] / blocks.unit), θ / blocks.unit, reml=reml)
    for r in range(4):
        alone = arrange(replace(model.design, y=Y[:, r]), model.covariance, model.residual)
        expected = evaluate(alone, model.covariance, θ[r] / alone.unit, reml=reml)
        ratio = alone.unit / blocks.unit
        assert found.value[r] == pytest.approx(expected.value, rel=1e-11)
        np.testing.assert_allclose(found.score[r] * ratio, expected.score, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(
            found.hessian[r] * np.outer(ratio, ratio), expected.hessian, rtol=1e-7, atol=1e-7
        )


@pytest.mark.parametrize("name", LINEAR)
def test_batched_maximum_is_the_fit(name):
    model = _model(name)
    Y = _responses(model, 6, seed=1)
    blocks = arrange(model.design, model.covariance, model.residual, responses=Y)
    start = inside(model.covariance, model.fit().estimate.θ / blocks.unit)
    found = maximise_all(family(blocks, model.covariance, start), model.covariance, start, reml=True)
    for r in range(6):
        alone = estimate(replace(model.design, y=Y[:, r]), model.covariance, model.residual, reml=True)
        assert found.values.value[r] == pytest.approx(alone.loglik, abs=1e-7)


@pytest.mark.parametrize(
    ("data", "formula", "residual"),
    [
        ("sleepstudy", "Reaction ~ Days + (Days | Subject)", None),
        ("sleepstudy", "Reaction ~ Days + (1 | Subject)", bl.Exponential("Days") + bl.Independent()),
        ("penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)", None),
    ],
)
def test_refit_is_an_ordinary_fit(data, formula, residual):
    """Linear, nonlinear and crossed models: coefficients, variances and log-likelihood in the units of the
    data.
    """
    model = bl.LMM(formula, bl.load_dataset(data), residual=residual)
    fit = model.fit()
    Y = fit.simulate(2, seed=4).to_numpy()
    found = refit(Problem.of(model), Y, fit.estimate.θ, reml=True)
    for r in range(2):
        alone = estimate(replace(model.design, y=Y[:, r]), model.covariance, model.residual, reml=True)
        assert found.loglik[r] == pytest.approx(alone.loglik, abs=1e-6)
        np.testing.assert_allclose(found.beta[r], alone.beta, rtol=1e-5)
        np.testing.assert_allclose(found.θ[r], alone.θ, rtol=2e-3, atol=1e-5 * np.abs(alone.θ).max())


@pytest.mark.parametrize(
    ("formula", "residual", "signed"),
    [
        ("distance ~ age + (age | Subject)", None, False),
        ("distance ~ age + (1 | Subject)", bl.AR1("age") + bl.Independent(), False),
        ("distance ~ age + (1 | Subject)", bl.Independent(by="Sex"), True),
    ],
)
def test_simulated_responses_have_the_covariance_of_the_model(formula, residual, signed):
    fit = bl.LMM(formula, bl.load_dataset("orthodont"), residual=residual, signed=signed).fit()
    n = 40_000
    Y = fit.simulate(n, seed=2).to_numpy()
    rows = np.arange(8)  # two subjects
    subjects = fit.model.design.terms[0].levels[fit.model.design.terms[0].codes[rows]]
    V = np.zeros((8, 8))
    for s in np.unique(subjects):
        own = np.flatnonzero(subjects == s)
        V[np.ix_(own, own)] = fit.V(s).values
    mean = fit.model.design.X[rows] @ fit.beta.values
    sd = np.sqrt(np.diag(V))
    assert np.abs(Y[rows].mean(axis=1) - mean).max() < 5 * sd.max() / np.sqrt(n)
    error = (np.cov(Y[rows]) - V) / np.outer(sd, sd)
    assert np.abs(error).max() < 5 * np.sqrt(2 / n)


def test_bootstrap_is_reproducible_and_needs_no_fixed_number_of_workers():
    fit = bl.LMM("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy")).fit()
    one, two = fit.bootstrap(130, seed=7), fit.bootstrap(130, seed=7, workers=2)
    np.testing.assert_array_equal(one.draws, two.draws)
    assert one.draws.shape == (130, 6)
    assert list(one.draws.columns) == [*fit.model.design.coefs, *fit.parameters.index]
    table = one.confint(0.9)
    assert (table["lower"] < table["upper"]).all()
    se = one.summary()["se"]
    assert se["Days"] == pytest.approx(float(np.sqrt(fit.cov_beta.sel(coef="Days", coef_="Days"))), rel=0.25)
    with pytest.raises(bl.InferenceError, match="at least 1"):
        fit.bootstrap(0)
    with pytest.raises(bl.InferenceError, match="between 0 and 1"):
        one.confint(95)
