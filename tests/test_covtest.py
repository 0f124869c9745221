"""Wald tests of variance parameters: SAS's asymptotic covariances, definitions, and where the test means
nothing.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bayeslmm as bl
from bayeslmm.marginal.covtest import covariance_of_variances

ORACLE = Path(__file__).parent / "oracle"


def _sas(name):
    table = pd.read_csv(ORACLE / f"sas_{name}_asycov.csv")
    return table[[c for c in table if c.startswith("CovP") and c != "CovParm"]].to_numpy(float)


def test_sas_asymptotic_covariance_wind_tunnel():
    data = pd.read_csv(ORACLE / "wind_tunnel.csv").rename(columns={"Whole Plots": "WP"})
    squares = " + ".join(f"I({x}**2)" for x in ("FRH", "RRH", "YA", "GC"))
    fit = bl.LMM(f"EFFICIENCY ~ (FRH + RRH + YA + GC)**2 + {squares} + (1 | WP)", data).fit()
    ours = covariance_of_variances(fit, "observed")
    np.testing.assert_allclose(ours, _sas("wind_tunnel"), rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "bar", "order"),
    [("correlated", "(Days | Subject)", [0, 2, 1, 3]), ("uncorrelated", "(Days || Subject)", [0, 1, 2])],
)
def test_sas_asymptotic_covariance_sleepstudy(name, bar, order):
    fit = bl.LMM(f"Reaction ~ Days + {bar}", bl.load_dataset("sleepstudy")).fit()
    ours = covariance_of_variances(fit, "observed").to_numpy()[np.ix_(order, order)]
    np.testing.assert_allclose(ours, _sas(f"sleepstudy_{name}"), rtol=1e-4)
    se = fit.covtest()["se"].to_numpy()[order]
    np.testing.assert_allclose(se, np.sqrt(np.diag(_sas(f"sleepstudy_{name}"))), rtol=1e-4)


def test_definition():
    fit = bl.LMM("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy")).fit()
    table = fit.covtest()
    assert list(table.index) == [
        "var_Subject[Intercept]",
        "var_Subject[Days]",
        "cov_Subject[Intercept, Days]",
        "sigma²",
    ]
    G = fit.G["Subject"].values
    np.testing.assert_allclose(table["estimate"], [G[0, 0], G[1, 1], G[0, 1], fit.sigma**2], rtol=1e-10)
    np.testing.assert_allclose(table["statistic"], table["estimate"] / table["se"], rtol=1e-12)
    one_sided = stats.norm.sf(table["statistic"])
    expected = np.where(
        table.index.str.startswith("cov"), 2 * stats.norm.sf(table["statistic"].abs()), one_sided
    )
    expected[-1] = 2 * one_sided[-1]
    np.testing.assert_allclose(table["p"], expected, rtol=1e-10)
    assert "edge of the parameter space" in table.loc["var_Subject[Days]", "note"]
    assert "boundary" in table.loc["cov_Subject[Intercept, Days]", "note"]
    assert table.loc["sigma²", "note"] == ""


def test_expected_and_observed_differ_only_where_they_should():
    """For a balanced one-way layout both informations give the textbook variances of ANOVA at the REML
    estimate.
    """
    fit = bl.LMM("Yield ~ 1 + (1 | Batch)", bl.load_dataset("dyestuff")).fit()
    a, n = 6, 5
    between, within = n * float(fit.G["Batch"].values[0, 0]) + fit.sigma**2, fit.sigma**2
    var_error = 2 * within**2 / (a * (n - 1))
    var_group = (2 * between**2 / (a - 1) + var_error) / n**2
    for kind in ("observed", "expected"):
        se = fit.covtest(kind)["se"]
        assert se["sigma²"] == pytest.approx(np.sqrt(var_error), rel=1e-6)
        assert se["var_Batch[Intercept]"] == pytest.approx(np.sqrt(var_group), rel=1e-6)
    with pytest.raises(bl.InferenceError, match="'expected' or 'observed'"):
        fit.covtest("average")


def test_boundary_is_named():
    data = pd.read_csv(ORACLE / "dyestuff2.csv")
    row = bl.LMM("Yield ~ 1 + (1 | Batch)", data).fit().covtest().loc["var_Batch[Intercept]"]
    assert np.isnan(row["se"])
    assert np.isnan(row["p"])
    assert "on the boundary 0" in row["note"]


def test_negative_component_has_a_marginal_meaning_only():
    data = pd.read_csv(ORACLE / "dyestuff2.csv")
    row = bl.LMM("Yield ~ 1 + (1 | Batch)", data, signed=True).fit().covtest().loc["var_Batch[Intercept]"]
    assert row["estimate"] < 0
    assert row["se"] > 0
    assert "no hierarchical meaning" in row["note"]
