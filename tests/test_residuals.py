"""Residuals against dense factors, their correlation against a loop and under a true model."""

import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl
from bayeslmm.marginal.covariances import subject_covariance

SERIAL = bl.Exponential("Time") + bl.Independent()


@pytest.fixture(scope="module")
def rats():
    data = bl.load_dataset("bodyweight")
    return bl.LMM("weight ~ Time * Diet + (Time | Rat)", data, residual=SERIAL).fit()


def test_marginal_conditional_and_pearson(rats):
    d = rats.model.design
    marginal = d.y - d.X @ rats.beta.values
    np.testing.assert_allclose(rats.residuals("marginal"), marginal)
    conditional = marginal - rats.predict()["random"]
    np.testing.assert_allclose(rats.residuals(), conditional, atol=1e-9)
    p = rats.parameters
    sd = np.hypot(p["sigma"], p["sigma_serial"])
    np.testing.assert_allclose(rats.residuals("pearson"), conditional / sd, atol=1e-9)


def test_standardized_by_the_factor_of_each_subject(rats):
    found = rats.residuals("standardized")
    marginal = rats.residuals("marginal")
    for rat in rats.model.design.terms[0].levels:
        V = rats.V(rat)
        rows = V["obs"].values  # in the order of time in these data
        np.testing.assert_allclose(
            found[rows], np.linalg.solve(np.linalg.cholesky(V), marginal[rows]), atol=1e-8
        )


def test_standardized_does_not_depend_on_the_order_of_rows(rats):
    data = bl.load_dataset("bodyweight").sample(frac=1, random_state=1)
    other = bl.LMM("weight ~ Time * Diet + (Time | Rat)", data, residual=SERIAL).fit()
    mine = pd.Series(rats.residuals("standardized").to_numpy()).loc[data.index]
    np.testing.assert_allclose(other.residuals("standardized"), mine, atol=1e-5)


def test_standardized_with_crossed_effects():
    fit = bl.LMM("diameter ~ 1 + (1 | plate) + (1 | sample)", bl.load_dataset("penicillin")).fit()
    m = fit.model
    V = subject_covariance(m.design, m.covariance, m.residual, fit.estimate.θ, np.arange(144), marginal=True)
    r = fit.residuals("marginal").to_numpy()
    np.testing.assert_allclose(
        np.sum(fit.residuals("standardized") ** 2), r @ np.linalg.solve(V, r), rtol=1e-9
    )


def test_autocorrelation_against_pairs(rats):
    e = rats.residuals("standardized").to_numpy().reshape(16, 11)  # rats x times, as the data stand
    found = rats.autocorrelation()
    for lag in range(11):
        expected = np.mean(e[:, lag:] * e[:, : 11 - lag]) / np.mean(e**2)
        assert found.loc[lag, "autocorrelation"] == pytest.approx(expected)
        assert found.loc[lag, "pairs"] == 16 * (11 - lag)
    assert list(rats.autocorrelation(max_lag=2).index) == [0, 1, 2]


def test_standardized_residuals_of_a_true_model_are_white_and_conditional_ones_show_the_process():
    rng = np.random.default_rng(4)
    data = pd.DataFrame({"id": np.repeat(np.arange(200), 8), "t": np.tile(np.arange(8.0), 200)})
    C = np.linalg.cholesky(np.exp(-np.abs(np.subtract.outer(np.arange(8), np.arange(8))) / 2))
    data["y"] = data.t + np.repeat(rng.normal(size=200), 8) + (rng.normal(size=(200, 8)) @ C.T).ravel()
    data["id"] = data["id"].astype(str)
    fit = bl.LMM("y ~ t + (1 | id)", data, residual=bl.Exponential("t")).fit()
    white = fit.autocorrelation(max_lag=4).iloc[1:]
    assert (white["autocorrelation"].abs() < 1.7 * white["bound"]).all()
    assert np.var(fit.residuals("standardized")) == pytest.approx(1, abs=0.03)
    assert fit.autocorrelation("conditional").loc[1, "autocorrelation"] > 0.2


def test_bad_requests(rats):
    with pytest.raises(bl.InferenceError, match="kind='raw'"):
        rats.residuals("raw")
    with pytest.raises(bl.InferenceError, match="max_lag=0"):
        rats.autocorrelation(max_lag=0)
