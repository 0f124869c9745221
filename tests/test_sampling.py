"""NUTS on sleepstudy, the groups of the result, and what ArviZ does with them."""

import os
import signal
import threading
import time

import arviz as az
import matplotlib
import numpy as np
import pymc as pm
import pytest
import xarray as xr
from pytensor.compile.mode import Mode

import bayeslmm.covariance as cov
from bayeslmm.datasets import load_dataset
from bayeslmm.errors import SamplingError
from bayeslmm.hierarchical import Flat, build, default_priors, sample
from bayeslmm.hierarchical.groups import complete
from bayeslmm.model import LMM

matplotlib.use("Agg")
PLAIN = Mode(linker="py", optimizer=None)


@pytest.fixture(scope="module")
def model():
    return LMM("Reaction ~ Days + (Days | Subject)", load_dataset("sleepstudy"))


@pytest.fixture(scope="module")
def tree(model):
    return sample(model, draws=1000, tune=1000, chains=4, random_seed=20, progressbar=False)


# --- the draws --------------------------------------------------------------------------------------------


def test_chains_agree_without_divergences(tree):
    free = tree["posterior"].to_dataset().drop_vars("corr_Subject")
    free["rho"] = tree["posterior"]["corr_Subject"][..., 0, 1].drop_vars(["effect", "effect_"])
    assert int(tree["sample_stats"]["diverging"].sum()) == 0
    for name, values in az.rhat(free).data_vars.items():
        assert float(values.max()) <= 1.01, name
    for method in ("bulk", "tail"):
        for name, values in az.ess(free, method=method).data_vars.items():
            assert float(values.min()) > 400, name


def test_posterior_means_of_beta_are_those_of_least_squares(model, tree):
    # Every person was measured on the same days: generalised least squares is ordinary least squares whatever
    # the variances, and the wide prior pulls by less than 0.1 % of the posterior sd.
    expected = np.linalg.lstsq(model.design.X, model.design.y, rcond=None)[0]
    beta = tree["posterior"]["beta"]
    error = az.mcse(tree["posterior"].to_dataset()[["beta"]], method="mean")["beta"].values
    assert (np.abs(beta.mean(("chain", "draw")).values - expected) < 4 * error).all()


def test_effects_and_coefficients_belong_together(model, tree):
    # w = Λ z as PyMC computed it has the covariance that sd and corr of the same draw say.
    draws = tree["posterior"]
    w = draws["w_Subject"].values.reshape(-1, 18, 2)
    sd = draws["sd_Subject"].values.reshape(-1, 2)
    z = w / sd[:, None]
    rho = draws["corr_Subject"].values[..., 0, 1].ravel()
    assert np.isfinite(z).all()
    assert np.corrcoef(rho, (z[..., 0] * z[..., 1]).mean(axis=1))[0, 1] > 0.5


# --- the groups -------------------------------------------------------------------------------------------


def test_groups_dims_and_facts(tree):
    assert list(tree.children) == [
        "posterior", "sample_stats", "log_likelihood", "log_prior", "posterior_predictive", "prior",
        "prior_predictive", "observed_data", "constant_data"]  # fmt: skip
    assert list(tree["posterior"].data_vars) == ["beta", "sd_Subject", "sigma", "corr_Subject", "w_Subject"]
    assert tree["posterior"]["w_Subject"].dims == ("chain", "draw", "Subject", "effect")
    assert tree["log_likelihood"]["Reaction"].dims == ("chain", "draw", "obs")
    assert tree.attrs["formula"] == "Reaction ~ Days + (Days | Subject)"
    assert tree.attrs["random_seed"] == 20
    assert tree.attrs["sampling_time"] > 0
    assert {"sampler", "priors", "inference_library_version"} <= set(tree.attrs)


