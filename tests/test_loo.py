"""Leave-one-out: closed forms against dense normals, exact refits against evidence of the reduced data."""

import arviz as az
import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp
from test_likelihood import build, random_parameters

import bayeslmm as bl
from bayeslmm.hierarchical import HalfNormal, Priors, default_priors, resolve_priors
from bayeslmm.hierarchical.centring import centring
from bayeslmm.hierarchical.collapsed.deletion import Deletion
from bayeslmm.hierarchical.collapsed.mode import modes
from bayeslmm.hierarchical.collapsed.sampler import sample_collapsed
from bayeslmm.hierarchical.evidence import bayes_factor
from bayeslmm.hierarchical.loo import Without, loo, refitted
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


def log_normal(V, r):
    """log N(r; 0, V) of many V (D, m, m); r (D, m) or (m,)."""
    L = np.linalg.cholesky(V)
    e = np.linalg.solve(L, np.broadcast_to(r, V.shape[:2])[..., None])[..., 0]
    logdet = np.log(np.diagonal(L, axis1=1, axis2=2)).sum(axis=1)
    return -0.5 * (e**2).sum(axis=1) - logdet - 0.5 * V.shape[1] * np.log(2 * np.pi)


def predicted(model, subject):
    """log E[p(y_s | β, θ)] over a posterior of all other subjects: without weights, without evidence."""
    data = bl.load_dataset("sleepstudy")
    own = data[data["Subject"] == subject]
    others = bl.LMM(FORMULA, data[data["Subject"] != subject])
    tree = sample_collapsed(others, priors=resolve_priors(model), draws=500, random_seed=3, prior_draws=0)
    p = {name: a.to_numpy().reshape(-1, *a.shape[2:]) for name, a in tree["posterior"].data_vars.items()}
    Z = np.column_stack([np.ones(len(own)), own["Days"]])
    sd = p["sd_Subject"]
    V = Z @ (p["corr_Subject"] * sd[:, :, None] * sd[:, None]) @ Z.T + p["sigma"][:, None, None] ** 2 * np.eye(len(Z))
    terms = log_normal(V, own["Reaction"].to_numpy() - p["beta"] @ Z.T)
    return logsumexp(terms) - np.log(len(terms))


def test_loo_by_subject_is_that_of_18_refits(model, posterior):
    found = loo(model, posterior, "subject")
    refits = np.array([predicted(model, s) for s in found.elpd_i["Subject"].to_numpy()])
    assert found.elpd == pytest.approx(refits.sum(), abs=0.3)
    np.testing.assert_allclose(found.elpd_i, refits, atol=0.3)


@pytest.mark.slow
def test_loo_by_subject_is_that_of_all_evidences(model, posterior):
    whole = sample_collapsed(model, draws=5000, random_seed=4, prior_draws=0)
    refits = exact(model, whole, model.design.terms[0].levels.tolist())
    assert loo(model, whole, "subject").elpd == pytest.approx(refits.sum(), abs=0.3)
    assert refits.sum() == pytest.approx(-885.7, abs=0.3)


def on_a_grid(model):
    """log p(y_rows) of any rows: β integrated out by its normal prior, (sd_Subject, sigma) on a grid."""
    d, priors = model.design, resolve_priors(model)
    sd, sigma = (x.ravel() for x in np.meshgrid(np.geomspace(0.01, 40, 70), np.geomspace(0.4, 12, 70)))
    prior = sum(np.log(stats.t(3, scale=priors[name].scale).pdf(x)) + np.log(x)  # even in log x
                for name, x in [("sd_Subject[Intercept]", sd), ("sigma", sigma)])  # fmt: skip
    X = d.X @ np.linalg.inv(centring(d).A)
    B = np.diag([priors[f"beta[{c}]"].sigma ** 2 for c in d.coefs])
    r = d.y - X @ [priors[f"beta[{c}]"].mu for c in d.coefs]
    same = np.equal.outer(d.terms[0].codes, d.terms[0].codes)
    V = sd[:, None, None] ** 2 * same + sigma[:, None, None] ** 2 * np.eye(len(r)) + X @ B @ X.T
    return lambda rows: logsumexp(prior + log_normal(V[:, rows[:, None], rows], r[rows]))


