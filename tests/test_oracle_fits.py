"""REML and ML against gradient-converged values computed in R (tests/oracle)."""

import re

import numpy as np
import pytest
from oracle_data import model, read_json

import bayeslmm as bl

LME4 = [k for k in read_json("lme4_models.json") if k != "about"]
RESIDUAL = [k for k in read_json("residual_models.json") if k != "about"]


def plain(name: str) -> str:
    """sd_Worker[Machine[T.B]] and sd_Worker[MachineB] -> sd_Worker[MachineB]."""
    return re.sub(r"\[(?:T\.)?(\w+)\](?=[,\]])", r"\1", name.replace(" ", ""))


def parameters_by_name(fit):
    return {plain(k): v for k, v in fit.parameters.items()}


def reference_value(ours: dict, name: str) -> float:
    name = plain(name)
    for candidate in (name, name.replace("sigma", "sigma_serial", 1), name.replace("power", "power_sigma"),
                      name.replace("power", "power_sigma_serial")):  # fmt: skip
        if candidate in ours:
            return ours[candidate]
    i, j = re.search(r"\[(.+),(.+)\]", name).groups()  # the other order of a pair
    return ours[name.replace(f"[{i},{j}]", f"[{j},{i}]")]


def compare(fit, expected, *, w_tolerance):
    assert fit.convergence
    assert fit.loglik == pytest.approx(expected["loglik"], abs=1e-6)
    np.testing.assert_allclose(fit.beta.values, expected["beta"], rtol=1e-5, atol=1e-8)
    se = np.sqrt(np.diag(fit.cov_beta.values))
    np.testing.assert_allclose(se, expected["se"], rtol=1e-5)
    ours = parameters_by_name(fit)
    assert len(ours) == len(expected["parameters"])
    for name, value in expected["parameters"].items():
        assert reference_value(ours, name) == pytest.approx(value, rel=2e-5, abs=1e-6), name
    for group, w in (expected.get("w") or {}).items():
        mine = fit.w[group].sel({group: [str(x) for x in w["levels"]]})
        values = np.asarray(w["values"], float).reshape(mine.shape)
        scale = max(np.abs(values).max(), 1e-3)
        np.testing.assert_allclose(mine.values, values, atol=w_tolerance * scale, err_msg=group)


@pytest.mark.parametrize("method", ["REML", "ML"])
@pytest.mark.parametrize("name", LME4)
def test_models_lme4_can_write(name, method):
    record = read_json("lme4_models.json")[name]
    compare(model(record).fit(method=method), record[method.lower()], w_tolerance=1e-5)


@pytest.mark.parametrize("method", ["REML", "ML"])
@pytest.mark.parametrize("name", RESIDUAL)
def test_structured_residuals(name, method):
    record = read_json("residual_models.json")[name]
    compare(model(record).fit(method=method), record[method.lower()], w_tolerance=1e-4)


def test_published_sleepstudy_numbers():
    data = bl.load_dataset("sleepstudy")
    reml = bl.LMM("Reaction ~ Days + (Days | Subject)", data).fit()
    ml = bl.LMM("Reaction ~ Days + (Days | Subject)", data).fit(method="ML")
    assert reml.loglik == pytest.approx(-871.814135980, abs=1e-6)
    assert ml.loglik == pytest.approx(-875.969672232, abs=1e-6)
    G = reml.G["Subject"].values
    np.testing.assert_allclose([G[0, 0], G[0, 1], G[1, 1]], [612.08993, 9.60434, 35.07166], rtol=1e-6)
    assert reml.sigma**2 == pytest.approx(654.94103, rel=1e-6)
    se = np.sqrt(np.diag(reml.cov_beta.values))
    np.testing.assert_allclose(se, [6.82455653207, 1.54578889629], rtol=1e-6)


def test_variance_of_exactly_zero_is_reported():
    fit = model(read_json("lme4_models.json")["dyestuff2"]).fit()
    assert fit.parameters["sd_Batch[Intercept]"] == 0.0
    assert fit.convergence.status == "boundary"
    assert fit.convergence.at_boundary == ("sd_Batch[Intercept] is 0",)
    assert np.all(fit.w["Batch"].values == 0)