def test_densities_are_those_of_pymc(model, tree):
    few = tree.isel(chain=[0], draw=slice(0, 3))
    built = build(model)
    beta, sd, sigma, z, L = (built.rvs_to_values[built[v]] for v in (
        "beta", "sd_Subject", "sigma", "z_Subject", "chol_corr_Subject"))  # fmt: skip
    parts = built.logp(
        vars=[built[v] for v in ("Reaction", "beta", "sd_Subject", "sigma")], jacobian=False, sum=False
    )
    f = built.compile_fn(parts, inputs=[beta, sd, sigma, z, L], mode=PLAIN, on_unused_input="ignore")
    draws = few["posterior"]
    for i in range(3):
        at = draws.isel(chain=0, draw=i)
        corr = np.linalg.cholesky(at["corr_Subject"].values)
        Λ = at["sd_Subject"].values[:, None] * corr
        values = f({
            beta.name: np.linalg.solve(built.rvs_to_transforms[built["beta"]].root, at["beta"].values),
            sd.name: np.log(at["sd_Subject"].values), sigma.name: np.log(at["sigma"].values),
            z.name: np.linalg.solve(Λ, at["w_Subject"].values.T).T, L.name: np.arctanh(corr[[1], [0]]),
        })  # fmt: skip
        np.testing.assert_allclose(few["log_likelihood"]["Reaction"].values[0, i], values[0], rtol=1e-9)
        for name, value in zip(("beta", "sd_Subject", "sigma"), values[1:], strict=True):
            assert few["log_prior"][name].values[0, i] == pytest.approx(value.sum(), abs=1e-8)


def test_predictions_have_the_moments_of_the_model(model, tree):
    y, predicted = model.design.y, tree["posterior_predictive"]["Reaction"].values.reshape(-1, 180)
    assert np.mean((predicted.mean(axis=0) - y) ** 2) < 28**2
    inside = (y > np.quantile(predicted, 0.05, axis=0)) & (y < np.quantile(predicted, 0.95, axis=0))
    assert 0.85 < inside.mean() < 0.98
    prior = tree["prior"]
    assert prior.sizes["draw"] == 500
    level = (prior["beta"].values @ model.design.X.mean(axis=0)).ravel()
    assert level.mean() == pytest.approx(y.mean(), abs=4 * 10 * y.std(ddof=1) / np.sqrt(500))


def test_pymc_predicts_from_the_result(model, tree):
    # Internal coordinates are not part of the result: PyMC starts from the centred form, with w a variable.
    with build(model, "centered"):
        few = xr.DataTree.from_dict({"/posterior": tree["posterior"].to_dataset().isel(draw=slice(0, 50))})
        few = with_factors(few)
        drawn = pm.sample_posterior_predictive(
            few, random_seed=1, progressbar=False, compile_kwargs={"mode": PLAIN}
        )
    ours = tree["posterior_predictive"]["Reaction"].values.reshape(-1, 180)
    theirs = drawn["posterior_predictive"]["Reaction"].values.reshape(-1, 180)
    assert np.abs(theirs.mean(axis=0) - ours.mean(axis=0)).max() < 15
    assert theirs.std(axis=0).mean() == pytest.approx(ours.std(axis=0).mean(), rel=0.1)


def with_factors(tree):
    """The posterior with the Cholesky factor of the correlation, as PyMC names it."""
    posterior = tree["posterior"].to_dataset()
    dims = ("chain", "draw", "effect", "effect_")
    factor = np.linalg.cholesky(posterior["corr_Subject"].values)
    return xr.DataTree.from_dict({"/posterior": posterior.assign(chol_corr_Subject=(dims, factor))})


# --- ArviZ ------------------------------------------------------------------------------------------------


def test_arviz_takes_the_tree(tree):
    table = az.summary(tree, var_names=["beta", "sd_Subject", "sigma"])
    assert list(table.index)[:2] == ["beta[Intercept]", "beta[Days]"]
    with pytest.warns(UserWarning, match="Pareto"):  # two outlying measurements, known from the literature
        assert az.loo(tree).n_data_points == 180
    assert len(az.psense_summary(tree, var_names=["beta", "sigma"])) == 3
    az.plot_trace(tree, var_names=["beta"])
    az.plot_rank(tree, var_names=["sigma"])
    az.plot_ppc_dist(tree, num_samples=20)


# --- other implementations of NUTS, where they are installed ------------------------------------------------


# Not in the test extra: where nutpie is installed PyMC takes it for every model, and its own sampler would go untested.
OPTIONAL = "an optional sampler, to be installed beside the test extra"


@pytest.fixture(scope="module")
def exact():
    model = LMM("Reaction ~ Days + (Days | Subject)", load_dataset("sleepstudy"))
    return model, model.sample(draws=2000, random_seed=1, prior_draws=0)


