"""The PyMC model against the marginal likelihood, without sampling.

Given β and θ the joint density of (y, w) is the exponential of a quadratic form in w. One Newton step finds
its maximum, and the Gaussian integral over w is log p(y, ŵ) + (d/2) log 2π - ½ log|H|: it must be the
marginal log-likelihood at the same β and θ, which scipy's dense normal and the package's own kernel give
independently.
"""

import numpy as np
import pymc as pm
import pytensor
import pytest
import xarray as xr
from pytensor.compile.mode import Mode
from scipy import stats

import bayeslmm.covariance as cov
from bayeslmm.covariance import Rows
from bayeslmm.datasets import load_dataset
from bayeslmm.draws import linear_draws
from bayeslmm.errors import SamplingError
from bayeslmm.hierarchical import HalfNormal, Normal, StudentT, build
from bayeslmm.kernel.blocks import arrange
from bayeslmm.kernel.likelihood import evaluate
from bayeslmm.model import LMM

PLAIN = Mode(linker="py", optimizer=None)  # nothing is compiled: a few evaluations are all that is needed
NUGGET = cov.Independent()
EXACT = 1e-8  # relative to the log-likelihood

FORMULAS = {
    "correlated": ("sleepstudy", "Reaction ~ Days + (Days | Subject)"),
    "uncorrelated": ("sleepstudy", "Reaction ~ Days + (Days || Subject)"),
    "two bars": ("sleepstudy", "Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)"),
    "slope only": ("sleepstudy", "Reaction ~ Days + (0 + Days | Subject)"),
    "diag": ("sleepstudy", "Reaction ~ Days + diag(Days | Subject)"),
    "cs": ("sleepstudy", "Reaction ~ Days + cs(Days | Subject)"),
    "quadratic": ("sleepstudy", "Reaction ~ poly(Days, 2) + (Days + I(Days**2) | Subject)"),
    "offset": ("sleepstudy", "Reaction ~ Days + offset(10 * Days) + (Days | Subject)"),
    "no intercept": ("sleepstudy", "Reaction ~ 0 + Days + (Days | Subject)"),
    "nested": ("machines", "score ~ Machine + (1 | Worker) + (1 | Worker:Machine)"),
    "factor in Z": ("machines", "score ~ Machine + (0 + Machine | Worker)"),
    "cs of a factor": ("machines", "score ~ Machine + cs(0 + Machine | Worker)"),
    "ar1 of a factor": ("machines", "score ~ Machine + ar1(0 + Machine | Worker)"),
    "slash": ("pastes", "strength ~ 1 + (1 | batch/cask)"),
    "crossed": ("penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)"),
    "intercept": ("dyestuff", "Yield ~ 1 + (1 | Batch)"),
    "slope": ("oxboys", "height ~ age + (age | Subject)"),
    "factor in X": ("orthodont", "distance ~ age * Sex + (age | Subject)"),
    "factors in both": ("orthodont", "distance ~ age * C(Sex, contr.sum) + (0 + Sex | age) + (1 | Subject)"),
}
RESIDUALS = {
    "by": ("orthodont", "distance ~ age * Sex + (1 | Subject)", cov.Independent(by="Sex")),
    "power": ("orthodont", "distance ~ age * Sex + (1 | Subject)", cov.Independent(power="age")),
    "power by": ("orthodont", "distance ~ Sex + (1 | Subject)", cov.Independent(power="age", by="Sex")),
    "cs": ("orthodont", "distance ~ age * Sex", cov.CompoundSymmetry("age", subject="Subject")),
    "csh": ("orthodont", "distance ~ age", cov.CompoundSymmetry("age", by="age", subject="Subject")),
    "unstructured": ("orthodont", "distance ~ age", cov.Unstructured("age", subject="Subject")),
    "unstructured by": ("orthodont", "distance ~ age", cov.Unstructured("age", by="Sex", subject="Subject")),
    "ar1": ("orthodont", "distance ~ age + (1 | Subject)", cov.AR1("age")),
    "ar1h": ("orthodont", "distance ~ age", cov.AR1("age", by="age", subject="Subject")),
    "toeplitz": ("orthodont", "distance ~ age", cov.Toeplitz("age", subject="Subject")),
    "antedependence": ("orthodont", "distance ~ age", cov.Antedependence("age", by="age", subject="Subject")),
    "order": ("ovary", "follicles ~ sin(2*pi*Time) + cos(2*pi*Time) + (1 | Mare)", cov.AR1()),
    "car1": ("ovary", "follicles ~ sin(2*pi*Time) + (1 | Mare)", cov.Exponential("Time")),
    "three parts": ("bodyweight", "weight ~ Time * Diet + (Time | Rat)", cov.Exponential("Time") + NUGGET),
    "gaussian": ("bodyweight", "weight ~ Time + (1 | Rat)", cov.Gaussian("Time") + cov.Independent()),
    "matern32": ("bodyweight", "weight ~ 1 + (1 | Rat)", cov.Matern32("Time") + cov.Independent(by="Diet")),
    "matern52": ("bodyweight", "weight ~ Time", cov.Matern52("Time", subject="Rat") + cov.Independent()),
    "spherical": ("bodyweight", "weight ~ Time", cov.Spherical("Time", subject="Rat") + cov.Independent()),
    "within rats, crossed": (
        "bodyweight", "weight ~ 1 + (1 | Rat) + (1 | Time)", cov.Exponential("Time", subject="Rat") + NUGGET),
}  # fmt: skip


