"""The collapsed sampler against dense normals, quadrature and closed forms."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from scipy import stats
from scipy.linalg import block_diag
from test_likelihood import build, random_parameters

import bayeslmm as bl
from bayeslmm.covariance.assembly import Covariance
from bayeslmm.hierarchical import HalfCauchy, HalfNormal, Normal, StudentT, resolve_priors
from bayeslmm.hierarchical.centring import centring
from bayeslmm.hierarchical.collapsed import search as search_module
from bayeslmm.hierarchical.collapsed.coordinates import Coordinates
from bayeslmm.hierarchical.collapsed.effects import beta_of_data, draw_beta, draw_effects
from bayeslmm.hierarchical.collapsed.mode import climb, modes
from bayeslmm.hierarchical.collapsed.proposal import Mixture, fit
from bayeslmm.hierarchical.collapsed.sampler import sample_collapsed
from bayeslmm.hierarchical.collapsed.scouts import scouts
from bayeslmm.hierarchical.collapsed.search import search
from bayeslmm.hierarchical.collapsed.target import Target
from bayeslmm.hierarchical.collapsed.weights import resample, smooth_tail, weigh
from bayeslmm.kernel.likelihood import evaluate
from bayeslmm.marginal.covariances import subject_covariance

CASES = [
    ("slope", "independent"),
    ("diagonal", "by stratum"),
    ("cs", "independent"),
    ("cs heterogeneous", "independent"),
    ("nested slope", "exponential + nugget"),
    ("crossed slopes", "by row"),
    ("slope", "power"),
    ("intercept", "toeplitz by visit"),
    ("none", "unstructured"),
]


@pytest.fixture(scope="module")
def sleepstudy():
    return bl.LMM("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))


def target_at(formula, residual, priors=None):
    model = build(3, 10, False, formula, residual, False)
    target = Target.of(model, resolve_priors(model, priors))
    natural = model.covariance.natural_from_linear(random_parameters(model, 1) * target.blocks.unit)
    coordinates = target.coordinates.around(0.9 * natural)
    return model, replace(target, coordinates=coordinates), natural


# --- the density ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("formula", "residual"), CASES)
def test_coordinates_return_and_derivatives_are_right(formula, residual):
    model, target, natural = target_at(formula, residual)
    u = target.coordinates.inverse(natural)
    θ, _ = target.coordinates.many(u[None])
    np.testing.assert_allclose(θ[0], model.covariance.linear_from_natural(natural), rtol=1e-9, atol=1e-9)

    u = u + 0.1
    value, gradient, hessian = target.one(u)
    assert target.many(u[None]).value[0] == pytest.approx(value, rel=1e-11)
    steps = 1e-5 * np.eye(len(u))
    ends = [(target.one(u + s), target.one(u - s)) for s in steps]
    slope = np.array([(a[0] - b[0]) / 2e-5 for a, b in ends])
    curvature = np.array([(a[1] - b[1]) / 2e-5 for a, b in ends])
    np.testing.assert_allclose(slope, gradient, rtol=1e-5, atol=1e-5 * np.abs(gradient).max())
    np.testing.assert_allclose(curvature, hessian, rtol=1e-5, atol=1e-5 * np.abs(hessian).max())


@pytest.mark.parametrize(("formula", "residual"), CASES)
def test_the_jacobian_is_that_of_the_natural_parameters(formula, residual):
    """Densities of u and of the numbers that have the priors differ by log|dx/du|."""
    model, target, natural = target_at(formula, residual)
    coordinates: Coordinates = target.coordinates

    def numbers(u):
        unbent, _ = coordinates.unbend(u, np)
        return np.concatenate([part.numbers(unbent[part.at], np) for part in coordinates.parts])

    u = coordinates.inverse(natural)
    J = np.array([(numbers(u + s) - numbers(u - s)) / 2e-5 for s in 1e-5 * np.eye(len(u))])
    found = [float(coordinates.linear(u, np, jacobian=j)[1]) for j in (True, False)]
    assert found[0] - found[1] == pytest.approx(np.linalg.slogdet(J)[1], abs=1e-6)

    priors = resolve_priors(model)
    unbent, _ = coordinates.unbend(u, np)
    expected = 0.0
    for part in coordinates.parts:
        own = part.numbers(unbent[part.at], np)
        if part.slot.role == "matrix":
            expected += priors[part.slot.name].logp(np.array(own), np)
        else:
            expected += sum(priors[e].logp(x, np) for e, x in zip(part.slot.entries, own, strict=True))
    assert found[1] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("formula", "residual"), [("slope", "independent"), ("crossed", "by stratum")])
def test_beta_is_integrated_out_under_its_prior(formula, residual):
    model, target, natural = target_at(formula, residual, {"beta": Normal(90.0, 7.0)})
    found = target.many(target.coordinates.inverse(natural)[None])
    d = model.design
    rows = np.arange(len(d.y))
    V = subject_covariance(d, model.covariance, model.residual, found.θ[0], rows, marginal=True)
    X = d.X @ np.linalg.inv(centring(d).A)
    mean, cov = X @ np.full(X.shape[1], 90.0), V + 49.0 * X @ X.T
    assert found.likelihood[0] == pytest.approx(stats.multivariate_normal(mean, cov).logpdf(d.y), rel=1e-9)


EFFECTS = [("slope", "independent"), ("nested slope", "by row"), ("crossed slopes", "exponential + nugget"),
           ("three factors", "by row"), ("nested", "power")]  # fmt: skip


@pytest.mark.parametrize(("formula", "residual"), EFFECTS)
def test_effects_have_their_conditional_distribution(formula, residual):
    """Mean and covariance of draws of β and w against the normal distribution of (y, β, w)."""
    model, target, natural = target_at(formula, residual)
    D, rng = 10_000, np.random.default_rng(0)
    u = np.tile(target.coordinates.inverse(natural), (D, 1))
    drawn = target.many(u)
    b = draw_beta(target, drawn, rng)
    w = np.concatenate([x.reshape(D, -1) for x in draw_effects(target, drawn.θ, b, rng)], axis=1)
    found = np.column_stack([beta_of_data(target.blocks, b), w])

    mean, cov = dense_posterior(model, drawn.θ[0])
    scale = np.sqrt(np.diag(cov))
    assert np.abs((found.mean(axis=0) - mean) / scale).max() < 4.5 / np.sqrt(D)
    correlation = cov / np.outer(scale, scale)
    np.testing.assert_allclose(np.cov((found / scale).T), correlation, atol=6 / np.sqrt(D))


def dense_posterior(model, θ):
    """Mean and covariance of (β, w) given y at one θ."""
    d, priors = model.design, resolve_priors(model)
    covariance: Covariance = model.covariance
    A = centring(d).A
    prior = [priors[f"beta[{c}]"] for c in d.coefs]
    back = np.linalg.inv(A)
    blocks = [back @ np.diag([p.sigma**2 for p in prior]) @ back.T]
    columns = [d.X]
    for term, G in zip(d.terms, covariance.G(θ), strict=True):
        levels = np.eye(len(term.levels))[term.codes]
        columns.append((levels[:, :, None] * term.Z[:, None, :]).reshape(len(d.y), -1))
        blocks.append(np.kron(np.eye(len(term.levels)), G))
    K, S = np.hstack(columns), block_diag(*blocks)
    R = subject_covariance(d, covariance, model.residual, θ, np.arange(len(d.y)), marginal=False)
    gain = S @ K.T @ np.linalg.inv(K @ S @ K.T + R)
    prior_mean = np.zeros(len(S))
    prior_mean[: len(prior)] = back @ [p.mu for p in prior]
    return prior_mean + gain @ (d.y - d.offset - K @ prior_mean), S - gain @ K @ S


def test_mode_under_flat_priors_is_the_reml_estimate(sleepstudy):
    data = bl.load_dataset("sleepstudy")
    serial = bl.LMM("Reaction ~ Days + (1 | Subject)", data, residual=bl.Exponential("Days"))
    for model in (sleepstudy, bl.LMM("Reaction ~ Days + (Days || Subject)", data), serial):
        fit = model.fit()
        target, _ = modes(Target.of(model, resolve_priors(model, "reml")), model)
        start = target.coordinates.inverse(1.1 * fit.parameters.to_numpy())
        top = climb(target, start, jacobian=False)
        natural = model.covariance.natural_from_linear(target.coordinates.many(top.u[None])[0][0])
        np.testing.assert_allclose(natural, fit.parameters, rtol=1e-5, atol=1e-5)
        θ = model.covariance.linear_from_natural(1.1 * fit.parameters.to_numpy()) / target.lean.unit
        there = evaluate(target.lean, model.covariance, θ, reml=True, order=0).value
        lower = target.one(start, jacobian=False)[0]
        assert top.value - lower == pytest.approx(fit.loglik - there, rel=1e-6)


# --- weights and proposals --------------------------------------------------------------------------------


def test_pareto_smoothing_is_that_of_arviz():
    from arviz_stats.base import array_stats

    for k, seed in ((0.2, 1), (0.6, 2), (1.1, 3)):
        ratio = k * np.random.default_rng(seed).exponential(size=3000)
        log_weight, khat = array_stats.psislw(-ratio)
        smooth, own = smooth_tail(ratio)
        assert own == pytest.approx(float(khat), rel=1e-6)
        expected = np.asarray(log_weight) - np.max(log_weight)
        np.testing.assert_allclose(smooth - smooth.max(), expected, atol=1e-6)


def test_equal_weights_have_no_tail():
    found = weigh(np.full(500, -3.0))
    assert found.khat == -np.inf
    assert found.ess == pytest.approx(500)
    assert found.log_mean == pytest.approx(-3.0)
    assert found.error == 0


def test_resampling_keeps_weights():
    rng = np.random.default_rng(0)
    weight = rng.exponential(size=200)
    weight /= weight.sum()
    count = np.bincount(resample(weight, 1000, rng), minlength=200)
    assert np.abs(count - 1000 * weight).max() < 1


def test_mixture_density_and_fit():
    rng = np.random.default_rng(0)
    scales = [np.eye(2), [[1.0, 0.6], [0.6, 1.0]]]
    truth = Mixture.of([0.3, 0.7], [[0.0, 0.0], [4.0, 1.0]], scales, [8.0, 8.0])
    u = truth.sample(rng, 20_000)
    expected = 0.3 * stats.multivariate_t([0, 0], np.eye(2), df=8).pdf(u[:50])
    expected += 0.7 * stats.multivariate_t([4, 1], [[1, 0.6], [0.6, 1]], df=8).pdf(u[:50])
    np.testing.assert_allclose(np.exp(truth.log_density(u[:50])), expected, rtol=1e-10)
    found = fit(u, np.full(len(u), 1 / len(u)), 2, 8.0, rng)
    gain = np.mean(truth.log_density(u) - found.log_density(u))
    assert abs(gain) < 0.01


# --- the whole sampler ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def few():
    """Four subjects, three rows each: two variance parameters, whose posterior is integrated on a grid."""
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(4), 3)
    y = 10 + rng.normal(size=4)[g] * 0.3 + rng.normal(size=12)
    model = bl.LMM("y ~ 1 + (1 | g)", {"y": y, "g": g.astype(str)})
    priors = resolve_priors(model, {"sd_g": HalfCauchy(1.0), "sigma": HalfNormal(2.0)})
    target, summits = modes(Target.of(model, priors), model)
    axis = np.linspace(-4.5, 4.5, 400)
    u = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    density = target.many(u).value
    top = density.max()
    mass = np.exp(density - top)
    cell = (axis[1] - axis[0]) ** 2
    θ = target.coordinates.many(u)[0]
    return model, priors, target, summits, np.log(mass.sum() * cell) + top, mass / mass.sum(), np.sqrt(θ)


@pytest.mark.parametrize("trusted", [0.7, -10.0], ids=["importance", "chains"])
def test_draws_and_evidence_agree_with_quadrature(few, trusted, monkeypatch):
    monkeypatch.setattr(search_module, "KHAT", trusted)
    _, _, target, summits, evidence, mass, sd = few
    found = search(target, summits, 4000, np.random.default_rng(1))
    assert found.method == ("importance" if trusted > 0 else "ensemble")
    assert found.log_evidence == pytest.approx(evidence, abs=5 * found.evidence_error + 1e-4)
    assert found.evidence_error < 0.02
    drawn = np.sqrt(found.draws.θ)
    for k in range(2):
        order = np.argsort(sd[:, k])
        exact = np.cumsum(mass[order])
        below = np.interp(drawn[:, k], sd[order, k], exact)  # uniform if the draws are right
        assert stats.kstest(below, "uniform").statistic < 2.2 / np.sqrt(4000)


def test_ridges_towards_the_border_are_seen():
    """Measurement error that the serial process can stand in for: 0.35 % of the posterior lie below 0.5, mean 2.44.

    From the summit that is eight standard deviations away, along a ridge that curves; weights of proposals that miss it
    look as good as any. The sd and the share are those of 160,000 draws of NUTS (0.519; 0.35 % with a standard error of 0.06 %).
    """
    model = bl.LMM("weight ~ Time * Diet + (Time | Rat)", bl.load_dataset("bodyweight"),
                   residual=bl.Exponential("Time") + bl.Independent())  # fmt: skip
    target, summits = modes(Target.of(model, resolve_priors(model, None)), model)
    found = scouts(target, summits[0])
    sigma = model.covariance.names.index("sigma")
    assert sigma == len(summits[0].u) - 1
    low = min(found, key=lambda m: m.u[sigma])
    assert low.u[sigma] - summits[0].u[sigma] == pytest.approx(-2.4)
    assert low.value > summits[0].value - 10
    straight = summits[0].u.copy()
    straight[sigma] = low.u[sigma]
    assert target.many(straight[None]).value[0] < low.value - 3  # without following the ridge
    draws = model.sample(draws=5000, random_seed=1, prior_draws=0, effects=False).posterior["sigma"].values
    assert draws.std() == pytest.approx(0.519, abs=0.013)
    assert np.mean(draws < 0.5) == pytest.approx(0.0035, abs=0.0016)


def test_numbers_beyond_floating_point_have_no_density(few):
    target, summits = few[2], few[3]
    away = np.concatenate([np.zeros(1), np.linspace(6.4, 7.9, 2000), [-7.9]])
    value = target.many(summits[0].u + away[:, None]).value
    assert np.isfinite(value[0])
    assert (value[1:] < value[0] - 100).all()


def test_who_took_over_is_said(few, monkeypatch):
    model = few[0]
    monkeypatch.setattr(search_module, "KHAT", -10.0)
    with pytest.warns(bl.ConvergenceNote, match=r"not to be trusted.*ensemble of Markov chains: \d+ steps"):
        tree = model.sample(draws=100, random_seed=1, prior_draws=0, progressbar=False)
    assert tree.attrs["method"] == "ensemble of Markov chains"
    assert "ensemble of Markov chains" in tree.attrs["steps"]


def test_a_bar_appears_where_it_takes_long(few, monkeypatch):
    from bayeslmm.hierarchical import patience

    heard = []
    monkeypatch.setattr(patience.Progress, "update", lambda self, task, completed: heard.append(completed))
    few[0].sample(draws=100, random_seed=1, prior_draws=0)
    assert not heard
    monkeypatch.setattr(patience, "_SECONDS", 0.0)
    few[0].sample(draws=100, random_seed=1, prior_draws=0)
    assert heard
    assert max(heard) == 1.0
    heard.clear()
    few[0].sample(draws=100, random_seed=1, prior_draws=0, progressbar=False)
    assert not heard


def test_tree_is_complete(sleepstudy, tmp_path):
    import arviz as az
    import xarray as xr

    tree = sample_collapsed(sleepstudy, draws=500, random_seed=3)
    assert set(tree.children) == {"posterior", "sample_stats", "log_likelihood", "log_prior", "prior",
        "prior_predictive", "posterior_predictive", "observed_data", "constant_data"}  # fmt: skip
    sizes = {"chain": 4, "draw": 500, "coef": 2, "effect": 2, "effect_": 2, "Subject": 18}
    assert dict(tree.posterior.sizes) == sizes
    assert set(tree.posterior.data_vars) == {"beta", "sd_Subject", "corr_Subject", "sigma", "w_Subject"}
    assert tree.attrs["khat"] < 0.5
    assert tree.attrs["ess"] > 2000
    names = ["beta", "sd_Subject", "sigma", "w_Subject"]
    ess = az.ess(tree, var_names=names)
    assert min(float(ess[n].min()) for n in names) > 1500
    fit = sleepstudy.fit()
    np.testing.assert_allclose(tree.posterior["beta"].mean(("chain", "draw")), fit.beta, atol=0.6)
    again = sample_collapsed(sleepstudy, draws=500, random_seed=3)
    xr.testing.assert_identical(again.posterior["w_Subject"].variable, tree.posterior["w_Subject"].variable)
    tree.to_netcdf(tmp_path / "draws.nc")
    loaded = xr.open_datatree(tmp_path / "draws.nc")
    np.testing.assert_array_equal(loaded.posterior["beta"], tree.posterior["beta"])
    assert loaded.attrs["log_evidence"] == tree.attrs["log_evidence"]
    loaded.close()


def test_subjects_of_one_row_have_their_place_beside_longer_ones():
    """Groups of a correlated residual where batches have one, two, ... rows a subject."""
    data = bl.load_dataset("orthodont")
    some = data.groupby("Subject").cumcount() < data.groupby("Subject").ngroup() % 4 + 1
    model = bl.LMM("distance ~ age", data[some], residual=bl.Unstructured("age", subject="Subject"))
    tree = sample_collapsed(model, draws=3, chains=1, random_seed=1, prior_draws=0)
    fit = model.fit()
    subjects = list(data["Subject"].unique())
    assert sorted(tree.log_likelihood["Subject"].values) == sorted(subjects)
    post = tree.posterior.to_dataset().isel(chain=0, draw=2)
    sd, corr = post["sigma"].values, post["corr"].values
    R = corr * np.outer(sd, sd)
    ages = list(post["sigma"].coords[post["sigma"].dims[0]].values.astype(float))
    for s in (subjects[0], subjects[1], subjects[7]):
        rows = np.flatnonzero((fit.model.design.frame["Subject"] == s).to_numpy())
        at = [ages.index(a) for a in fit.model.design.frame["age"].iloc[rows]]
        r = model.design.y[rows] - model.design.X[rows] @ post["beta"].values
        exact = stats.multivariate_normal.logpdf(r, cov=R[np.ix_(at, at)])
        found = float(tree.log_likelihood["distance"].sel(Subject=s).isel(chain=0, draw=2))
        assert found == pytest.approx(exact, rel=1e-9)
    assert np.isfinite(tree.posterior_predictive["distance"]).all()


def test_without_w_there_are_the_parameters_and_w_on_demand(sleepstudy):
    tree = sample_collapsed(sleepstudy, draws=50, effects=False, random_seed=3)
    assert "w_Subject" not in tree.posterior
    assert "log_likelihood" not in tree.children
    assert tree.attrs["left_out"] == "log_likelihood, posterior_predictive, prior_predictive"
    assert bl.random_effect_draws(sleepstudy, tree, ["308"], random_seed=1)["w_Subject"].shape == (4, 50, 1, 2)


def test_w_as_a_stream(sleepstudy):
    tree = sample_collapsed(sleepstudy, draws=1000, effects=False, random_seed=3, prior_draws=0)
    parts = list(bl.random_effect_chunks(sleepstudy, tree, size=7, random_seed=1))
    assert [p.sizes["Subject"] for p in parts] == [7, 7, 4]
    whole = bl.random_effect_draws(sleepstudy, tree, random_seed=2)["w_Subject"]
    joined = np.concatenate([p["w_Subject"].values for p in parts], axis=2)
    assert np.concatenate([p["Subject"].values for p in parts]).tolist() == whole["Subject"].values.tolist()
    sd = whole.std(("chain", "draw")).values
    np.testing.assert_array_less(np.abs(joined.mean((0, 1)) - whole.values.mean((0, 1))), 5 * sd * np.sqrt(2 / 4000))
    found = bl.random_effect_summary(sleepstudy, tree, ["370", "308"], random_seed=4, level=0.5, progress=False)
    assert found.index.get_level_values(0).tolist() == ["370", "370", "308", "308"]
    own = whole.sel(Subject="308").isel({whole.dims[-1]: 1}).values.ravel()
    row = found.loc["308"].iloc[1]
    exact = [own.mean(), own.std(), *np.quantile(own, [0.25, 0.75])]
    np.testing.assert_allclose(row, exact, atol=6 * own.std() / np.sqrt(4000))
    with pytest.raises(bl.InferenceError, match="at least one"):
        bl.random_effect_chunks(sleepstudy, tree, size=0)
    with pytest.raises(bl.InferenceError, match="subjects is empty"):
        bl.random_effect_summary(sleepstudy, tree, [])
    with pytest.raises(bl.InferenceError, match="between 0 and 1"):
        bl.random_effect_summary(sleepstudy, tree, level=95)
    with pytest.raises(bl.InferenceError, match="random_effect_draws"):
        bl.compare(sleepstudy.fit(), tree)


def test_a_subject_named_twice_is_drawn_once(sleepstudy):
    tree = sample_collapsed(sleepstudy, draws=20, effects=False, random_seed=3, prior_draws=0)
    w = bl.random_effect_draws(sleepstudy, tree, ["308", 335, "308"], random_seed=1)["w_Subject"]
    assert w["Subject"].values.tolist() == ["308", "335"]
    assert (w.std(("chain", "draw")) > 0).all()
    xr.testing.assert_equal(w.sel(Subject=["335"]).Subject, bl.random_effect_draws(sleepstudy, tree, 335).Subject)


@pytest.mark.parametrize("first", ["plate", "sample"])
def test_crossed_factors_come_with_every_part(first):
    other = {"plate": "sample", "sample": "plate"}[first]
    model = bl.LMM(f"diameter ~ 1 + (1 | {first}) + (1 | {other})", bl.load_dataset("penicillin"))
    tree = sample_collapsed(model, draws=20, effects=False, random_seed=1, prior_draws=0)
    for part in bl.random_effect_chunks(model, tree, size=5, random_seed=1):
        assert part.sizes[other] == model.fit().w[other].sizes[other]
        assert (part[f"w_{other}"].std(("chain", "draw")) > 0).all()


def test_a_model_without_fixed_effects():
    model = bl.LMM("Reaction ~ 0 + offset(250 + 0 * Days) + (Days | Subject)", bl.load_dataset("sleepstudy"))
    fit, tree = model.fit(), model.sample(draws=200, random_seed=1)
    assert (bl.explained_variance(model, tree)["r2_marginal"] == 0).all()
    assert bl.random_effect_summary(model, tree, progress=False).shape == (36, 4)
    assert "sd_Subject[Days]" in str(bl.compare(fit, tree))
    ahead = bl.posterior_predict(model, tree, bl.load_dataset("sleepstudy").head(3))
    assert ahead["predictions"].sizes["obs"] == 3
    assert len(bl.sbc(model, 2, draws=9, seed=1).ranks.columns) == 6


def test_what_cannot_be_sampled_is_refused(sleepstudy):
    with pytest.raises(bl.SamplingError, match="sampler='nuts'"):
        sample_collapsed(sleepstudy, priors={"Days": StudentT(3, 0, 10)})
    with pytest.raises(bl.SamplingError, match="at least 1"):
        sample_collapsed(sleepstudy, draws=0)
    signed = bl.LMM("Reaction ~ Days + (1 | Subject)", bl.load_dataset("sleepstudy"), signed=True)
    with pytest.raises(bl.SamplingError, match="signed"):
        sample_collapsed(signed)
