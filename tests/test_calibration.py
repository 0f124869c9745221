"""Ranks of true values among draws of the collapsed sampler; the full run is in tests/simulations/calibration.md."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bayeslmm as bl
from bayeslmm.hierarchical.calibration import Calibration, sbc

sys.path.insert(0, str(Path(__file__).parent / "simulations"))
from calibration import cases


def test_ranks_of_a_few_replications():
    model, priors = cases()["crossed"]
    found = sbc(model, 4, priors=priors, draws=39, seed=1)
    again = sbc(model, 4, priors=priors, draws=39, seed=1)
    pd.testing.assert_frame_equal(found.ranks, again.ranks)
    assert found.ranks.shape == (4, 7)
    assert found.ranks.to_numpy().min() >= 0
    assert found.ranks.to_numpy().max() <= 39
    assert (found.khat < 0.7).all()


def test_wrong_ranks_are_noticed():
    rng = np.random.default_rng(0)
    good, narrow = rng.integers(0, 100, 500), np.round(99 * stats.beta.rvs(0.6, 0.6, size=500, random_state=1))
    found = Calibration(pd.DataFrame({"good": good, "narrow": narrow}), 99, np.zeros(500), ()).test()
    assert found.loc["good", "holm"] > 0.05
    assert found.loc["narrow", "holm"] < 1e-3


def test_improper_priors_are_refused():
    with pytest.raises(bl.SamplingError, match="improper"):
        sbc(cases()["crossed"][0], 2, priors="reml")


@pytest.mark.slow
@pytest.mark.parametrize("name", list(cases()))
def test_collapsed_sampler_is_calibrated(name):
    model, priors = cases()[name]
    found = sbc(model, 500, priors=priors, seed=3)
    assert (found.test()["holm"] > 1e-3).all()
