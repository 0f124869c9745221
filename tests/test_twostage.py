"""Two stages against loops of least squares, the exact agreement in balanced data, and what is left out."""

import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl


def test_both_stages_against_loops():
    data = bl.load_dataset("bodyweight")
    found = bl.two_stage("weight ~ Time", "~ Diet", data, subject="Rat")
    B, rss = {}, 0.0
    for rat, rows in data.groupby("Rat"):
        X = np.column_stack([np.ones(len(rows)), rows["Time"]])
        B[rat], ss = np.linalg.lstsq(X, rows["weight"], rcond=None)[:2]
        rss += ss[0]
        np.testing.assert_allclose(found.coefficients.loc[rat], B[rat], rtol=1e-9)
    assert found.sigma == pytest.approx(np.sqrt(rss / (176 - 32)))
    diet = data.groupby("Rat")["Diet"].first().loc[list(B)]
    A = np.column_stack([np.ones(16), diet == "2", diet == "3"]).astype(float)
    b = np.array(list(B.values()))
    Γ = np.linalg.lstsq(A, b, rcond=None)[0]
    np.testing.assert_allclose(found.table["estimate"], Γ.T.ravel(), rtol=1e-9)
    Σ = (b - A @ Γ).T @ (b - A @ Γ) / 13
    np.testing.assert_allclose(found.between, Σ, rtol=1e-8)
    slope = found.table.loc["Time"]
    np.testing.assert_allclose(slope["se"], np.sqrt(Σ[1, 1] * np.diag(np.linalg.inv(A.T @ A))), rtol=1e-8)
    assert (slope["df"] == 13).all()


def test_balanced_data_give_the_mixed_model():
    """With equal times in every subject both are the same estimate with the same standard error."""
    found = bl.two_stage("Reaction ~ Days", "~ 1", bl.load_dataset("sleepstudy"), subject="Subject")
    beside = found.beside()
    np.testing.assert_allclose(beside["two stages"], beside["mixed model"], rtol=1e-6)
    np.testing.assert_allclose(found.G, found.lmm().G["Subject"], rtol=1e-5)
    assert found.sigma == pytest.approx(found.lmm().sigma, rel=1e-6)


def test_covariates_meet_their_interactions():
    found = bl.two_stage("distance ~ age", "~ Sex", bl.load_dataset("orthodont"), subject="Subject")
    x = found.beside()
    np.testing.assert_allclose(x["two stages", "estimate"], x["mixed model", "estimate"], rtol=1e-6)
    assert found.model.design.coefs[-1] == "age:Sex[T.Female]"
    with pytest.raises(bl.InferenceError, match="no coefficient for Intercept by Sex"):
        found.beside(bl.LMM("distance ~ age + (age | Subject)", bl.load_dataset("orthodont")).fit())


def test_subjects_without_a_first_stage_are_named():
    data = bl.load_dataset("sleepstudy")
    few = data[~((data.Subject == "309") & (data.Days > 0))]
    few = few[~((few.Subject == "330") & (few.Days < 9))]
    same_day = few.assign(Days=few["Days"].where(few.Subject != "335", 4.0))
    with pytest.warns(bl.DataNote, match=r"3 of 18 subjects .* 309 \(1 row for 2 coefficients\)"):
        found = bl.two_stage("Reaction ~ Days", "~ 1", same_day, subject="Subject")
    assert found.not_estimable == {
        "309": "1 row for 2 coefficients",
        "330": "1 row for 2 coefficients",
        "335": "its 10 rows cannot tell 2 coefficients apart",
    }
    assert found.coefficients.loc["309"].isna().all()
    assert (found.table["df"] == 14).all()
    assert len(found.lmm().w["Subject"]) == 18  # the mixed model uses them all
    assert "left out: 335" in repr(found)


def test_a_first_stage_without_a_constant():
    data = bl.load_dataset("sleepstudy")
    found = bl.two_stage("Reaction ~ 0 + Days", "~ 1", data, subject="Subject")
    x = data[data.Subject == "308"]
    assert found.coefficients.loc["308", "Days"] == pytest.approx((x.Days @ x.Reaction) / (x.Days @ x.Days))


def test_bad_input():
    data = bl.load_dataset("sleepstudy")
    with pytest.raises(bl.DataError, match="'Days' varies within Subject 308"):
        bl.two_stage("Reaction ~ 1", "~ Days", data, subject="Subject")
    with pytest.raises(bl.FormulaError, match="without bars"):
        bl.two_stage("Reaction ~ Days + (1 | Subject)", "~ 1", data, subject="Subject")
    with pytest.raises(bl.DataError, match="'Person'"):
        bl.two_stage("Reaction ~ Days", "~ 1", data, subject="Person")
    one = data[data.Subject.isin(["308", "309"])].assign(dose=1.0)
    one.loc[one.Subject == "309", "dose"] = 2.0
    with pytest.raises(bl.DesignError, match="Stage 2 has 2 coefficients"):
        bl.two_stage("Reaction ~ Days", "~ dose", one, subject="Subject")
    with pytest.raises(bl.InferenceError, match="level=95"):
        bl.two_stage("Reaction ~ Days", "~ 1", data, subject="Subject", level=95)


def test_missing_responses_are_left_out():
    data = bl.load_dataset("sleepstudy")
    data.loc[data.index[:3], "Reaction"] = np.nan
    found = bl.two_stage("Reaction ~ Days", "~ 1", data, subject="Subject")
    assert found.rows.loc["308"] == 7
    assert isinstance(found.table, pd.DataFrame)
