"""Priors: densities against scipy, derivatives through jets, draws, defaults and overrides."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest
from pytensor.compile.mode import Mode
from scipy import stats
from scipy.integrate import quad

import bayeslmm.covariance as cov
from bayeslmm import jets
from bayeslmm.datasets import load_dataset
from bayeslmm.errors import SamplingError
from bayeslmm.hierarchical import (
    LKJ,
    PC,
    Exp,
    Flat,
    Gamma,
    HalfCauchy,
    HalfNormal,
    HalfT,
    InverseGamma,
    LogNormal,
    Normal,
    StudentT,
    Uniform,
    default_priors,
    resolve_priors,
)
from bayeslmm.hierarchical.defaults import reml_priors, typical_times
from bayeslmm.hierarchical.proper import require_proper_posterior
from bayeslmm.hierarchical.vectors import Mixed, joint
from bayeslmm.model import LMM

PLAIN = Mode(linker="py", optimizer=None)


class Root:
    """The square root of a random variable of scipy."""

    def __init__(self, inner):
        self.inner = inner

    def logpdf(self, x):
        return self.inner.logpdf(x**2) + np.log(2 * x)

    def cdf(self, x):
        return self.inner.cdf(x**2)


FAMILIES = [
    (Normal(3, 2), stats.norm(3, 2)),
    (StudentT(4, 3, 2), stats.t(4, 3, 2)),
    (HalfNormal(2), stats.halfnorm(0, 2)),
    (HalfCauchy(2), stats.halfcauchy(0, 2)),
    (Exp(0.5), stats.expon(0, 2)),
    (PC(5, 0.1), stats.expon(0, 5 / np.log(10))),
    (LogNormal(1, 0.5), stats.lognorm(0.5, 0, np.exp(1))),
    (Gamma(2, 0.5), stats.gamma(2, 0, 2)),
    (Gamma(2, 0.5, on="variance"), Root(stats.gamma(2, 0, 2))),
    (InverseGamma(3, 4), stats.invgamma(3, 0, 4)),
    (InverseGamma(3, 4, on="variance"), Root(stats.invgamma(3, 0, 4))),
    (Uniform(-1, 4), stats.uniform(-1, 5)),
    (HalfT(3, 2), None),
]
NAMES = [repr(prior) for prior, _ in FAMILIES]
X = np.array([0.2, 0.9, 2.7])


def reference(prior, scipy, x):
    return scipy.logpdf(x) if scipy is not None else np.log(2) + stats.t(prior.nu, 0, prior.scale).logpdf(x)


@pytest.mark.parametrize(("prior", "scipy"), FAMILIES, ids=NAMES)
def test_density_is_that_of_scipy(prior, scipy):
    np.testing.assert_allclose(prior.logp(X, np), reference(prior, scipy, X), rtol=1e-12)


@pytest.mark.parametrize(("prior", "scipy"), FAMILIES, ids=NAMES)
def test_jets_give_the_derivatives(prior, scipy):
    h = 1e-4
    for x in X:
        _, first, second = jets.derivatives(prior.logp(jets.variables([x])[0], jets), 1)
        low, mid, high = prior.logp(np.array([x - h, x, x + h]), np)
        assert first[0] == pytest.approx((high - low) / (2 * h), rel=1e-5, abs=1e-5)
        second = 0.0 if second is None else second[0, 0]
        assert second == pytest.approx((high - 2 * mid + low) / h**2, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(("prior", "scipy"), FAMILIES, ids=NAMES)
def test_draws_follow_the_density(prior, scipy):
    draws = prior.sample(np.random.default_rng(1), 4000)
    cdf = scipy.cdf if scipy is not None else lambda x: 2 * stats.t(3, 0, 2).cdf(x) - 1
    assert stats.kstest(draws, cdf).pvalue > 1e-3


@pytest.mark.parametrize(("prior", "scipy"), FAMILIES, ids=NAMES)
def test_pymc_has_the_same_density(prior, scipy):
    with pm.Model() as model:
        prior.to_pymc("x")
    value = model.rvs_to_values[model["x"]]
    logp = model.logp(jacobian=False)
    transform = model.rvs_to_transforms[model["x"]]
    inputs = model["x"].owner.inputs
    for x in X:
        point = x if transform is None else transform.forward(pt.constant(x), *inputs).eval(mode=PLAIN)
        # PyMC has log 2 of its half-t and half-Cauchy in single precision: 2e-9 off, the same everywhere.
        assert logp.eval({value: point}, mode=PLAIN) == pytest.approx(prior.logp(x, np), abs=1e-8)


def test_representation():
    assert [repr(p) for p in (HalfT(3, 56.3277), Gamma(2, 0.1, on="variance"), Flat(), LKJ(2))] == [
        "HalfT(3, 56.33)", "Gamma(2, 0.1, on='variance')", "Flat()", "LKJ(2)"]  # fmt: skip


@pytest.mark.parametrize(
    ("family", "arguments"),
    [(Normal, (0, -1)), (HalfT, (3, 0)), (PC, (5, 1.5)), (Uniform, (2, 1)), (LKJ, (0,))],
)
def test_impossible_parameters_are_refused(family, arguments):
    with pytest.raises(SamplingError):
        family(*arguments)


def test_gamma_knows_two_scales():
    with pytest.raises(SamplingError, match="precision"):
        Gamma(2, 1, on="precision")


def test_vectors_join_one_family_and_mix_several():
    same = joint([HalfT(3, 2.0), HalfT(3, 5.0)])
    assert isinstance(same, HalfT)
    np.testing.assert_allclose(
        same.logp(np.array([1.0, 2.0]), np), [HalfT(3, 2).logp(1, np), HalfT(3, 5).logp(2, np)]
    )
    mixed = joint([HalfT(3, 2.0), Exp(1.0)])
    assert isinstance(mixed, Mixed)
    np.testing.assert_allclose(
        mixed.logp(np.array([1.0, 2.0]), np), [HalfT(3, 2).logp(1, np), Exp(1).logp(2, np)]
    )
    assert mixed.sample(np.random.default_rng(1), 5).shape == (5, 2)


# --- correlation matrices ---------------------------------------------------------------------------------


@pytest.mark.parametrize("eta", [1.0, 2.0, 4.5])
def test_lkj_of_order_two_is_a_beta(eta):
    x = np.array([0.4])
    assert LKJ(eta).logp(x, np) == pytest.approx(stats.beta(eta, eta, -1, 2).logpdf(0.4))
    mass, _ = quad(lambda r: np.exp(LKJ(eta).logp(np.array([r]), np)), -1, 1)
    assert mass == pytest.approx(1)


@pytest.mark.parametrize("q", [3, 4])
def test_lkj_is_the_density_of_pymc(q):
    rng = np.random.default_rng(q)
    L = np.linalg.cholesky(np.corrcoef(rng.normal(size=(q, 9))))
    pairs = (L @ L.T)[np.tril_indices(q, -1)]
    # PyMC's density is that of L: take out the Jacobian of C -> L.
    jacobian = ((q - 1 - np.arange(q)) * np.log(np.diag(L))).sum()
    theirs = pm.logp(pm.LKJCorr.dist(n=q, eta=2.5), L).eval(mode=PLAIN)
    assert LKJ(2.5).logp(pairs, np) + jacobian == pytest.approx(theirs, rel=1e-10)


def test_lkj_through_jets():
    x = np.array([0.3, -0.2, 0.5])
    _, first, _ = jets.derivatives(LKJ(3).logp(jets.variables(x), jets), 3)
    h = 1e-6
    steps = [(LKJ(3).logp(x + h * e, np) - LKJ(3).logp(x - h * e, np)) / (2 * h) for e in np.eye(3)]
    np.testing.assert_allclose(first, steps, rtol=1e-6)


@pytest.mark.parametrize("q", [2, 3, 5])
def test_lkj_draws_have_beta_margins(q):
    draws = LKJ(2).sample(np.random.default_rng(1), 3000, q)
    assert draws.shape == (3000, q * (q - 1) // 2)
    b = 2 + q / 2 - 1
    for column in draws.T:
        assert stats.kstest(column, stats.beta(b, b, -1, 2).cdf).pvalue > 1e-4


# --- defaults ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sleepstudy():
    return LMM("Reaction ~ Days + (Days | Subject)", load_dataset("sleepstudy"))


def test_defaults_are_scaled_from_the_data(sleepstudy):
    y, x = sleepstudy.design.y, sleepstudy.design.X[:, 1]
    priors = default_priors(sleepstudy)
    sd = y.std(ddof=1)
    level, slope = priors["beta[Intercept]"], priors["beta[Days]"]
    assert (level.mu, level.sigma) == pytest.approx((y.mean(), 10 * sd))
    assert (slope.mu, slope.sigma) == pytest.approx((0, 10 * sd / x.std(ddof=1)))
    assert priors["sd_Subject[Intercept]"].scale == pytest.approx(sd)
    assert priors["sd_Subject[Days]"].scale == pytest.approx(sd / np.sqrt(np.mean(x**2)))
    assert priors["corr_Subject"] == LKJ(2)
    assert priors.proper
    assert "sd_Subject[Days]       HalfT(3, 10.55)" in str(priors)


def test_defaults_follow_the_units_of_y_and_x():
    data = load_dataset("sleepstudy")
    scaled = data.assign(Reaction=data["Reaction"] / 1000, Days=24 * data["Days"])
    a, b = (default_priors(LMM("Reaction ~ Days + (Days | Subject)", d)) for d in (data, scaled))
    assert b["beta[Days]"].sigma == pytest.approx(a["beta[Days]"].sigma / 24000)
    assert b["sd_Subject[Days]"].scale == pytest.approx(a["sd_Subject[Days]"].scale / 24000)


def test_without_an_intercept_the_cells_are_centred_at_the_mean():
    model = LMM("score ~ 0 + Machine + (1 | Worker)", load_dataset("machines"))
    mean = load_dataset("machines")["score"].mean()
    assert [default_priors(model)[f"beta[{c}]"].mu for c in model.design.coefs] == pytest.approx([mean] * 3)


def test_the_range_is_placed_between_gap_and_span():
    residual = cov.Exponential("Time") + cov.Independent()
    model = LMM("weight ~ Time + (1 | Rat)", load_dataset("bodyweight"), residual=residual)
    prior = default_priors(model)["range"]
    gap, span = typical_times(model.residual.rows[0].time, model.residual.subject)
    assert (gap, span) == (7, 63)
    low, high = stats.norm(prior.mu, prior.sigma).cdf(np.log([gap / 4, 2 * span]))
    assert (low, high) == pytest.approx((0.01, 0.99))


# --- overrides --------------------------------------------------------------------------------------------


def test_priors_are_changed_by_any_of_their_names(sleepstudy):
    given = {
        "sd_Subject": HalfNormal(50),
        "sd_Subject[Days]": Exp(0.1),
        "beta": Normal(0, 9),
        "Days": StudentT(4, 0, 5),
        "corr_Subject": LKJ(4),
        "sigma": InverseGamma(2, 100, on="variance"),
    }
    priors = resolve_priors(sleepstudy, given)
    assert priors["sd_Subject[Intercept]"] == HalfNormal(50)
    assert priors["sd_Subject[Days]"] == Exp(0.1)
    assert priors["beta[Intercept]"] == Normal(0, 9)
    assert priors["beta[Days]"] == StudentT(4, 0, 5)
    assert resolve_priors(sleepstudy, priors) == priors


@pytest.mark.parametrize(("given", "message"), [
    ({"sd_subject": HalfNormal(1)}, "no parameter 'sd_subject'.*Did you mean 'sd_Subject'"),
    ({"tau": HalfNormal(1)}, "corr_Subject, .*sigma"),
    ({"sigma": Normal(0, 1)}, "must be positive"),
    ({"corr_Subject": Uniform(-1, 1)}, "LKJ"),
    ({"Days": HalfNormal(1)}, "whole line"),
    ({"sigma": 3.0}, "one of ours"),
    ("flat", "'reml'"),
    ([HalfNormal(1)], "dict"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(sleepstudy, given, message):
    with pytest.raises(SamplingError, match=message):
        resolve_priors(sleepstudy, given)


def test_priors_of_another_model_are_refused(sleepstudy):
    other = LMM("Reaction ~ Days + (1 | Subject)", load_dataset("sleepstudy"))
    with pytest.raises(SamplingError, match="another model"):
        resolve_priors(sleepstudy, default_priors(other))


# --- flat priors ------------------------------------------------------------------------------------------


def test_reml_priors_are_flat_on_the_natural_scale(sleepstudy):
    priors = resolve_priors(sleepstudy, "reml")
    assert priors == reml_priors(sleepstudy)
    assert not priors.proper
    assert priors["corr_Subject"] == LKJ(1)
    assert sum(p.logp(0.3, np) for n, p in priors.items() if n != "corr_Subject") == 0
    require_proper_posterior(sleepstudy, priors)


def test_flat_priors_with_too_few_groups_are_refused():
    data = load_dataset("sleepstudy")
    two = LMM("Reaction ~ Days + (1 | Subject)", data[data["Subject"].isin(["308", "309"])])
    with pytest.raises(SamplingError, match="2 levels of Subject are too few"):
        require_proper_posterior(two, reml_priors(two))
    require_proper_posterior(two, resolve_priors(two, {"beta": Flat(), "sigma": Flat()}))


def test_between_group_covariates_use_up_groups():
    data = load_dataset("orthodont")
    three = data[data["Subject"].isin(["M01", "M02", "F01"])]
    require_proper_posterior(one := LMM("distance ~ age + (1 | Subject)", three), reml_priors(one))
    both = LMM("distance ~ age + Sex + (1 | Subject)", three)
    with pytest.raises(SamplingError, match="too few"):
        require_proper_posterior(both, reml_priors(both))


def test_a_flat_range_is_never_proper():
    residual = cov.Exponential("Time") + cov.Independent()
    model = LMM("weight ~ Time + (1 | Rat)", load_dataset("bodyweight"), residual=residual)
    with pytest.raises(SamplingError, match="range"):
        require_proper_posterior(model, reml_priors(model))