class Laplace:
    """log ∫ p(y, w | β, θ) dw of a PyMC model at a random β and θ, with the natural parameters there."""

    def __init__(self, model, parametrization, seed, **kwargs):
        self.model = model
        self.built = build(model, parametrization, **kwargs)
        effects = [v for v in self.built.free_RVs if v.name.startswith(("z_", "w_"))]
        values = [self.built.rvs_to_values[v] for v in effects]
        joint = self.built.logp(vars=[*self.built.observed_RVs, *effects], jacobian=False)
        shown = [
            v
            for v in self.built.unobserved_RVs
            if v not in effects and not v.name.startswith(("w_", "chol_"))
        ]
        gradient = pytensor.grad(joint, values) if values else []
        outs = [joint, *gradient, *self.built.replace_rvs_by_values(shown)]
        self.f = pytensor.function(self.built.value_vars, outs, mode=PLAIN, on_unused_input="ignore")
        rng = np.random.default_rng(seed)
        self.point = {k: v + 0.3 * rng.normal(size=v.shape) for k, v in self.built.initial_point().items()}
        self.names, self.shown = [v.name for v in values], [v.name for v in shown]

    def at(self, w=None):
        """(log density, its gradient in w, other variables)."""
        point, start = dict(self.point), 0
        for name in self.names:
            shape = point[name].shape
            size = int(np.prod(shape))
            point[name] = np.zeros(shape) if w is None else w[start : start + size].reshape(shape)
            start += size
        value, *rest = self.f(**point)
        k = len(self.names)
        gradient = np.concatenate([g.ravel() for g in rest[:k]]) if k else np.zeros(0)
        return float(value), gradient, rest[k:]

    def integral(self):
        _, g0, _ = self.at()
        d = len(g0)
        H = np.array([self.at(e)[1] - g0 for e in np.eye(d)]).reshape(d, d)
        top, g, _ = self.at(-np.linalg.solve(H, g0) if d else None)
        assert np.abs(g).max(initial=0) < 1e-6 * np.abs(g0).max(initial=1)
        return top + 0.5 * d * np.log(2 * np.pi) - 0.5 * np.linalg.slogdet(-H)[1]

    def draws(self):
        """The point as a posterior of one draw."""
        dims, coords = self.built.named_vars_to_dims, self.built.coords
        variables = {
            name: (("chain", "draw", *dims.get(name, ())), np.asarray(x)[None, None])
            for name, x in zip(self.shown, self.at()[2], strict=True)
        }
        used = {d for own, _ in variables.values() for d in own[2:]}
        return xr.Dataset(variables, coords={d: list(coords[d]) for d in used})


