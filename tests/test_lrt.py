"""Likelihood ratio tests: mixtures found by themselves, exact distributions against RLRsim, refusals with
reasons.
"""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

import bayeslmm as bl
from bayeslmm.kernel.refit import Problem, refit
from bayeslmm.marginal.chibar import chi_bar, project
from bayeslmm.marginal.spectral import spectral_null

ORACLE = Path(__file__).parent / "oracle"
RLRSIM = {
    k: v for k, v in json.loads((ORACLE / "inference.json").read_text())["exact_rlrt"].items() if k != "about"
}
SLEEP = bl.load_dataset("sleepstudy")
ORTHODONT = bl.load_dataset("orthodont")
MEAN = "distance ~ age * Sex"


def _model(formula, data=SLEEP, **options):
    return bl.LMM(formula, data, **options)


# ---------------------------------------------------------------- which distribution


def test_random_slope_is_a_mixture_of_one_and_two():
    found = bl.lrt(_model("Reaction ~ Days + (1 | Subject)"), _model("Reaction ~ Days + (Days | Subject)"))
    assert found.method == "REML"
    assert found.weights == {1: 0.5, 2: 0.5}
    assert found.statistic == pytest.approx(2 * (893.2325427 - 871.814135979), abs=1e-6)
    tail = stats.chi2.sf(found.statistic, [1, 2]).mean()
    assert found.p == pytest.approx(tail, rel=1e-12)
    assert found.p_naive == pytest.approx(stats.chi2.sf(found.statistic, 2), rel=1e-12)
    assert "zero variance of Days of Subject with its covariances" in str(found)
    assert "½ χ²(1) + ½ χ²(2)" in str(found)


def test_intercept_is_a_mixture_of_zero_and_one():
    found = bl.lrt(_model("Reaction ~ Days"), _model("Reaction ~ Days + (1 | Subject)"))
    assert found.weights == {0: 0.5, 1: 0.5}


def test_third_effect_is_a_mixture_of_two_and_three():
    large = _model("distance ~ age + (age + I(age**2) | Subject)", ORTHODONT)
    found = bl.lrt(_model("distance ~ age + (age | Subject)", ORTHODONT), large)
    assert found.weights == {2: 0.5, 3: 0.5}


def test_correlation_alone_is_inside():
    found = bl.lrt(
        _model("Reaction ~ Days + (Days || Subject)"), _model("Reaction ~ Days + (Days | Subject)")
    )
    assert found.weights == {1: 1.0}
    assert found.p == found.p_naive


def test_two_independent_components_are_a_quarter_a_half_a_quarter():
    """Two crossed factors in a balanced design: their variances are estimated (nearly) independently."""
    rng = np.random.default_rng(0)
    data = pd.DataFrame([(a, b) for a in range(12) for b in range(12) for _ in range(4)], columns=["a", "b"])
    data["y"] = rng.normal(size=len(data))
    found = bl.lrt(_model("y ~ 1", data), _model("y ~ 1 + (1 | a) + (1 | b)", data))
    np.testing.assert_allclose([found.weights[k] for k in (0, 1, 2)], [0.25, 0.5, 0.25], atol=0.01)


@pytest.mark.parametrize(
    ("small", "large", "df"),
    [
        ({"residual": bl.Independent()}, {"residual": bl.Independent(by="Sex")}, 1),
        (
            {"residual": bl.CompoundSymmetry("age", subject="Subject")},
            {"residual": bl.Unstructured("age", subject="Subject")},
            8,
        ),
        (
            {"residual": bl.AR1("age", subject="Subject")},
            {"residual": bl.Toeplitz("age", subject="Subject")},
            2,
        ),
        (
            {"residual": bl.Toeplitz("age", subject="Subject")},
            {"residual": bl.Unstructured("age", subject="Subject")},
            6,
        ),
        ({"residual": bl.Independent()}, {"residual": bl.AR1("age", subject="Subject")}, 1),
    ],
)
def test_residual_structures_are_compared_inside_the_space(small, large, df):
    found = bl.lrt(_model(MEAN, ORTHODONT, **small), _model(MEAN, ORTHODONT, **large))
    assert found.weights == {df: 1.0}


def test_different_means_are_refitted_by_ml():
    small = _model("Reaction ~ 1 + (Days | Subject)").fit()
    large = _model("Reaction ~ Days + (Days | Subject)").fit()
    found = bl.lrt(small, large)
    assert found.refitted
    assert found.method == "ML"
    assert "fitted again by ML" in str(found)
    assert found.statistic == pytest.approx(
        2 * (large.model.fit("ML").loglik - small.model.fit("ML").loglik), abs=1e-8
    )
    assert found.weights == {1: 1.0}
    both = bl.lrt(_model("Reaction ~ 1 + (1 | Subject)"), _model("Reaction ~ Days + (Days | Subject)"))
    assert not both.refitted
    assert both.weights == {2: 0.5, 3: 0.5}