def test_both_integrated_levels_by_brute_force():
    model = bl.LMM("distance ~ age + (1 | Subject)", bl.load_dataset("orthodont")[:20])
    density, everything = on_a_grid(model), np.arange(20)
    draws = sample_collapsed(model, draws=2000, random_seed=5, prior_draws=0)
    for unit, units in (("observation-integrated", everything), ("subject", model.design.terms[0].codes)):
        expected = [density(everything) - density(np.flatnonzero(units != k)) for k in range(units.max() + 1)]
        found = loo(model, draws, unit)
        np.testing.assert_allclose(found.elpd_i, expected, atol=0.05)
        refits = refitted(model, Deletion.of(model, resolve_priors(model), units), [0, 3])
        np.testing.assert_allclose(list(refits.values()), np.array(expected)[[0, 3]], atol=0.03)


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
    labels = tuple(plain.pareto_k["Subject"].to_numpy()[flagged.to_numpy()])
    assert "332" in labels
    assert found.exact == labels
    assert plain.exact == ()
    np.testing.assert_allclose(found.elpd_i[flagged], exact(model, posterior, labels), atol=0.03)
    assert bool(np.isnan(found.pareto_k[flagged]).all())
    assert bool((found.elpd_i == plain.elpd_i)[~flagged].all())
    assert not found.warning
    assert "elpd_loo" in str(found)
    assert "without it, because of its k: 332" in str(found)


def test_what_loo_refuses(model, posterior):
    with pytest.raises(bl.InferenceError, match="observation-integrated"):
        loo(model, posterior, "row")
    with pytest.raises(bl.InferenceError, match="other priors"):
        loo(model, posterior, "subject", priors={"sigma": HalfNormal(3.0)})
    with pytest.raises(bl.InferenceError, match="no grouping factor"):
        loo(model, posterior, "subject", subject="Days")


def test_subjects_of_a_residual_alone():
    data = bl.load_dataset("orthodont")
    model = bl.LMM("distance ~ age", data, residual=bl.CompoundSymmetry("age", subject="Subject"))
    tree = sample_collapsed(model, draws=200, random_seed=1, prior_draws=0)
    named, by_default = (loo(model, tree, "subject", subject=s, refit=False) for s in ("Subject", None))
    assert named.elpd == by_default.elpd
    assert named.n_data_points == 27
    plain = bl.LMM("distance ~ age", data)
    with pytest.raises(bl.InferenceError, match="no subjects to leave out"):
        loo(plain, sample_collapsed(plain, draws=50, random_seed=1, prior_draws=0), "subject")


def test_where_V_is_numerically_singular_nothing_is_predicted():
    rng = np.random.default_rng(0)
    data = {"y": rng.normal(size=72), "v": np.tile(np.arange(6), 12), "g": np.repeat(list("abcdefghijkl"), 6)}
    model = bl.LMM("y ~ v", data, residual=bl.Unstructured("v", subject="g"))
    deletion = Deletion.of(model, default_priors(model), np.repeat(np.arange(12), 6))
    target, (summit, *_) = modes(deletion.target, model)
    z = 6 * np.random.default_rng(1).standard_normal((3000, len(summit.u)))
    u = summit.u + z @ np.linalg.cholesky(summit.covariance).T
    found = Without(target, deletion, 0).many(u).value
    assert np.isfinite(found).any()
    assert found.max() < summit.value


@pytest.mark.parametrize("unit", ["observation", "subject"])
def test_models_compared_by_what_they_predict(model, posterior, unit):
    smaller = bl.LMM("Reaction ~ Days + (1 | Subject)", bl.load_dataset("sleepstudy"))
    other = sample_collapsed(smaller, draws=500, random_seed=1, prior_draws=0)
    slope, intercept = loo(model, posterior, unit), loo(smaller, other, unit)
    table = bl.compare_models(intercept=intercept, slope=slope)
    assert list(table.index) == ["slope", "intercept"]
    assert table.attrs["unit"] == unit
    assert table.loc["intercept", "delta"] == pytest.approx(slope.elpd - intercept.elpd)
    arviz = az.compare({"intercept": intercept, "slope": slope}, round_to="none")
    assert table.loc["intercept", "se_delta"] == pytest.approx(arviz.loc["intercept", "dse"])
    assert table["se"].to_dict() == pytest.approx(arviz["se"].to_dict())
    assert table["exact"].to_dict() == {"slope": int(unit == "subject"), "intercept": 0}
    assert bl.compare_models(intercept, slope).index[0] == f"2: {model}"


def test_what_cannot_be_compared(model, posterior):
    by_row, by_subject = loo(model, posterior, "observation"), loo(model, posterior, "subject", refit=False)
    changed = bl.load_dataset("sleepstudy").assign(Reaction=lambda d: d["Reaction"] + (d["Days"] == 3))
    other = bl.LMM(FORMULA, changed)
    elsewhere = loo(other, sample_collapsed(other, draws=100, random_seed=1, prior_draws=0), "observation")
    for models, message in [
        ((by_row, by_subject), "different questions"),
        ((by_row, elsewhere), "different data"),
        ((by_row, model.fit()), "all of one kind"),
        ((posterior, by_row), "DataTree"),
        ((by_row,), "at least two"),
    ]:
        with pytest.raises(bl.InferenceError, match=message):
            bl.compare_models(*models)
    with pytest.raises(bl.InferenceError, match="information criteria"):
        bl.compare_models(by_row, by_row, convention="sas")


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