def dense_covariance(model, θ):
    """V = ZGZ' + R over all rows, from the definition."""
    n = len(model.design.y)
    V = np.zeros((n, n))
    for term, G in zip(model.design.terms, model.covariance.G(θ), strict=True):
        V += term.Z @ G @ term.Z.T * (term.codes[:, None] == term.codes)
    same = (
        np.eye(n)
        if model.residual.subject is None
        else model.residual.subject[:, None] == model.residual.subject
    )
    rows = tuple(
        Rows(*(None if a is None else a[None] for a in (r.position, r.time, r.level, r.log_covariate)),
             weight=None if r.weight is None else r.weight[None])
        for r in model.residual.rows
    )  # fmt: skip
    return V + model.covariance.R(θ, rows)[0] * same


def check(model, parametrization, seed=1, **kwargs):
    laplace = Laplace(model, parametrization, seed, **kwargs)
    draws = laplace.draws()
    θ, beta = linear_draws(model, draws)[0], draws["beta"].values[0, 0]
    y, X = model.design.y - model.design.offset, model.design.X
    V = dense_covariance(model, θ)
    expected = stats.multivariate_normal(X @ beta, V).logpdf(y)
    assert laplace.integral() == pytest.approx(expected, rel=EXACT)

    blocks = arrange(model.design, model.covariance, model.residual)
    kernel = evaluate(blocks, model.covariance, θ / blocks.unit, reml=False, order=0)
    best = blocks.center + blocks.y_scale * np.linalg.solve(blocks.basis, kernel.beta)
    lost = X @ (
        beta - best
    )  # the kernel maximises over β: the density at another β is lower by a quadratic form
    assert kernel.value - 0.5 * lost @ np.linalg.solve(V, lost) == pytest.approx(expected, rel=EXACT)


@pytest.mark.parametrize("parametrization", ["noncentered", "centered"])
@pytest.mark.parametrize("name", FORMULAS)
def test_integral_over_w_is_the_marginal_likelihood(name, parametrization):
    data, formula = FORMULAS[name]
    check(LMM(formula, load_dataset(data)), parametrization)


@pytest.mark.parametrize("name", RESIDUALS)
def test_the_same_for_every_residual(name):
    data, formula, residual = RESIDUALS[name]
    check(LMM(formula, load_dataset(data), residual=residual), "noncentered")


@pytest.mark.parametrize("residual", [cov.Independent(), cov.Exponential("Time") + cov.Independent()])
def test_the_same_with_weights_and_missing_rows(residual):
    data = load_dataset("bodyweight").drop(index=[0, 3, 17, 40, 41, 99])  # patterns of several sizes
    data["precision"] = np.random.default_rng(1).uniform(0.5, 2, len(data))
    check(LMM("weight ~ Time + (Time | Rat)", data, residual=residual, weights="precision"), "noncentered")


def test_the_same_for_sizes_that_differ_much():
    rng = np.random.default_rng(2)
    data = (
        load_dataset("ovary").groupby("Mare").sample(frac=1.0, random_state=1).sort_values(["Mare", "Time"])
    )
    data = data[rng.uniform(size=len(data)) < np.where(data["Mare"].isin(["1", "2", "3", "4"]), 0.15, 0.9)]
    check(
        LMM("follicles ~ Time + (1 | Mare)", data, residual=cov.Exponential("Time") + NUGGET),
        "centered",
    )


def test_priors_do_not_enter_the_likelihood():
    priors = {"sd_Subject[Days]": HalfNormal(3), "Days": StudentT(4, 5, 10), "sigma": HalfNormal(20)}
    model = LMM("Reaction ~ Days + (Days | Subject)", load_dataset("sleepstudy"))
    check(model, "noncentered", priors=priors)


# --- names ------------------------------------------------------------------------------------------------


