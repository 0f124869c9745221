"""R² and intraclass correlations: lme4's numbers, the definition row by row, and draws beside the fit."""

import json
from pathlib import Path

import arviz as az
import numpy as np
import pytest

import bayeslmm as bl

ORACLE = json.loads((Path(__file__).parent / "oracle" / "explained.json").read_text())


@pytest.mark.parametrize("case", ORACLE, ids=lambda c: c["formula"])
def test_the_fit_explains_what_lme4_explains(case):
    found = bl.LMM(case["formula"], bl.load_dataset(case["data"])).fit().explained_variance()
    assert found["r2_marginal"] == pytest.approx(case["r2_marginal"], abs=2e-6)
    assert found["r2_conditional"] == pytest.approx(case["r2_conditional"], abs=2e-6)
    icc = {k.removeprefix("icc_"): v for k, v in found.items() if k.startswith("icc_")}
    assert sorted(icc.values()) == pytest.approx(sorted(case["icc"].values()), abs=2e-6)


@pytest.mark.parametrize("residual", [
    bl.Exponential("Time") + bl.Independent(by="Diet"),
    bl.AR1(by="Diet"),
    bl.Independent(power="Time"),
], ids=str)  # fmt: skip
def test_it_is_the_mean_of_the_diagonal_of_V(residual):
    data = bl.load_dataset("bodyweight")
    fit = bl.LMM("weight ~ Time * Diet + (Time | Rat)", data, residual=residual).fit()
    rats = data["Rat"].unique()
    V = np.concatenate([np.diag(fit.V(r)) for r in rats])
    R = np.concatenate([np.diag(fit.R(r)) for r in rats])
    fixed = np.var(fit.model.design.X @ fit.beta.to_numpy(), ddof=1)
    found = fit.explained_variance()
    assert found["r2_marginal"] == pytest.approx(fixed / (fixed + V.mean()), rel=1e-10)
    assert found["icc_Rat"] == pytest.approx(1 - R.mean() / V.mean(), rel=1e-10)


def test_draws_of_it_are_those_of_the_parameters():
    model = bl.LMM("Reaction ~ Days + (1 | Subject)", bl.load_dataset("sleepstudy"))
    tree = model.sample(draws=500, random_seed=3)
    found = bl.explained_variance(model, tree)
    sd, sigma = tree["posterior"]["sd_Subject"].values[..., 0], tree["posterior"]["sigma"].values
    np.testing.assert_allclose(found["icc_Subject"], sd**2 / (sd**2 + sigma**2), rtol=1e-10)
    assert (found["r2_conditional"] > found["r2_marginal"]).all()
    assert len(az.summary(found)) == 3


def test_a_posterior_of_another_model_is_refused():
    data = bl.load_dataset("sleepstudy")
    tree = bl.LMM("Reaction ~ Days", data).sample(draws=50, random_seed=1)
    with pytest.raises(bl.InferenceError, match="another model"):
        bl.explained_variance(bl.LMM("Reaction ~ Days + (1 | Subject)", data), tree)
