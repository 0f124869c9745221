"""Leave-one-out: closed forms against dense normals, exact refits against evidence of the reduced data."""

import numpy as np
import pytest
from scipy import stats
from test_likelihood import build, random_parameters

import bayeslmm as bl
from bayeslmm.hierarchical import HalfNormal, Priors, resolve_priors
from bayeslmm.hierarchical.centring import centring
from bayeslmm.hierarchical.collapsed.deletion import Deletion
from bayeslmm.hierarchical.collapsed.sampler import sample_collapsed
from bayeslmm.hierarchical.evidence import bayes_factor
from bayeslmm.hierarchical.loo import loo, refitted
from bayeslmm.hierarchical.rows import leave_one_out
from bayeslmm.marginal.covariances import subject_covariance

FORMULA = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def model():
    return bl.LMM(FORMULA, bl.load_dataset("sleepstudy"))


@pytest.fixture(scope="module")
def posterior(model):
    return sample_collapsed(model, draws=500, random_seed=1, prior_draws=0)


def left_out(mean, V, y, rows):
    """log p(y_s | y_-s) from the definition."""
    rest = np.setdiff1d(np.arange(len(y)), rows)
    joint = stats.multivariate_normal(mean, V).logpdf(y)
    return joint - stats.multivariate_normal(mean[rest], V[np.ix_(rest, rest)]).logpdf(y[rest])


CASES = [("slope", "independent"), ("nested slope", "exponential + nugget"), ("crossed slopes", "by row"),
         ("intercept", "toeplitz by visit")]  # fmt: skip


@pytest.mark.parametrize("by_subject", [False, True])
@pytest.mark.parametrize(("formula", "residual"), CASES)
def test_closed_form_is_the_definition(formula, residual, by_subject):
    model = build(3, 9, False, formula, residual, residual == "independent")
    d, priors, n = model.design, resolve_priors(model), len(model.design.y)
    units = d.terms[0].codes if by_subject else np.arange(n)
    deletion = Deletion.of(model, priors, units)
    θ = random_parameters(model, 1) * deletion.target.blocks.unit
    drawn = deletion.target.at(np.zeros((1, 1)), θ[None])
    V = subject_covariance(d, model.covariance, model.residual, θ, np.arange(n), marginal=True)
    X = d.X @ np.linalg.inv(centring(d).A)
    prior = [priors[f"beta[{c}]"] for c in d.coefs]
    V = V + (X * [p.sigma**2 for p in prior]) @ X.T
    mean = X @ [p.mu for p in prior] + d.offset
    expected = [left_out(mean, V, d.y, np.flatnonzero(units == k)) for k in range(units.max() + 1)]
    np.testing.assert_allclose(deletion.log_density(drawn)[0], expected, rtol=1e-7, atol=1e-7)
    assert deletion.only(2).log_density(drawn)[0, 2] == pytest.approx(expected[2], abs=1e-7)


@pytest.mark.parametrize("residual", ["by stratum", "exponential + nugget"])
def test_conditional_terms_are_the_definition(residual):
    model = build(3, 9, False, "slope", residual, False)
    n = len(model.design.y)
    θ = model.covariance.linear_from_natural(model.fit().parameters.to_numpy())
    R = subject_covariance(model.design, model.covariance, model.residual, θ, np.arange(n), marginal=False)
    r = np.random.default_rng(0).normal(size=n)
    found = leave_one_out(model, θ[None], r[None])[0]
    expected = [left_out(np.zeros(n), R, r, np.array([i])) for i in range(n)]
    np.testing.assert_allclose(found, expected, rtol=1e-7)


def without(data, subject, priors: Priors):
    model = bl.LMM(FORMULA, data[data["Subject"] != subject])
    return sample_collapsed(model, priors=dict(priors.entries), draws=2000, random_seed=2, prior_draws=0)


def exact(model, posterior, subjects):
    """log p(y_s | y_-s) as a difference of two evidences; subjects share their days, so centring agrees."""
    data = bl.load_dataset("sleepstudy")
    data["Subject"] = data["Subject"].astype(str)
    whole = posterior.attrs["log_evidence"]
    found = {s: without(data, s, resolve_priors(model)).attrs for s in subjects}
    return np.array([whole - found[s]["log_evidence"] for s in subjects])


def test_refits_without_a_subject_are_differences_of_evidence(model, posterior):
    term = model.design.terms[0]
    deletion = Deletion.of(model, resolve_priors(model), term.codes)
    subjects = ["308", "332"]
    found = refitted(model, deletion, [list(term.levels).index(s) for s in subjects])
    np.testing.assert_allclose(list(found.values()), exact(model, posterior, subjects), atol=0.03)


@pytest.mark.slow
def test_loo_by_subject_is_that_of_all_refits(model, posterior):
    whole = sample_collapsed(model, draws=5000, random_seed=4, prior_draws=0)
    refits = exact(model, whole, model.design.terms[0].levels.tolist())
    assert loo(model, whole, "subject").elpd == pytest.approx(refits.sum(), abs=0.3)
    assert refits.sum() == pytest.approx(-885.7, abs=0.3)


def test_levels_of_leaving_out(model, posterior):
    by_row, integrated, by_subject = (loo(model, posterior, u, refit=False) for u in (
        "observation", "observation-integrated", "subject"))  # fmt: skip
    assert by_row.elpd == pytest.approx(integrated.elpd, abs=4)  # one quantity, two sets of weights
    assert (integrated.pareto_k > 0.7).sum() <= (by_row.pareto_k > 0.7).sum()
    assert by_subject.elpd == pytest.approx(-885.7, abs=0.5)
    assert by_subject.n_data_points == 18
    assert by_subject.elpd_i.dims == ("Subject",)


def test_flagged_subjects_are_left_out_in_truth(model, posterior):
    found = loo(model, posterior, "subject")
    plain = loo(model, posterior, "subject", refit=False)
    flagged = plain.pareto_k > 0.7
    assert bool(np.isnan(found.pareto_k[flagged]).all())
    assert bool((found.elpd_i == plain.elpd_i)[~flagged].all())
    assert not found.warning
    assert "elpd_loo" in str(found)


def test_what_loo_refuses(model, posterior):
    with pytest.raises(bl.InferenceError, match="observation-integrated"):
        loo(model, posterior, "row")
    with pytest.raises(bl.InferenceError, match="other priors"):
        loo(model, posterior, "subject", priors={"sigma": HalfNormal(3.0)})
    with pytest.raises(bl.InferenceError, match="no grouping factor"):
        loo(model, posterior, "subject", subject="Days")


def test_bayes_factor_of_a_slope(model, posterior):
    smaller = bl.LMM("Reaction ~ 1 + (Days | Subject)", bl.load_dataset("sleepstudy"))
    other = sample_collapsed(smaller, draws=500, random_seed=1, prior_draws=0)
    found = bayes_factor(posterior, other)
    assert found.log == pytest.approx(posterior.attrs["log_evidence"] - other.attrs["log_evidence"])
    assert found.log > 3
    assert "favour the first" in str(found)
    assert bayes_factor(other, posterior).log == pytest.approx(-found.log)
    few = bl.LMM("Reaction ~ 1 + (1 | Subject)", bl.load_dataset("sleepstudy")[:100])
    with pytest.raises(bl.InferenceError, match="different data"):
        bayes_factor(posterior, few)
    flat = sample_collapsed(smaller, draws=50, random_seed=1, priors="reml")
    with pytest.raises(bl.InferenceError, match="proper priors"):
        bayes_factor(posterior, flat)