def test_names_dims_and_coords():
    built = build(LMM("Reaction ~ Days + (Days | Subject)", load_dataset("sleepstudy")))
    assert built.named_vars_to_dims["beta"] == ("coef",)
    assert built.named_vars_to_dims["sd_Subject"] == ("effect",)
    assert built.named_vars_to_dims["corr_Subject"] == ("effect", "effect_")
    assert built.named_vars_to_dims["w_Subject"] == ("Subject", "effect")
    assert built.named_vars_to_dims["Reaction"] == ("obs",)
    assert built.coords["coef"] == ("Intercept", "Days")
    assert built.coords["Subject"][:2] == ("308", "309")
    assert [v.name for v in built.free_RVs] == [
        "beta",
        "sd_Subject",
        "chol_corr_Subject",
        "sigma",
        "z_Subject",
    ]


def test_bars_of_one_group_share_their_variables():
    built = build(LMM("Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)", load_dataset("sleepstudy")))
    assert "corr_Subject" not in built.named_vars
    assert built.initial_point()["sd_Subject_log__"].shape == (2,)


def test_groups_with_different_effects_have_their_own_dimension():
    built = build(LMM(FORMULAS["factors in both"][1], load_dataset("orthodont")))
    assert built.named_vars_to_dims["w_age"] == ("age", "effect_age")
    assert built.named_vars_to_dims["w_Subject"] == ("Subject", "effect_Subject")


def test_residual_parameters_by_level():
    data = load_dataset("orthodont")
    built = build(LMM("distance ~ age + (1 | Subject)", data, residual=cov.Independent(by="Sex")))
    assert built.named_vars_to_dims["sigma"] == ("Sex",)
    built = build(LMM("distance ~ age", data, residual=cov.Unstructured("age", subject="Subject")))
    assert built.named_vars_to_dims["corr"] == ("age", "age_")


# --- refusals ---------------------------------------------------------------------------------------------


def test_negative_variances_have_no_hierarchical_model():
    model = LMM("Reaction ~ Days + (1 | Subject)", load_dataset("sleepstudy"), signed=True)
    with pytest.raises(SamplingError, match="no random effects"):
        build(model)


def test_unknown_parametrization():
    model = LMM("Reaction ~ Days + (1 | Subject)", load_dataset("sleepstudy"))
    with pytest.raises(SamplingError, match="'noncentered'"):
        build(model, "sideways")


def test_a_response_named_like_a_parameter():
    data = load_dataset("sleepstudy").rename(columns={"Reaction": "sigma"})
    with pytest.raises(SamplingError, match="rename"):
        build(LMM("sigma ~ Days + (1 | Subject)", data))


# --- PyMC's own functions -----------------------------------------------------------------------------------


def test_predictive_draws_by_pymc_have_the_right_moments():
    data = load_dataset("bodyweight")
    residual = cov.Exponential("Time") + cov.Independent()
    model = LMM("weight ~ Time + (1 | Rat)", data, residual=residual)
    priors = {"Intercept": Normal(380, 1e-3), "Time": Normal(1, 1e-6), "sigma": HalfNormal(1e-3)}
    with build(model, priors=priors) as built:
        drawn = pm.sample_prior_predictive(20, random_seed=1, compile_kwargs={"mode": PLAIN})
    y = drawn["prior_predictive"]["weight"].values[0]
    w = drawn["prior"]["w_Rat"].values[0, :, :, 0]
    codes = model.design.terms[0].codes
    centre = 380 + data["Time"].to_numpy() - data["Time"].mean()
    scaled = (y - centre - w[:, codes]) / drawn["prior"]["sigma_serial"].values[0][:, None]
    assert built["weight"].ndim == 1
    assert np.mean(scaled**2) == pytest.approx(1, abs=0.15)
    pairs = scaled.reshape(20, 16, 11)  # rows are sorted by rat, then by time
    assert np.corrcoef(pairs[:, :, 5].ravel(), pairs[:, :, 6].ravel())[0, 1] > 0.3
