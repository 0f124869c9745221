"""Sandwich estimates against clubSandwich and SAS, against their definition, and where they must refuse."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl
from bayeslmm.marginal.covariances import subject_covariance

ORACLE = Path(__file__).parent / "oracle"
CLUB = json.loads((ORACLE / "inference.json").read_text())["sandwich"]
SAS = json.loads((ORACLE / "sas_fev.json").read_text())["structures"]
SLEEP = "Reaction ~ Days + (Days | Subject)"


def _fit(case):
    data = bl.load_dataset(case["data"])
    data = data.drop(data.index[case.get("dropped_rows_from_zero", [])])
    residual = re.match(r'AR1\("(\w+)", subject="(\w+)"\)', case.get("residual", ""))
    return bl.LMM(
        case["formula"], data, residual=bl.AR1(residual[1], subject=residual[2]) if residual else None
    ).fit()


@pytest.mark.parametrize("kind", ["CR0", "CR1", "CR1S", "CR1p", "CR2", "CR3"])
@pytest.mark.parametrize("name", [k for k in CLUB if k != "about"])
def test_clubsandwich(name, kind):
    expected = CLUB[name]["estimates"][kind]
    fit = _fit(CLUB[name]).robust(kind)
    table = fit.summary()
    np.testing.assert_allclose(fit.cov_beta, expected["cov_beta"], rtol=1e-5)
    for ours, theirs in (("se", "se"), ("df", "df"), ("statistic", "t"), ("p", "p")):
        np.testing.assert_allclose(table[ours], expected[theirs], rtol=1e-5, err_msg=ours)
    htz = expected["wald_htz"]
    found = fit.test(np.eye(len(table))[htz["tested_from_zero"]])
    for ours, theirs in (("statistic", "F"), ("ndf", "num_df"), ("ddf", "den_df"), ("p", "p")):
        np.testing.assert_allclose(found[ours], htz[theirs], rtol=1e-5, err_msg=ours)


@pytest.mark.parametrize("name", list(SAS))
def test_sas_empirical(name):
    structure = {"us": bl.Unstructured, "ar1": bl.AR1, "cs": bl.CompoundSymmetry, "toep": bl.Toeplitz}[name]
    with pytest.warns(bl.DataNote):
        model = bl.LMM(
            "FEV1 ~ ARMCD", pd.read_csv(ORACLE / "fev.csv"), residual=structure("AVISIT", subject="USUBJID")
        )
    se = model.fit().robust("CR0").summary()["se"].iloc[1]
    assert se == pytest.approx(SAS[name]["empirical"]["se"], rel=1e-5)


def test_definition_with_dense_matrices():
    """CR2 for clusters coarser than the subjects, with weights and a power of a covariate: straight from
    the formula.
    """
    rng = np.random.default_rng(3)
    n = 60
    data = pd.DataFrame(
        {
            "site": np.repeat(list("ABCDEF"), 10),
            "id": np.repeat(np.arange(20), 3),
            "t": np.tile([1.0, 2, 4], 20),
            "w": rng.uniform(0.5, 2, n),
        }
    )
    data["site"] = data["id"].map(lambda i: "ABCDEF"[i % 6])
    data["y"] = 1 + data["t"] + rng.normal(size=20)[data["id"]] + rng.normal(size=n) * data["t"]
    model = bl.LMM("y ~ t + (1 | id)", data, residual=bl.Independent(power="t"), weights="w")
    fit = model.fit()
    robust = fit.robust("CR2", cluster="site")
    V = subject_covariance(
        model.design, model.covariance, model.residual, fit.estimate.θ, np.arange(n), marginal=True
    )
    X, r = model.design.X, model.design.y - model.design.X @ fit.beta.values
    Φ = np.linalg.inv(X.T @ np.linalg.solve(V, X))
    sites = [np.flatnonzero(data["site"] == s) for s in "ABCDEF"]
    P, meat = [], np.zeros((2, 2))
    for rows in sites:
        Vi, Xi = V[np.ix_(rows, rows)], X[rows]
        L = np.linalg.cholesky(Vi)
        values, vectors = np.linalg.eigh(L.T @ (Vi - Xi @ Φ @ Xi.T) @ L)
        A = L @ (vectors / np.sqrt(values)) @ vectors.T @ L.T
        np.testing.assert_allclose(A @ (Vi - Xi @ Φ @ Xi.T) @ A, Vi, atol=1e-8)  # what makes CR2 unbiased
        score = Xi.T @ np.linalg.solve(Vi, A @ r[rows])
        meat += np.outer(score, score)
        whole = np.zeros((n, 2))
        whole[rows] = A @ np.linalg.solve(Vi, Xi) @ Φ
        P.append(whole - np.linalg.solve(V, X) @ Φ @ (X.T @ whole))
    np.testing.assert_allclose(robust.cov_beta, Φ @ meat @ Φ, rtol=1e-7)
    covariance = np.array([[p[:, 1] @ V @ q[:, 1] for q in P] for p in P])
    df = np.trace(covariance) ** 2 / np.sum(covariance**2)
    assert robust.summary()["df"].iloc[1] == pytest.approx(df, rel=1e-7)


def test_crossed_effects_need_a_cluster_that_contains_them():
    rng = np.random.default_rng(5)
    data = pd.DataFrame(
        [
            (school, f"{school}p{p}", f"{school}r{r}")
            for school in "ABCDEFGH"
            for p in range(4)
            for r in range(3)
        ],
        columns=["school", "pupil", "rater"],
    )
    effect = lambda c: data[c].map({k: rng.normal() for k in data[c].unique()})  # noqa: E731
    data["x"] = rng.normal(size=len(data))
    data["y"] = data["x"] + effect("pupil") + effect("rater") + rng.normal(size=len(data))
    fit = bl.LMM("y ~ x + (1 | pupil) + (1 | rater)", data).fit()
    with pytest.raises(bl.InferenceError, match="crossed"):
        fit.robust()
    with pytest.raises(bl.InferenceError, match="rater lie in several clusters of pupil"):
        fit.robust(cluster="pupil")
    assert fit.robust(cluster="school").clusters == 8


def test_cluster_that_alone_carries_a_coefficient():
    """A coefficient of one cluster only leaves no residual for it: that direction gets no weight, nothing
    is infinite.
    """
    data = bl.load_dataset("sleepstudy").assign(
        one=lambda d: (d["Subject"].astype(str) == "308").astype(float)
    )
    robust = bl.LMM("Reaction ~ Days + one + (1 | Subject)", data).fit().robust("CR2")
    table = robust.summary()
    assert np.isfinite(table.loc[["Intercept", "Days"]].to_numpy()).all()
    assert np.isfinite(robust.cov_beta).all()


def test_refusals():
    fit = bl.LMM(SLEEP, bl.load_dataset("sleepstudy")).fit()
    with pytest.raises(bl.InferenceError, match="CR0, CR1"):
        fit.robust("HC3")
    with pytest.raises(bl.DataError, match="no column"):
        fit.robust(cluster="Patient")
    with pytest.raises(bl.InferenceError, match="several clusters of Days"):
        fit.robust(cluster="Days")


def test_view_has_the_contract_columns():
    fit = bl.LMM(SLEEP, bl.load_dataset("sleepstudy")).fit()
    assert list(fit.robust().summary().columns) == [
        "estimate",
        "se",
        "df",
        "statistic",
        "p",
        "lower",
        "upper",
    ]
    assert "18 clusters (Subject)" in repr(fit.robust())
    two = fit.robust("CR2").test("Days = 0, Intercept = 250")
    assert two["ndf"] == 2
    assert two["ddf"] < 17
