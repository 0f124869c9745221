"""The variogram against loops over pairs, the lecture's decomposition, and a process that is known."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl


def irregular(seed=0, subjects=150):
    rng = np.random.default_rng(seed)
    size = rng.integers(2, 9, subjects)
    code = np.repeat(np.arange(subjects), size)
    t = rng.uniform(0, 10, len(code))
    one = code[:, None] == code[None]
    V = (2.0 + 1.5 * np.exp(-np.abs(np.subtract.outer(t, t)) / 2)) * one + 0.5 * np.eye(len(t))
    y = 5 + t + rng.multivariate_normal(np.zeros(len(t)), V, method="cholesky")
    return pd.DataFrame({"id": np.char.add("s", code.astype(str)), "t": t, "y": y})


@pytest.fixture(scope="module")
def fit():
    residual = bl.Exponential("t") + bl.Independent()
    return bl.LMM("y ~ t + (1 | id)", irregular(), residual=residual).fit()


def test_sample_against_a_loop_over_pairs(fit):
    data = irregular()
    r = fit.residuals("marginal").to_numpy()
    found = bl.variogram(fit, bins=[0, 1, 2, 4, 8])
    lags, values = [], []
    for rows in data.groupby("id").indices.values():
        for j, k in combinations(rows, 2):
            lags.append(abs(data.t[j] - data.t[k]))
            values.append(0.5 * (r[j] - r[k]) ** 2)
    bins = np.digitize(lags, [1, 2, 4, 8])
    assert found.table["pairs"].tolist() == np.bincount(bins).tolist()
    np.testing.assert_allclose(found.table["gamma"], np.bincount(bins, values) / np.bincount(bins))
    np.testing.assert_allclose(found.table["lag"], np.bincount(bins, lags) / np.bincount(bins))
    assert found.total_variance == pytest.approx(np.mean(r**2))


def test_decomposition_of_the_lecture(fit):
    """τ², σ²(1 - ρ(u)) and nothing from the random intercept, below ν² + σ² + τ²."""
    found = bl.variogram(fit, bins=200)
    p = fit.parameters
    x = found.table
    np.testing.assert_allclose(x["error"], p["sigma"] ** 2)
    curve = p["sigma_serial"] ** 2 * (1 - np.exp(-x["lag"] / p["range"]))
    np.testing.assert_allclose(x["serial"], curve, atol=2e-3)  # bins of finite width
    np.testing.assert_allclose(x["random"], 0, atol=1e-12)
    np.testing.assert_allclose(x["model"], x["error"] + x["serial"] + x["random"])
    total = p["sigma"] ** 2 + p["sigma_serial"] ** 2 + p["sd_id[Intercept]"] ** 2
    assert found.model_variance == pytest.approx(total)


def test_sample_follows_the_true_process(fit):
    data = irregular(1, 600)
    found = bl.variogram(data, "y ~ t", time="t", subject="id", bins=8).table
    truth = 0.5 + 1.5 * (1 - np.exp(-found["lag"] / 2))
    np.testing.assert_allclose(found["gamma"], truth, rtol=0.15)
    assert bl.variogram(data, "y ~ t", time="t", subject="id").total_variance == pytest.approx(4, rel=0.1)


def test_any_model_is_decomposed_by_its_own_covariance():
    data = bl.load_dataset("bodyweight")
    fit = bl.LMM("weight ~ Time * Diet + (Time | Rat)", data, residual=bl.Exponential("Time")).fit()
    found = bl.variogram(fit)
    rows = data.index[data.Rat == "1"]
    V = fit.V("1").values
    t = data.Time[rows].to_numpy()
    j, k = np.triu_indices(11, 1)
    lag = np.abs(t[j] - t[k])
    value = 0.5 * (V[j, j] + V[k, k] - 2 * V[j, k])  # every rat has the same V
    for i, u in enumerate(np.unique(lag)):
        assert found.table.loc[i, "lag"] == u
        assert found.table.loc[i, "model"] == pytest.approx(value[lag == u].mean())
    assert found.model_variance == pytest.approx(np.trace(V) / 11)


def test_time_and_subject_are_found_or_asked_for():
    ratings = bl.LMM("diameter ~ 1 + (1 | plate) + (1 | sample)", bl.load_dataset("penicillin")).fit()
    with pytest.raises(bl.InferenceError, match="time="):
        bl.variogram(ratings)
    sleep = bl.LMM("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy")).fit()
    assert bl.variogram(sleep).time == "Days"
    assert bl.variogram(sleep, max_lag=3).table["lag"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"time": "Subject"}, "not a column of numbers"),
        ({"time": "Day"}, "Did you mean"),
        ({"formula": "Reaction ~ Days"}, "leave out the formula"),
        ({"bins": 0}, "bins=0"),
        ({"max_lag": 0.5}, "max_lag=0.5"),
    ],
)
def test_bad_requests(options, words):
    fit = bl.LMM("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy")).fit()
    with pytest.raises(bl.BayesLMMError, match=words):
        bl.variogram(fit, **options)


def test_tables_need_names_and_repeated_measurements():
    data = bl.load_dataset("sleepstudy")
    with pytest.raises(bl.InferenceError, match="needs a formula"):
        bl.variogram(data, "Reaction ~ Days")
    with pytest.raises(bl.InferenceError, match="measured twice"):
        bl.variogram(data[data.Days == 0], "Reaction ~ 1", time="Days", subject="Subject")
