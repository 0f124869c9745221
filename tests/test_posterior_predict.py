"""Posterior prediction against the closed form: equal where subjects are many, wider where they are few."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from dense_normal import fit_at
from scipy import stats

import bayeslmm as bl

SERIAL = bl.Exponential("t") + bl.Independent()


def table(seed, subjects, rows=6):
    rng = np.random.default_rng(seed)
    t = np.tile(np.arange(float(rows)), subjects)
    code = np.repeat(np.arange(subjects), rows)
    w = rng.normal(size=(subjects, 2)) * [1.0, 0.3]
    y = 2 + 0.5 * t + w[code, 0] + w[code, 1] * t + 0.7 * rng.normal(size=len(t))
    return pd.DataFrame({"id": np.char.add("s", code.astype(str)), "t": t, "y": y})


def known(model, fit, draws):
    """A posterior that knows β and θ: every draw is the fit's."""
    values = {"beta": (("chain", "draw", "coef"), np.tile(fit.beta.values, (2, draws, 1)))}
    coords = {"chain": [0, 1], "draw": np.arange(draws), "coef": list(model.design.coefs)}
    at = 0
    natural = model.covariance.natural_from_linear(fit.estimate.θ)
    for p in model.covariance.parameters:
        v = natural[at : at + len(p)]
        if p.labels is None:
            values[p.name] = (("chain", "draw"), np.full((2, draws), v[0]))
        else:
            values[p.name] = (("chain", "draw", f"{p.name}_"), np.tile(v, (2, draws, 1)))
            coords[f"{p.name}_"] = list(p.labels)
        at += len(p)
    return xr.DataTree.from_dict({"posterior": xr.Dataset(values, coords=coords)})


@pytest.mark.parametrize("crossed", [False, True])
def test_draws_follow_the_conditional_distribution(crossed):
    """With β and θ known: means and variances of every part, of known and new subjects, with and without rows."""
    if crossed:
        data = bl.load_dataset("penicillin")
        model = bl.LMM("diameter ~ 1 + (1 | plate) + (1 | sample)", data)
        fit = model.fit()
        new = pd.DataFrame({"plate": ["a", "new", "b", "new"], "sample": ["A", "B", "new", "new"]})
        given = None
    else:
        data = table(1, 12)
        model = bl.LMM("y ~ t + (1 | id)", data, residual=SERIAL)
        fit = fit_at(model, [1.1, 0.8, 1.5, 0.3])
        new = pd.DataFrame({"t": [2.5, 7.0, 1.0, 4.0, 5.0], "id": ["s1", "s1", "new", "other", "other"]})
        given = pd.DataFrame({"t": [0.0, 3.0], "id": "other", "y": [3.0, 5.5]})
    draws = 1000
    found = bl.posterior_predict(model, known(model, fit, draws), new, condition_on=given, random_seed=3)
    x = found["predictions"].to_dataset()
    closed = fit.predict(new, condition_on=given)
    error = 5 / np.sqrt(2 * draws)
    sd = np.sqrt(closed["se"] ** 2 - closed["se_beta"] ** 2)
    across = ("chain", "draw")
    np.testing.assert_allclose((x["mean"].mean(across) - closed["prediction"]) / sd, 0, atol=error)
    np.testing.assert_allclose(x["mean"].std(across) / sd, 1, atol=error)
    np.testing.assert_allclose(x["random"].std(across) / closed["se_w"], 1, atol=error)
    if not crossed:
        np.testing.assert_allclose(x["serial"].std(across) / closed["se_serial"], 1, atol=error)
    np.testing.assert_allclose(x["error"].std(across) / fit.sigma, 1, atol=error)
    np.testing.assert_allclose(x[model.design.response], x["mean"] + x["error"])


def closed_and_posterior(subjects, seed, draws):
    data = table(seed, subjects)
    model = bl.LMM("y ~ t + (t | id)", data)
    fit = model.fit()
    posterior = model.sample(draws=draws, chains=4, random_seed=seed, priors="reml")
    new = pd.DataFrame({"t": [2.5, 7.0, 7.0], "id": ["s1", "s2", "new"]})
    x = bl.posterior_predict(model, posterior, new, random_seed=seed)["predictions"].to_dataset()
    return fit, new, x


