"""SAS PROC MIXED and GLIMMIX: likelihoods, Kenward-Roger, Satterthwaite, covariance of variance components."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from oracle_data import ORACLE, read_json, table

import bayeslmm as bl
from bayeslmm.kernel.information import covariance_of_parameters, information
from bayeslmm.kernel.likelihood import evaluate

STRUCTURES = {"us": bl.Unstructured, "ar1": bl.AR1, "cs": bl.CompoundSymmetry, "toep": bl.Toeplitz}
SAS = read_json("sas_fev.json")["structures"]


def fev(name):
    return bl.LMM("FEV1 ~ ARMCD", table("fev.csv"), residual=STRUCTURES[name]("AVISIT", subject="USUBJID")).fit()


@pytest.mark.parametrize("name", STRUCTURES)
def test_fev_likelihood_is_never_above_sas_in_deviance(name):
    difference = -2 * fev(name).loglik - SAS[name]["minus2_reml_loglik"]
    assert -2e-5 < difference < 1e-6


@pytest.mark.parametrize(("name", "se", "df"), [("ar1", 1e-6, 1e-5), ("cs", 1e-6, 1e-5), ("toep", 1e-4, 5e-4)])
@pytest.mark.parametrize("method", ["kenward-roger", "kenward-roger-linear"])
def test_fev_kenward_roger(name, se, df, method):
    row = fev(name).summary(method, information="observed").iloc[1]
    expected = SAS[name][method.replace("-", "_")]
    assert row["estimate"] == pytest.approx(expected["estimate"], rel=1e-5)
    assert row["se"] == pytest.approx(expected["se"], rel=se)
    assert row["df"] == pytest.approx(expected["df"], rel=df)


def test_fev_unstructured_sas_stopped_one_newton_step_early():
    """SAS's own arithmetic to 1e-9, at the point where SAS stopped, whose likelihood is below the optimum's.

    From SAS's MIVQUE0 start, the third Newton step has exactly SAS's deviance, estimate, SE and df; the fourth raises
    the likelihood further, to where the score is zero. So the optimum's SE differs from SAS's by 9e-5.
    """
    fit = fev("us")
    found, blocks, covariance = fit.estimate, fit.estimate.blocks, fit.model.covariance
    θ = np.array([1.0] * 4 + [0.0] * 6)
    start = evaluate(blocks, covariance, θ, reml=True)
    θ = θ + np.linalg.solve(information(start, "expected", reml=True), start.score)  # MIVQUE0
    for _ in range(3):
        at = evaluate(blocks, covariance, θ, reml=True)
        θ = θ - np.linalg.solve(at.hessian, at.score)
    at = evaluate(blocks, covariance, θ, reml=True)
    expected = SAS["us"]["kenward_roger"]
    assert -2 * at.value == pytest.approx(SAS["us"]["minus2_reml_loglik"], abs=1e-7)
    beta = blocks.center + blocks.y_scale * np.linalg.solve(blocks.basis, at.beta)
    there = replace(fit, beta=fit.beta.copy(data=beta), estimate=replace(found, θ=θ * blocks.unit, evaluation=at))
    row = there.summary("kenward-roger", information="observed").iloc[1]
    assert row["estimate"] == pytest.approx(expected["estimate"], rel=1e-9)
    assert row["se"] == pytest.approx(expected["se"], rel=1e-9)
    assert row["df"] == pytest.approx(expected["df"], rel=1e-9)

    assert fit.loglik > at.value + 3e-6
    assert np.abs(found.evaluation.score).max() < 1e-3 < np.abs(at.score).max()
    ours = fit.summary("kenward-roger", information="observed").iloc[1]
    assert ours["se"] == pytest.approx(expected["se"], rel=1e-4)
    assert ours["df"] == pytest.approx(expected["df"], rel=5e-4)


def _wind_tunnel():
    data = pd.read_csv(ORACLE / "wind_tunnel.csv").rename(columns={"Whole Plots": "WP"})
    squares = "I(FRH**2) + I(RRH**2) + I(YA**2) + I(GC**2)"
    return bl.LMM(f"EFFICIENCY ~ (FRH + RRH + YA + GC)**2 + {squares} + (1 | WP)", data).fit()


def _pastry_dough():
    data = pd.read_csv(ORACLE / "pastry_dough.csv")
    data.columns = ["Day", "FR", "MC", "SS", "y", "CEI"]
    for c in ("FR", "MC", "SS"):
        data[c] = (data[c] - (data[c].max() + data[c].min()) / 2) / ((data[c].max() - data[c].min()) / 2)
    return bl.LMM("y ~ (FR + MC + SS)**2 + I(FR**2) + I(MC**2) + I(SS**2) + (1 | Day)", data).fit()


def _sas_name(label: str) -> frozenset:
    """I(FRH**2) and FRH*FRH, FRH:RRH and FRH*RRH."""
    label = label.replace(" ", "")
    if label.startswith("I("):
        x = label[2:].split("**")[0].split("*")[0].rstrip(")")
        return frozenset([x, "squared"])
    parts = label.replace("*", ":").split(":")
    return frozenset(parts) if len(set(parts)) == len(parts) else frozenset([parts[0], "squared"])


@pytest.mark.parametrize(
    ("make", "file", "df"),
    [
        (_wind_tunnel, "sas_wind_tunnel_kr.csv", "kenward-roger"),
        (_wind_tunnel, "sas_wind_tunnel_satterthwaite.csv", "satterthwaite"),
        (_pastry_dough, "sas_pastry_dough_kr.csv", "kenward-roger"),
    ],
)
def test_designed_experiments(make, file, df):
    expected = pd.read_csv(ORACLE / file)
    rows = {_sas_name(k): row for k, row in make().summary(df, information="observed").iterrows()}
    assert len(rows) == len(expected)
    for _, sas in expected.iterrows():
        row = rows[_sas_name(sas["Effect"])]
        assert row["estimate"] == pytest.approx(sas["Estimate"], rel=1e-6)
        assert row["se"] == pytest.approx(sas["StdErr"], rel=1e-6)
        assert row["df"] == pytest.approx(sas["DF"], rel=1e-4)
        assert row["p"] == pytest.approx(sas["Probt"], rel=1e-3)


@pytest.mark.parametrize(("name", "bar"), [("correlated", "(Days | Subject)"), ("uncorrelated", "(Days || Subject)")])
def test_sleepstudy(name, bar):
    fit = bl.LMM(f"Reaction ~ Days + {bar}", bl.load_dataset("sleepstudy")).fit()
    expected = pd.read_csv(ORACLE / f"sas_sleepstudy_{name}_kr.csv")
    table = fit.summary("kenward-roger", information="observed")
    np.testing.assert_allclose(table["se"], expected["StdErr"], rtol=1e-6)
    np.testing.assert_allclose(table["df"], expected["DF"], rtol=1e-4)
    W = _covariance(fit)
    if name == "correlated":  # SAS writes var, cov, var, residual
        W = W[np.ix_([0, 2, 1, 3], [0, 2, 1, 3])]
    sas = (
        pd.read_csv(ORACLE / f"sas_sleepstudy_{name}_asycov.csv").filter(like="CovP").drop(columns="CovParm").to_numpy()
    )
    np.testing.assert_allclose(W, sas.astype(float), rtol=1e-4)


def test_wind_tunnel_asymptotic_covariance():
    sas = pd.read_csv(ORACLE / "sas_wind_tunnel_asycov.csv").filter(like="CovP").drop(columns="CovParm").to_numpy()
    np.testing.assert_allclose(_covariance(_wind_tunnel()), sas.astype(float), rtol=1e-4)


def _covariance(fit):
    """Observed-information covariance of (co)variances in the data's units."""
    at, unit = fit.estimate.evaluation, fit.estimate.blocks.unit
    return covariance_of_parameters(at, "observed", np.arange(len(unit)), reml=True) * np.outer(unit, unit)
