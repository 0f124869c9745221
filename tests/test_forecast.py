"""Coverage of 90 % forecast intervals; the full run is in tests/simulations/forecast_coverage.md."""

import sys
from pathlib import Path

import numpy as np
import pytest

import bayeslmm as bl

sys.path.insert(0, str(Path(__file__).parent / "simulations"))
from forecast_coverage import METHODS, coverage


def test_forecasts_cover_in_a_few_sets():
    """12 sets of 30 subjects: within four standard errors of 90 %."""
    mean, error, failed = coverage(12, 0.0)
    assert not failed
    assert (np.abs(mean[:, 0] - 0.9) < 4 * error[:, 0]).all()
    assert (np.diff(mean[:, 1]) > 0).all()  # each method is wider than the one before


@pytest.mark.slow
@pytest.mark.parametrize("intercept", [0.0, 1.0])
def test_forecasts_cover_within_two_per_cent(intercept):
    mean, _, _ = coverage(2000, intercept)
    assert len(mean) == len(METHODS)
    assert (np.abs(mean[:, 0] - 0.9) < 0.02).all()


def test_forecasts_that_leave_out_the_serial_process_do_not_cover():
    """What a prediction without Ŵ and its variance would promise: the check is able to fail."""
    from forecast_coverage import RESIDUAL, draw

    inside = []
    for seed in range(8):
        seen, ahead = draw(np.random.default_rng([seed, 0]), 0.0)
        x = bl.LMM("y ~ t", seen, residual=RESIDUAL).fit().predict(ahead, what="response")
        half = 1.645 * np.hypot(x["se_beta"], x["se_error"]).to_numpy()
        inside.append(np.abs(ahead["y"].to_numpy() - x["fixed"].to_numpy()) < half)
    assert np.mean(inside) < 0.8