def test_many_subjects_agree_with_the_closed_form():
    fit, new, x = closed_and_posterior(250, 5, 250)
    for what, name in (("mean", "mean"), ("response", "y")):
        closed = fit.predict(new, what=what)
        z = (x[name].mean(("chain", "draw")) - closed["prediction"]) / closed["se"]
        np.testing.assert_allclose(z, 0, atol=5 / np.sqrt(1000))
        np.testing.assert_allclose(x[name].std(("chain", "draw")) / closed["se"], 1, atol=5 / np.sqrt(1000) + 0.02)


def test_few_subjects_are_wider():
    """The closed form takes θ for known; a new subject feels it most."""
    fit, new, x = closed_and_posterior(6, 2, 500)
    closed = fit.predict(new, what="response", interval=0.9)
    low, high = x["y"].quantile([0.05, 0.95], ("chain", "draw")).values
    ratio = (high - low) / (closed["upper"] - closed["lower"]).to_numpy()
    assert (ratio > 1.02).all()
    assert ratio[2] > 1.15


def test_new_subjects_follow_the_G_of_each_draw():
    """z'w ~ N(0, z'Gz) with the G of the same draw, and nothing in common between two new subjects."""
    data = table(3, 20)
    model = bl.LMM("y ~ t + (t | id)", data)
    posterior = model.sample(draws=1000, chains=4, random_seed=1)
    new = pd.DataFrame({"t": [0.0, 6.0, 0.0, 6.0, 2.0], "id": ["new", "new", "newer", "newer", "s3"]})
    found = bl.posterior_predict(model, posterior, new, random_seed=1)["predictions"]
    u = found["random"].values.reshape(-1, 5)[:, :4]

    draws = posterior["posterior"]
    sd = draws["sd_id"].values.reshape(-1, 2)
    G = draws["corr_id"].values.reshape(-1, 2, 2) * sd[:, :, None] * sd[:, None, :]
    Z = np.column_stack([np.ones(4), new["t"][:4]])
    covariance = np.einsum("ni,dij,mj->dnm", Z, G, Z)  # of the four rows, were they of one subject
    variance = np.einsum("dnn->dn", covariance)

    error = 4 / np.sqrt(len(u))
    np.testing.assert_allclose(u.var(axis=0) / variance.mean(axis=0), 1, atol=0.15)  # a mixture: heavier tails
    z = u / np.sqrt(variance)
    for column in z.T:
        assert stats.kstest(column, "norm").statistic < 2 / np.sqrt(len(z))
    np.testing.assert_allclose(np.mean(z**2, axis=0), 1, atol=error * np.sqrt(2))
    within = covariance[:, [0, 2], [1, 3]] / np.sqrt(variance[:, [0, 2]] * variance[:, [1, 3]])
    np.testing.assert_allclose(np.mean(z[:, [0, 2]] * z[:, [1, 3]] - within, axis=0), 0, atol=error * np.sqrt(2))
    np.testing.assert_allclose(z[:, :2].T @ z[:, 2:] / len(z), 0, atol=error)
    y = (found["y"].values - found["fixed"].values).reshape(-1, 5)[:, :4]
    total = variance + draws["sigma"].values.reshape(-1, 1) ** 2
    np.testing.assert_allclose(np.mean(y**2 / total, axis=0), 1, atol=error * np.sqrt(2))
    np.testing.assert_allclose((y / np.sqrt(total))[:, :2].T @ (y / np.sqrt(total))[:, 2:] / len(y), 0, atol=error)


def test_seeds_thinning_and_rows():
    data = table(4, 10)
    model = bl.LMM("y ~ t + (1 | id)", data)
    posterior = model.sample(draws=50, chains=2, random_seed=1)
    a, b, c = (bl.posterior_predict(model, posterior, draws=20, random_seed=s)["predictions"] for s in (1, 1, 2))
    assert dict(a.sizes) == {"chain": 2, "draw": 10, "obs": 60}
    xr.testing.assert_identical(a.to_dataset(), b.to_dataset())
    assert not np.allclose(a["y"], c["y"])
    with pytest.raises(bl.SamplingError, match="draws=1000"):
        bl.posterior_predict(model, posterior, draws=1000)
    with pytest.raises(bl.DataError, match="no column 't'"):
        bl.posterior_predict(model, posterior, pd.DataFrame({"id": ["s1"]}))
    with pytest.raises(bl.DataError, match="newdata="):
        bl.posterior_predict(model, posterior, condition_on=data)
    with pytest.raises(bl.InferenceError, match="posterior"):
        bl.posterior_predict(model, {"beta": 1})
