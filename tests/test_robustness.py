"""Fits that must end well: poor starting points, simulated sets, boundaries, negative variance components."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl

sys.path.insert(0, str(Path(__file__).parent / "simulations"))

POOR = {
    "orthodont-ar1": ("orthodont", "distance ~ age * Sex", lambda: bl.AR1("age", subject="Subject"), [
        {"rho": -0.95, "sigma_serial": 50.0}, {"rho": 0.999, "sigma_serial": 0.01}, {"rho": 0.0, "sigma_serial": 1e3}]),
    "sleepstudy": ("sleepstudy", "Reaction ~ Days + (Days | Subject)", lambda: None, [
        {"sd_Subject[Intercept]": 1e-3, "sd_Subject[Days]": 300.0}, {"sigma": 1e4, "corr_Subject[Intercept, Days]": -0.99},
        {"sd_Subject[Intercept]": 1e4, "sd_Subject[Days]": 1e-4, "corr_Subject[Intercept, Days]": 0.95}]),
    "bodyweight-three": ("bodyweight", "weight ~ Time * Diet + (Time | Rat)",
        lambda: bl.Exponential("Time") + bl.Independent(), [
        {"range": 1.0, "sigma": 0.1}, {"range": 200.0, "sigma": 50.0}, {"sd_Rat[Time]": 30.0, "range": 5.0, "sigma_serial": 0.1}]),
    "orthodont-us": ("orthodont", "distance ~ age * Sex", lambda: bl.Unstructured("age", subject="Subject"), [
        {"sigma[8]": 100.0, "sigma[14]": 0.01}, {"corr[8, 10]": 0.9}, {"sigma[8]": 0.05, "sigma[10]": 20.0}]),
    "orthodont-toeph": ("orthodont", "distance ~ age * Sex", lambda: bl.Toeplitz("age", subject="Subject", by="age"), [
        {"sigma[8]": 100.0, "sigma[14]": 0.01}, {"rho[1]": -0.9, "rho[2]": 0.8}, {"sigma[8]": 0.05}]),
    "orthodont-ante": ("orthodont", "distance ~ age * Sex", lambda: bl.Antedependence("age", subject="Subject"), [
        {"rho[8, 10]": -0.99}, {"rho[12, 14]": 0.999, "sigma": 80.0}, {"sigma": 0.01}]),
    "orthodont-by-sex": ("orthodont", "distance ~ age * Sex + (1 | Subject)", lambda: bl.Independent(by="Sex"), [
        {"sigma[Male]": 100.0}, {"sigma[Female]": 1e-3}, {"sd_Subject[Intercept]": 1e3}]),
    "bodyweight-power": ("bodyweight", "weight ~ Time * Diet + (Time | Rat)", lambda: bl.Independent(power="Time"), [
        {"power_sigma": 2.0}, {"power_sigma": -2.0}, {"sigma": 1e3, "power_sigma": 0.5}]),
    "ovary-matern": ("ovary", "follicles ~ sin(2*pi*Time) + cos(2*pi*Time)", lambda: bl.Matern32("Time", subject="Mare"), [
        {"range": 0.005}, {"range": 3.0}, {"sigma_serial": 0.01, "range": 0.5}]),
}  # fmt: skip


@pytest.mark.parametrize("name", POOR)
def test_poor_starting_points_reach_the_same_optimum(name):
    data, formula, residual, points = POOR[name]
    model = bl.LMM(formula, bl.load_dataset(data), residual=residual())
    best = model.fit()
    for point in points:
        fit = model.fit(start=point)
        assert fit.convergence.status == best.convergence.status
        assert fit.loglik == pytest.approx(best.loglik, abs=1e-6), point


def test_start_is_checked():
    model = bl.LMM("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
    with pytest.raises(bl.InferenceError, match="no parameter of this model"):
        model.fit(start={"sd": 1})
    with pytest.raises(bl.InferenceError, match="outside its domain"):
        model.fit(start={"sigma": -1})


@pytest.mark.parametrize("count", [6, pytest.param(1000, marks=pytest.mark.slow)])
def test_three_components_always_end_well(count):
    from three_components import run

    table = pd.DataFrame([run(seed) for seed in range(count)])
    assert (table["gain"] >= -1e-8).all()
    assert (table.loc[table["status"] != "not converged", "gradient"] < 1e-7).all()
    assert (table["status"] != "not converged").mean() >= 0.99


def test_negative_variance_component():
    """Exchangeable rows with negative correlation: a random intercept of negative variance, and compound symmetry."""
    rng = np.random.default_rng(2)
    V = 4 * (1.2 * np.eye(4) - 0.2)
    y = 10 + (rng.normal(size=(80, 4)) @ np.linalg.cholesky(V).T).ravel()
    data = pd.DataFrame({"y": y, "g": np.repeat(np.arange(80), 4).astype(str), "v": np.tile(list("abcd"), 80)})
    cs = bl.LMM("y ~ 1", data, residual=bl.CompoundSymmetry("v", subject="g")).fit()
    signed = bl.LMM("y ~ 1 + (1 | g)", data, signed=True).fit()
    plain = bl.LMM("y ~ 1 + (1 | g)", data).fit()
    assert signed.loglik == pytest.approx(cs.loglik, abs=1e-7)
    assert signed.parameters["var_g[Intercept]"] < -0.1
    assert plain.parameters["sd_g[Intercept]"] == 0
    assert plain.convergence.status == "boundary"
    assert plain.loglik < signed.loglik
    total = signed.parameters["var_g[Intercept]"] + signed.parameters["sigma"] ** 2
    assert total == pytest.approx(cs.parameters["sigma"] ** 2, rel=1e-5)
    for call in (signed.model.to_pymc, lambda: signed.model.sample(draws=1)):
        with pytest.raises(bl.SamplingError, match="hierarchical"):
            call()


def test_signed_crossed_components():
    rng = np.random.default_rng(4)
    a, b = np.repeat(np.arange(12), 8), np.tile(np.arange(8), 12)
    y = rng.normal(size=12)[a] * 2 + rng.normal(size=96)
    y -= 0.9 * (pd.Series(y).groupby(b).transform("mean").to_numpy())
    data = pd.DataFrame({"y": y, "a": a.astype(str), "b": b.astype(str)})
    signed, plain = (
        bl.LMM("y ~ 1 + (1 | a) + (1 | b)", data, signed=True).fit(),
        bl.LMM("y ~ 1 + (1 | a) + (1 | b)", data).fit(),
    )
    assert signed.parameters["var_b[Intercept]"] < 0
    assert plain.parameters["sd_b[Intercept]"] == 0
    assert signed.loglik > plain.loglik
    from test_likelihood import dense

    value, _ = dense(signed.model, signed.estimate.θ, True)
    assert signed.loglik == pytest.approx(value, rel=1e-10)


def test_perfect_correlation_is_on_the_boundary_and_optimal():
    data = bl.load_dataset("oxboys").query("Subject in ['1', '2', '3']").copy()
    fit = bl.LMM("height ~ age + (age + I(age**2) | Subject)", data).fit()
    assert fit.convergence.status == "boundary"
    assert "singular" in fit.convergence.message
    assert np.linalg.eigvalsh(fit.G["Subject"].values)[0] >= -1e-10


def test_perfectly_fitted_data_is_refused():
    data = pd.DataFrame({"g": np.repeat(list("abcd"), 3), "x": np.tile([0.0, 1, 2], 4)})
    data["y"] = 1 + 2 * data["x"] + data["g"].map({"a": 1.0, "b": -1, "c": 0.5, "d": 3})
    with pytest.raises(bl.DesignError, match="fitted perfectly"):
        bl.LMM("y ~ x + (1 | g)", data).fit()


@pytest.mark.parametrize(
    "residual", [lambda: bl.CompoundSymmetry("age"), lambda: bl.Toeplitz("age"), lambda: bl.Unstructured("age")]
)
def test_parameters_that_can_be_exchanged_are_named(residual):
    """A random intercept beside compound symmetry is the same V twice over."""
    fit = bl.LMM("distance ~ age * Sex + (1 | Subject)", bl.load_dataset("orthodont"), residual=residual()).fit()
    assert fit.convergence.status == "not identified"
    assert not fit.convergence
    assert "sd_Subject[Intercept]" in fit.convergence.message


def test_intercept_beside_autoregression_is_identified():
    fit = bl.LMM("distance ~ age * Sex + (1 | Subject)", bl.load_dataset("orthodont"), residual=bl.AR1("age")).fit()
    assert fit.convergence.status == "converged"


def test_random_effect_for_every_level_of_a_fixed_one():
    """REML has no information about a variance between levels that are fixed effects too; tests say so."""
    fit = bl.LMM("score ~ Worker + (1 | Worker)", bl.load_dataset("machines")).fit()
    assert fit.convergence.status == "not identified"
    assert "sd_Worker[Intercept]" in fit.convergence.message
    with pytest.raises(bl.InferenceError, match="not positive definite"):
        fit.summary("satterthwaite")
    assert np.isfinite(fit.summary("residual")["se"]).all()
