"""Confidence intervals: lme4's profiles, the definition of a profile, boundaries, and the scales of Wald
intervals.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

import bayeslmm as bl
from bayeslmm.kernel.blocks import compress
from bayeslmm.kernel.likelihood import evaluate

SLEEP = "Reaction ~ Days + (Days | Subject)"
# confint(profile(lmer(Reaction ~ Days + (Days | Subject), sleepstudy, REML = FALSE))) of lme4 1.1.31
LME4 = {
    "sd_Subject[Intercept]": (14.38141816, 37.71599532),
    "corr_Subject[Intercept, Days]": (-0.48150076, 0.68498627),
    "sd_Subject[Days]": (3.80116405, 8.75338075),
    "sigma": (22.89826688, 28.85799651),
    "Intercept": (237.68069551, 265.12951468),
    "Days": (7.35865328, 13.57591875),
}


def _sleep(method="REML", formula=SLEEP):
    return bl.LMM(formula, bl.load_dataset("sleepstudy")).fit(method)


def test_profile_is_lme4s():
    found = _sleep("ML").confint("profile")
    for name, limits in LME4.items():  # lme4 interpolates its profile
        assert found.loc[name, ["lower", "upper"]].tolist() == pytest.approx(limits, rel=1e-4), name


def test_reml_profile_cuts_at_the_quantile_of_chi_square():
    """At a limit of σ the REML likelihood, maximised over the rest, has dropped by half the quantile."""
    fit = _sleep()
    limits = fit.confint("profile", 0.9).loc["sigma", ["lower", "upper"]]
    blocks, covariance = compress(fit.estimate.blocks), fit.model.covariance
    start = covariance.working_from_linear(fit.estimate.θ / blocks.unit)

    for sigma in limits:
        w = start.copy()

        def drop(rest, w=w, sigma=sigma):
            θ = covariance.linear_from_working(np.append(rest, w[-1]))
            θ[-1] = sigma**2 / blocks.unit[-1]
            return -evaluate(blocks, covariance, θ, reml=True, order=0).value

        best = optimize.minimize(
            drop, start[:-1], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10, "maxiter": 4000}
        )
        assert fit.loglik + best.fun == pytest.approx(stats.chi2.ppf(0.9, 1) / 2, abs=1e-5)


def test_coefficient_profile_is_a_likelihood_ratio_test():
    """At a limit of β the model with that β fixed (as an offset) is rejected at exactly the level."""
    data = bl.load_dataset("orthodont")
    fit = bl.LMM("distance ~ age + Sex + (1 | Subject)", data).fit("ML")
    for limit in fit.confint("profile").loc["age", ["lower", "upper"]]:
        fixed = bl.LMM(
            "distance ~ offset(shift) + Sex + (1 | Subject)", data.assign(shift=limit * data["age"])
        ).fit("ML")
        assert 2 * (fit.loglik - fixed.loglik) == pytest.approx(stats.chi2.ppf(0.95, 1), abs=1e-5)


def test_limit_at_zero():
    """Where the model without a variance is not rejected at the level, its lower limit is exactly zero."""
    fit = bl.LMM("strength ~ 1 + (1 | batch) + (1 | batch:cask)", bl.load_dataset("pastes")).fit()
    found = fit.confint("profile")
    assert found.loc["sd_batch[Intercept]", "lower"] == 0
    assert found.loc["sd_batch:cask[Intercept]", "lower"] > 1
    without = bl.LMM("strength ~ 1 + (1 | batch:cask)", bl.load_dataset("pastes")).fit()
    assert 2 * (fit.loglik - without.loglik) < stats.chi2.ppf(0.95, 1)


def test_estimate_at_zero_has_a_one_sided_interval():
    data = pd.read_csv(Path(__file__).parent / "oracle" / "dyestuff2.csv")
    fit = bl.LMM("Yield ~ 1 + (1 | Batch)", data).fit()
    row = fit.confint("profile").loc["sd_Batch[Intercept]"]
    assert row["lower"] == 0
    blocks, covariance = compress(fit.estimate.blocks), fit.model.covariance

    def drop(x):
        θ = np.array([row["upper"] ** 2, x**2]) / blocks.unit
        return -evaluate(blocks, covariance, θ, reml=True, order=0).value

    best = optimize.minimize_scalar(drop, bracket=(fit.sigma * 0.9, fit.sigma))
    assert fit.loglik + best.fun == pytest.approx(stats.chi2.ppf(0.95, 1) / 2, abs=1e-4)
    wald = fit.confint().loc["sd_Batch[Intercept]"]
    assert np.isnan(wald["lower"])


@pytest.mark.parametrize(
    ("data", "formula", "residual"),
    [
        ("orthodont", "distance ~ age * Sex", bl.AR1("age", subject="Subject")),
        ("orthodont", "distance ~ age * Sex + (1 | Subject)", bl.Independent(by="Sex")),
        ("penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)", None),
    ],
)
def test_other_structures(data, formula, residual):
    """Every estimate lies in its interval, and profile and Wald intervals are near each other."""
    fit = bl.LMM(formula, bl.load_dataset(data), residual=residual).fit()
    profile, wald = fit.confint("profile"), fit.confint()
    for table in (profile, wald):
        assert (table["lower"] < table["estimate"]).all()
        assert (table["estimate"] < table["upper"]).all()
    width = wald["upper"] - wald["lower"]
    assert ((profile["upper"] - profile["lower"]) / width).between(0.6, 1.7).all()


def test_limits_far_from_the_estimate():
    """The range of a serial process beside a random intercept: its upper limit is 200 times the estimate,
    and exact.
    """
    data = bl.load_dataset("bodyweight")
    residual = bl.Exponential("Time") + bl.Independent()
    fit = bl.LMM("weight ~ Time * Diet + (Time | Rat)", data, residual=residual).fit()
    found = fit.confint("profile")
    upper = found.loc["range", "upper"]
    assert 1000 < upper < 10_000
    assert found.loc["sd_Rat[Intercept]", "lower"] == 0
    without = bl.LMM("weight ~ Time * Diet + (0 + Time | Rat)", data, residual=residual).fit()
    assert 2 * (fit.loglik - without.loglik) < stats.chi2.ppf(0.95, 1)
    # without a random intercept the likelihood at the limit has dropped by half the quantile and more
    blocks, covariance = compress(without.estimate.blocks), without.model.covariance
    start = covariance.working_from_linear(without.estimate.θ / blocks.unit)

    def drop(rest):
        θ = covariance.linear_from_working(np.array([rest[0], rest[1], np.log(upper), rest[2]]))
        return -evaluate(blocks, covariance, θ, reml=True, order=0).value

    rest = np.array([start[0], np.sqrt(upper / blocks.unit[1]), start[3]])
    best = optimize.minimize(
        drop, rest, method="Nelder-Mead", options={"maxiter": 2000, "xatol": 1e-7, "fatol": 1e-9}
    )
    assert 0 <= fit.loglik + best.fun - stats.chi2.ppf(0.95, 1) / 2 < 0.1


def test_negative_variances_have_intervals_on_their_own_scale():
    data = bl.load_dataset("orthodont")
    fit = bl.LMM("distance ~ age * Sex + (1 | Subject)", data, signed=True).fit()
    plain = bl.LMM("distance ~ age * Sex + (1 | Subject)", data).fit()
    found, usual = fit.confint("profile").iloc[4], plain.confint("profile").iloc[4]
    assert found.tolist() == pytest.approx((usual**2).tolist(), rel=1e-5)


def test_wald_scales():
    """Log for standard deviations and Fisher's z for correlations: symmetric there, from the observed
    information.
    """
    fit = _sleep()
    table = fit.confint(level=0.9)
    for name in ("sd_Subject[Intercept]", "sd_Subject[Days]", "sigma"):
        lower, upper, x = table.loc[name, ["lower", "upper", "estimate"]]
        assert x / lower == pytest.approx(upper / x, rel=1e-10)
    lower, upper, r = np.arctanh(
        table.loc["corr_Subject[Intercept, Days]", ["lower", "upper", "estimate"]].to_numpy(float)
    )
    assert r - lower == pytest.approx(upper - r, rel=1e-9)
    covtest = fit.covtest()
    half = stats.norm.ppf(0.95) * covtest.loc["sigma²", "se"] / (2 * fit.sigma)  # delta method
    assert fit.sigma * np.log(table.loc["sigma", "upper"] / fit.sigma) == pytest.approx(half, rel=1e-8)
    assert table.loc["Days"].tolist() == pytest.approx(
        fit.summary(level=0.9).loc["Days", ["estimate", "lower", "upper"]].tolist()
    )


def test_bootstrap_intervals():
    fit = _sleep()
    one, two = (fit.confint("bootstrap", n=200, seed=3) for _ in range(2))
    pd.testing.assert_frame_equal(one, two)
    assert list(one.index) == list(fit.confint().index)


def test_refusals():
    fit = _sleep()
    with pytest.raises(bl.InferenceError, match="wald, profile, bootstrap"):
        fit.confint("exact")
    with pytest.raises(bl.InferenceError, match="between 0 and 1"):
        fit.confint(level=95)
    with pytest.raises(bl.InferenceError, match="seed belongs to"):
        fit.confint("profile", seed=1)


@pytest.mark.parametrize("sets", [40, pytest.param(2000, marks=pytest.mark.slow)])
def test_coverage(sets):
    """20 subjects x 4: 95 % intervals of both standard deviations hold the truth about as often as they
    say.
    """
    path = Path(__file__).parent / "simulations" / "variance_tests.py"
    spec = importlib.util.spec_from_file_location("variance_tests", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    table = module.coverage(sets)
    slack = 4 * table["error"].iloc[0]
    assert table["profile"].between(0.93 - slack, 0.97 + slack).all()
    assert (
        table.loc[["sigma, variance 0.25", "sigma, variance 1"], "wald"]
        .between(0.93 - slack, 0.97 + slack)
        .all()
    )
