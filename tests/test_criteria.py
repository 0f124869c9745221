"""Information criteria against R's penalties, the anchors of SAS, and their definitions; comparisons that
must refuse.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bayeslmm as bl

FOLDER = Path(__file__).parent / "oracle"
ORACLE = json.loads((FOLDER / "criteria.json").read_text())
SLEEP = "Reaction ~ Days + (Days | Subject)"


def _sleep(formula=SLEEP, method="REML"):
    return bl.LMM(formula, bl.load_dataset("sleepstudy")).fit(method)


@pytest.mark.parametrize("method", ["REML", "ML"])
@pytest.mark.parametrize("name", ["sleepstudy", "orthodont"])
def test_penalties_of_lme4_and_nlme(name, method):
    case = ORACLE[name]
    fit = bl.LMM(case["formula"], bl.load_dataset(case["data"])).fit(method)
    for package in ("lme4", "nlme"):
        ours, theirs = fit.criteria(package), case[method][package]
        assert ours.attrs["parameters"] == theirs["parameters"]
        for name in ("AIC", "BIC"):
            assert ours[name] + 2 * fit.loglik == pytest.approx(theirs[name], rel=1e-9)


def test_four_bics_of_sleepstudy():
    """The same model and data have four BICs; those of lme4, nlme and SAS are known to three decimals."""
    fit = _sleep()
    assert fit.criteria("lme4")["BIC"] == pytest.approx(1774.786, abs=5e-4)
    assert fit.criteria("nlme")["BIC"] == pytest.approx(1774.719, abs=5e-4)
    assert fit.criteria("sas")["BIC"] == pytest.approx(1755.190, abs=5e-4)
    assert fit.criteria("lecture")["BIC"] == pytest.approx(fit.loglik - 3 * np.log(178), rel=1e-12)


@pytest.mark.parametrize(("method", "n"), [("ML", 180), ("REML", 178)])
def test_lecture(method, n):
    fit = _sleep(method=method)
    found, k = fit.criteria(), 6
    expected = {
        "AIC": k,
        "BIC": k * np.log(n) / 2,
        "HQIC": k * np.log(np.log(n)),
        "CAIC": k * (np.log(n) + 1) / 2,
    }
    for name, penalty in expected.items():
        assert fit.loglik - found[name] == pytest.approx(penalty, rel=1e-10), name
    assert found.attrs["better"] == "larger"


def test_sas_leaves_out_a_variance_at_zero():
    """Two of three variance parameters remain where the batches do not differ: Dyestuff2's variance is
    zero.
    """
    fit = bl.LMM("Yield ~ 1 + (1 | Batch)", pd.read_csv(FOLDER / "dyestuff2.csv")).fit()
    assert fit.criteria("sas").attrs["parameters"] == 1
    assert fit.criteria("lme4").attrs["parameters"] == 3


@pytest.mark.parametrize(
    ("formula", "residual"),
    [
        ("distance ~ age * Sex + (age | Subject)", None),
        ("distance ~ age * Sex + (1 | Subject)", bl.Independent(by="Sex")),
    ],
)
def test_conditional_aic_is_its_definition(formula, residual):
    """Density of y given the EBLUPs; ρ is the trace of the hat matrix, found by moving one response at a
    time.
    """
    fit = bl.LMM(formula, bl.load_dataset("orthodont"), residual=residual).fit()
    design = fit.model.design
    term = design.terms[0]
    fitted = design.X @ fit.beta.values + np.sum(term.Z * fit.w["Subject"].values[term.codes], axis=1)
    sd = (
        fit.sigma
        if residual is None
        else fit.sigma.sel(Sex=design.frame["Sex"].astype(str).to_numpy()).values
    )
    loglik = stats.norm(fitted, sd).logpdf(design.y).sum()
    n = len(design.y)
    V = np.zeros((n, n))
    for subject in term.levels:
        rows = np.flatnonzero(term.levels[term.codes] == subject)
        V[np.ix_(rows, rows)] = fit.V(subject).values
    P = np.linalg.inv(V)
    PX = P @ design.X
    P = P - PX @ np.linalg.solve(design.X.T @ PX, PX.T)
    effective = n - np.trace(np.diag(np.broadcast_to(np.asarray(sd) ** 2, n)) @ P)
    found = fit.criteria("lecture")
    assert found.attrs["effective_parameters"] == pytest.approx(effective, rel=1e-8)
    assert found["cAIC"] == pytest.approx(loglik - effective - np.size(fit.sigma), rel=1e-8)


def test_compare_models_orders_by_aic():
    slope, intercept = _sleep(), _sleep("Reaction ~ Days + (1 | Subject)")
    table = bl.compare_models(intercept=intercept, slope=slope, convention="sas")
    assert list(table.index) == ["slope", "intercept"]
    assert table["delta"].tolist() == pytest.approx([0, table["AIC"].diff().iloc[1]])
    assert bl.compare_models(intercept, slope).index[0].startswith("2: Reaction ~ Days + (Days | Subject)")


def test_compare_models_refuses():
    full = _sleep()
    with pytest.raises(bl.InferenceError, match="fixed effects differ"):
        bl.compare_models(full, _sleep("Reaction ~ 1 + (Days | Subject)"))
    with pytest.raises(bl.InferenceError, match=r"by REML and .* by ML"):
        bl.compare_models(full, _sleep(method="ML"))
    with pytest.raises(bl.InferenceError, match="different scales"):
        bl.compare_models(full, _sleep("log(Reaction) ~ Days + (Days | Subject)"))
    shorter = bl.LMM(SLEEP, bl.load_dataset("sleepstudy").iloc[:-1]).fit()
    with pytest.raises(bl.InferenceError, match="180 and 179 rows"):
        bl.compare_models(full, shorter)
    with pytest.raises(bl.InferenceError, match="at least two"):
        bl.compare_models(full)
    with pytest.raises(bl.InferenceError, match="lecture, lme4"):
        full.criteria("stata")
    same = bl.compare_models(_sleep(method="ML"), _sleep("Reaction ~ 1 + (Days | Subject)", "ML"))
    assert len(same) == 2