@pytest.mark.parametrize("parametrization", ["noncentered", "centered", "marginal"])
@pytest.mark.parametrize("package", ["nutpie", "numpyro"])
@pytest.mark.filterwarnings("default")  # of the packages: nobody here can act on them
def test_other_samplers_give_the_same_tree(package, parametrization, exact, tmp_path):
    pytest.importorskip(package, reason=OPTIONAL)
    model, expected = exact
    tree = model.sample("nuts", nuts_sampler=package, parametrization=parametrization, draws=500, tune=500,
                        chains=2, random_seed=3, progressbar=False, prior_draws=20)  # fmt: skip
    assert tree.attrs["sampler"] == f"nuts ({package})"
    assert {"diverging", "energy", "n_steps"} <= set(tree["sample_stats"].data_vars)
    ours, theirs = (t["posterior"].to_dataset() for t in (expected, tree))
    assert {n: set(v.dims) for n, v in theirs.items()} == {n: set(v.dims) for n, v in ours.items()}
    for name in ("beta", "sd_Subject", "sigma", "w_Subject"):
        error = np.hypot(az.mcse(theirs)[name], az.mcse(ours)[name])
        away = (theirs[name] - ours[name].mean(("chain", "draw"))).mean(("chain", "draw")) / error
        assert float(np.abs(away).max()) < 5, name
    tree.to_netcdf(tmp_path / "draws.nc")
    with xr.open_datatree(tmp_path / "draws.nc") as back:
        xr.testing.assert_equal(back["posterior"].to_dataset().load(), theirs)
        assert az.summary(back, var_names=["beta"]).shape[0] == 2
    assert len(az.psense_summary(tree, var_names=["beta", "sigma"])) == 3


@pytest.mark.filterwarnings("default")
def test_nutpie_is_interrupted():
    pytest.importorskip("nutpie", reason=OPTIONAL)
    model = LMM("Yield ~ 1 + (1 | Batch)", load_dataset("dyestuff"))
    model.sample("nuts", nuts_sampler="nutpie", draws=20, tune=20, chains=2, progressbar=False)
    timer = threading.Timer(8.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        model.sample("nuts", nuts_sampler="nutpie", draws=3_000_000, chains=2, progressbar=False)
    timer.cancel()


# --- other models, without NUTS ----------------------------------------------------------------------------


def drawn_from_prior(model, draws=6):
    """A complete result whose posterior is made of a few points of the prior."""
    built = build(model)
    with built:
        prior = pm.sample_prior_predictive(draws, random_seed=1, compile_kwargs={"mode": PLAIN})[
            "prior"
        ].to_dataset()
    kept = prior[[v for v in prior.data_vars if not str(v).startswith(("z_", "chol_"))]]
    facts = {"sampler": "prior", "seconds": 0.0, "seed": 1}
    return complete(model, default_priors(model), {"posterior": kept}, facts, 5)


OTHERS = [
    cov.Toeplitz("age", subject="Subject"),
    cov.Unstructured("age", subject="Subject"),
    cov.Independent(by="Sex"),
]


@pytest.mark.parametrize("residual", OTHERS)
def test_groups_of_other_residuals(residual):
    model = LMM("distance ~ age * Sex", load_dataset("orthodont"), residual=residual)
    tree = drawn_from_prior(model)
    unit = "obs" if isinstance(residual, cov.Independent) else "Subject"
    assert tree["log_likelihood"]["distance"].dims == ("chain", "draw", unit)
    assert tree["prior_predictive"]["distance"].shape == (1, 5, 108)
    assert set(tree["prior"].data_vars) == set(tree["posterior"].data_vars)
    with build(model):
        theirs = model_density(model, tree)
    np.testing.assert_allclose(tree["log_likelihood"]["distance"].sum(unit).values[0], theirs, rtol=1e-9)


def model_density(model, tree):
    """log p(y | β, θ) by the dense definition, for each draw of the first chain."""
    from scipy import stats
    from test_pymc_model import dense_covariance

    from bayeslmm.draws import linear_draws

    θ, beta = linear_draws(model, tree["posterior"].to_dataset()), tree["posterior"]["beta"].values[0]
    return [
        stats.multivariate_normal(model.design.X @ b, dense_covariance(model, x)).logpdf(model.design.y)
        for x, b in zip(θ, beta, strict=True)
    ]


# --- refusals ---------------------------------------------------------------------------------------------


def test_unknown_sampler(model):
    with pytest.raises(SamplingError, match="'nuts'"):
        sample(model, "gibbs")


def test_improper_posterior_is_refused_before_sampling(model):
    data = load_dataset("sleepstudy")
    two = LMM("Reaction ~ Days + (1 | Subject)", data[data["Subject"].isin(["308", "309"])])
    began = time.perf_counter()
    with pytest.raises(SamplingError, match="too few"):
        sample(two, priors={"sd_Subject": Flat()})
    assert time.perf_counter() - began < 2
