"""Random effects: dense matrices, lme4's condVar, Henderson's mixed model equations."""

import numpy as np
import pandas as pd
import pytest
from oracle_data import read_json

import bayeslmm as bl
from bayeslmm.marginal.covariances import subject_covariance

MODELS = {
    "slopes": ("sleepstudy", "Reaction ~ Days + (Days | Subject)", None),
    "serial": (
        "bodyweight",
        "weight ~ Time * Diet + (Time | Rat)",
        bl.Exponential("Time") + bl.Independent(),
    ),
    "nested": ("pastes", "strength ~ 1 + (1 | batch/cask)", None),
    "crossed": ("penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)", None),
    "crossed and serial": (
        "machines",
        "score ~ 1 + (1 | Worker) + (1 | Machine)",
        bl.AR1(subject="Worker"),
    ),
    "strata": ("orthodont", "distance ~ age * Sex + (age | Subject)", bl.Independent(by="Sex")),
}


def indicator(term):
    q = term.Z.shape[1]
    out = np.zeros((len(term.codes), len(term.levels) * q))
    for j in range(q):
        out[np.arange(len(out)), term.codes * q + j] = term.Z[:, j]
    return out


@pytest.mark.parametrize("name", MODELS)
def test_variances_against_dense(name):
    data, formula, residual = MODELS[name]
    fit = bl.LMM(formula, bl.load_dataset(data), residual=residual).fit()
    design, n = fit.model.design, len(fit.model.design.y)
    V = subject_covariance(
        design, fit.model.covariance, fit.model.residual, fit.estimate.θ, np.arange(n), marginal=True
    )
    Vi = np.linalg.inv(V)
    found = fit.random_effects()
    assert list(found) == [t.group for t in design.terms]
    for term in design.terms:
        q, N = term.Z.shape[1], len(term.levels)
        G = np.kron(np.eye(N), fit.G[term.group].values)
        GZ = G @ indicator(term).T
        conditional = G - GZ @ Vi @ GZ.T
        D = GZ @ Vi @ design.X
        prediction = conditional + D @ fit.cov_beta.values @ D.T
        own = lambda a, q=q, N=N: np.array([a[g * q : g * q + q, g * q : g * q + q] for g in range(N)])  # noqa: E731
        x = found[term.group]
        scale = np.abs(G).max() * 1e-9
        np.testing.assert_allclose(x["conditional_variance"], own(conditional), rtol=1e-9, atol=scale)
        np.testing.assert_allclose(x["prediction_error_variance"], own(prediction), rtol=1e-9, atol=scale)
        w = GZ @ Vi @ (design.y - design.X @ fit.beta.values)
        np.testing.assert_allclose(x["w"].values.ravel(), w, rtol=1e-7, atol=1e-7 * np.abs(w).max())


@pytest.mark.parametrize("record", read_json("random_effects.json")["models"], ids=lambda r: r["formula"])
def test_conditional_variances_of_lme4(record):
    fit = bl.LMM(record["formula"], bl.load_dataset(record["data"])).fit()
    for group, x in record["groups"].items():
        mine = fit.random_effects()[group].sel({group: x["levels"]})
        q = mine.sizes["effect"]
        # two optimisers that agree to 1e-7 in the variances
        np.testing.assert_allclose(
            mine["conditional_variance"], np.reshape(x["variance"], (-1, q, q)), rtol=1e-6
        )
        np.testing.assert_allclose(mine["w"], np.reshape(x["w"], (-1, q)), rtol=1e-5, atol=1e-7)


def test_mixed_model_equations_of_henderson():
    """The inverse of Henderson's coefficient matrix holds Var(β̂) and Var(ŵ - w)."""
    fit = bl.LMM("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy")).fit()
    design = fit.model.design
    X, Z = design.X, indicator(design.terms[0])
    Gi = np.kron(np.eye(18), np.linalg.inv(fit.G["Subject"].values))
    C = np.block([[X.T @ X, X.T @ Z], [Z.T @ X, Z.T @ Z + Gi * fit.sigma**2]]) / fit.sigma**2
    inverse = np.linalg.inv(C)
    np.testing.assert_allclose(inverse[:2, :2], fit.cov_beta, rtol=1e-9)
    se = np.sqrt(np.diag(inverse)[2:])
    np.testing.assert_allclose(fit.random_effects().table()["se_prediction"], se, rtol=1e-9)


def test_the_estimation_of_beta_only_adds():
    for data, formula, residual in MODELS.values():
        x = bl.LMM(formula, bl.load_dataset(data), residual=residual).fit().random_effects().table()
        assert (x["se_prediction"] >= x["se_conditional"] * (1 - 1e-12)).all()


def test_table_and_bad_group():
    fit = bl.LMM("strength ~ 1 + (1 | batch/cask)", bl.load_dataset("pastes")).fit()
    x = fit.random_effects()
    assert isinstance(x.table("batch"), pd.DataFrame)
    assert len(x.table()) == 40
    with pytest.raises(bl.InferenceError, match="group='cask'"):
        x.table("cask")
    alone = bl.LMM("distance ~ age", bl.load_dataset("orthodont"), residual=bl.AR1("age", subject="Subject"))
    assert len(alone.fit().random_effects().table()) == 0