def test_same_mean_in_another_coding():
    """REML with another coding of the same X: the statistic is that of one coding."""
    one = _model("distance ~ age * Sex + (1 | Subject)", ORTHODONT)
    other = _model("distance ~ C(Sex, contr.sum) * age + (age | Subject)", ORTHODONT)
    plain = _model("distance ~ age * Sex + (age | Subject)", ORTHODONT)
    assert bl.lrt(one, other).statistic == pytest.approx(bl.lrt(one, plain).statistic, abs=1e-7)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("small", "large", "reason"),
    [
        (
            "distance ~ Sex + (age | Subject)",
            "distance ~ age + (age | Subject)",
            "fixed effects of the first have Sex",
        ),
        (MEAN + " + (age | Subject)", MEAN + " + (1 | Subject)", "random effect age of Subject"),
        (MEAN + " + (age | Subject)", MEAN + " + (age || Subject)", "cannot be written"),
        (MEAN + " + (1 | Subject)", MEAN, "random effects of Subject"),
        (MEAN + " + (1 | Subject)", MEAN + " + (1 | Subject)", "are the same"),
        ("log(distance) ~ age + (1 | Subject)", "distance ~ age + (age | Subject)", "different scales"),
    ],
)
def test_refuses_what_is_not_nested(small, large, reason):
    with pytest.raises(bl.InferenceError, match=reason):
        bl.lrt(_model(small, ORTHODONT), _model(large, ORTHODONT))


def test_refuses_structures_that_are_not_nested():
    ar1 = _model(MEAN, ORTHODONT, residual=bl.AR1("age", subject="Subject"))
    cs = _model(MEAN, ORTHODONT, residual=bl.CompoundSymmetry("age", subject="Subject"))
    with pytest.raises(bl.InferenceError, match="cannot give"):
        bl.lrt(ar1, cs)


def test_a_range_without_meaning_needs_the_bootstrap():
    small = _model(MEAN + " + (1 | Subject)", ORTHODONT)
    large = _model(MEAN + " + (1 | Subject)", ORTHODONT, residual=bl.Exponential("age") + bl.Independent())
    with pytest.raises(bl.InferenceError, match="range has no meaning"):
        bl.lrt(small, large)
    found = bl.lrt(small, large, exact=True, n=4, seed=1)
    assert len(found.draws) == 4


# ---------------------------------------------------------------- distributions


@pytest.mark.parametrize("cones", [[1, 1, 1], [2], [2, 1]])
def test_projection_is_the_nearest_point(cones):
    rng = np.random.default_rng(1)
    d = sum(r * (r + 1) // 2 for r in cones)
    A = rng.normal(size=(d, d))
    J = A @ A.T + np.eye(d)
    z = rng.normal(size=(6, d))

    def point(w):
        out, k = [], 0
        for r in cones:
            L = np.zeros((r, r))
            L[np.tril_indices(r)] = w[k : k + r * (r + 1) // 2]
            G = L @ L.T
            out += [*np.diag(G), *G[np.tril_indices(r, -1)]]
            k += r * (r + 1) // 2
        return np.array(out)

    found = project(z, J, cones)
    for row, s in zip(z, found, strict=True):
        distance = lambda w, row=row: (row - point(w)) @ J @ (row - point(w))  # noqa: E731
        best = min(
            optimize.minimize(distance, rng.normal(size=d), options={"gtol": 1e-10}).fun for _ in range(6)
        )
        assert (row - s) @ J @ (row - s) == pytest.approx(best, abs=1e-4)


def test_simulated_weights_agree_with_known_ones():
    """Three half-lines with independent estimates: binomial weights; a pair with correlation: the arcsine."""
    three = chi_bar(np.diag([1.0, 4.0, 0.5]), [1, 1, 1], 0)
    np.testing.assert_allclose(three.weights, [1 / 8, 3 / 8, 3 / 8, 1 / 8], atol=0.03)
    for x in (1.0, 3.0, 6.0):
        exact = sum(w * stats.chi2.sf(x, k) for k, w in enumerate([1 / 8, 3 / 8, 3 / 8, 1 / 8]) if k)
        assert three.tail(x) == pytest.approx(exact, abs=0.01)
    Σ = np.array([[1.0, 0.5], [0.5, 1.0]])
    z = np.random.default_rng(0).multivariate_normal([0, 0], Σ, 200_000)
    assert chi_bar(np.linalg.inv(Σ), [1, 1], 0).weights[2] == pytest.approx(
        (z > 0).all(axis=1).mean(), abs=0.005
    )


@pytest.mark.parametrize("name", ["dyestuff", "pastes_alone", "machines_like"])
def test_exact_test_of_the_only_variance_is_rlrsims(name):
    case = RLRSIM[name]
    data = (
        pd.read_csv(ORACLE / case["data"]) if case["data"].endswith(".csv") else bl.load_dataset(case["data"])
    )
    null = case["full"].split(" + (")[0]
    found = bl.lrt(_model(null, data), _model(case["full"], data), exact=True, seed=5)
    assert found.statistic == pytest.approx(case["statistic"], abs=1e-6)
    error = np.hypot(found.standard_error, case["standard_error"])
    assert abs(found.p - case["p"]) < 4 * error


@pytest.mark.parametrize("name", ["pastes_batch", "machines_worker"])
def test_bootstrap_beside_another_component(name):
    """Against a simulation of mean squares, exact for these balanced designs; RLRsim itself is off here."""
    case = RLRSIM[name]
    data = bl.load_dataset(case["data"])
    found = bl.lrt(_model(case["null"], data), _model(case["full"], data), exact=True, n=1500, seed=3)
    assert found.statistic == pytest.approx(case["statistic"], abs=1e-6)
    assert abs(found.p - case["parametric_bootstrap"]["p"]) < 4 * found.standard_error


@pytest.mark.parametrize("reml", [True, False])
def test_spectral_draws_are_those_of_fits(reml):
    """The spectral distribution against likelihood ratios of fits to simulated data, unbalanced and
    weighted.
    """
    rng = np.random.default_rng(2)
    data = pd.DataFrame(
        {"g": np.repeat(np.arange(8), [2, 3, 3, 4, 5, 6, 2, 5]), "w": rng.uniform(0.5, 2, 30)}
    )
    data["x"], data["y"] = rng.normal(size=30), rng.normal(size=30)
    small = _model("y ~ 1" if not reml else "y ~ x", data, weights="w")
    large = _model("y ~ x + (1 | g)", data, weights="w")
    spectral = spectral_null(large.design, large.design.terms[0], 0 if reml else 1, 50_000, rng, reml=reml)
    method = "REML" if reml else "ML"
    fit = small.fit(method)
    Y = fit.simulate(1500, seed=8).to_numpy()
    start = large.fit(method).estimate.θ
    low, high = (refit(Problem.of(m), Y, θ, reml=reml) for m, θ in ((small, fit.estimate.θ), (large, start)))
    fitted = np.maximum(2 * (high.loglik - low.loglik), 0)
    for q in (0.7, 0.8, 0.95):  # at zero there is an atom of more than one half
        at = np.quantile(spectral, q)
        assert np.mean(fitted > at + 1e-6) == pytest.approx(1 - q, abs=4 * np.sqrt(q * (1 - q) / 1500) + 1e-9)


def test_exact_p_values_are_reproducible():
    small, large = _model("Reaction ~ Days + (1 | Subject)"), _model("Reaction ~ Days + (Days | Subject)")
    one, two = (bl.lrt(small, large, exact=True, n=150, seed=9, workers=w) for w in (1, 2))
    np.testing.assert_array_equal(one.draws, two.draws)
    assert one.p == pytest.approx(1 / 151)


# ---------------------------------------------------------------- size: see tests/simulations/README.md


def _simulations():
    path = Path(__file__).parent / "simulations" / "variance_tests.py"
    spec = importlib.util.spec_from_file_location("variance_tests", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("sets", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_size_of_the_random_slope_test(sets):
    """50 subjects x 4: the mixture keeps 5 % to one point (and simulation error), χ²(2) is conservative."""
    found = _simulations().slope_size(sets)
    size, error = found["½χ²(1) + ½χ²(2)"]
    slack = 0 if sets >= 10_000 else 3 * error
    assert 0.04 - slack <= size <= 0.06 + slack
    assert found["χ²(2), naive"][0] < 0.035 + slack


@pytest.mark.parametrize("sets", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_size_of_the_exact_test(sets):
    """10 subjects x 4: exact."""
    found = _simulations().exact_size(sets)
    size, error = found["exact"]
    slack = 0 if sets >= 10_000 else 3 * error
    assert 0.044 - slack <= size <= 0.056 + slack
    assert found["χ²(1), naive"][0] < size
