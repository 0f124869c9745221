"""LMM -> pm.Model: the hierarchical reading of the specification.

β ~ prior,  sd, correlations, ranges ~ priors,  w_i | θ ~ N(0, G),  y | β, w, θ ~ N(Xβ + Zw + offset, R)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pymc as pm

from ..errors import SamplingError
from .algebra import matvec, take
from .coefficients import coefficients
from .dims import Dims
from .hyper import declare
from .integrated import Likelihood, observe_marginally
from .naming import response_name
from .overrides import resolve_priors
from .random import random_effects
from .residual import observe

if TYPE_CHECKING:
    from ..model import LMM

PARAMETRIZATIONS = ("noncentered", "centered", "marginal")


def build(model: LMM, parametrization: str = "noncentered", priors: Any = None) -> pm.Model:
    """The hierarchical model as an ordinary pm.Model.

    Variables: beta (coef); for each grouping factor sd_<g> (effect), corr_<g> (effect, effect_) and w_<g>
    (g, effect); sigma, sigma_serial, range, ... of the residual; the response, observed, with dimension obs.
    parametrization="marginal" integrates w out of the model: `random_effect_draws` finds it afterwards; a sampler then
    starts β at the REML estimate and moves in coordinates where its covariance there is 1.

    Raises
    ------
    SamplingError
        The parametrization does not exist, a prior does not fit, or the model has no hierarchical reading
        (signed).
    """
    check(model, parametrization)
    chosen = resolve_priors(model, priors)
    design = model.design
    with pm.Model() as built:
        dims = Dims(built)
        if parametrization == "marginal":
            likelihood = Likelihood.of(model)
            beta = coefficients(model, chosen, dims, likelihood.coordinates())
            hypers = declare(model, chosen, dims)
            built.add_coord("obs", np.arange(len(design.y)))
            observe_marginally(likelihood, hypers, beta, response_name(model))
            return built
        beta = coefficients(model, chosen, dims)
        hypers = declare(model, chosen, dims)
        w = random_effects(model, hypers, parametrization, dims)
        mean = design.offset + (0.0 if beta is None else matvec(design.X, beta))
        for term, effects in zip(design.terms, w, strict=True):
            mean = mean + _contribution(term.Z, take(effects, term.codes))
        built.add_coord("obs", np.arange(len(design.y)))
        blocks = sum(len(term.blocks) for term in model.covariance.random)
        observe(model, hypers[blocks:], mean, response_name(model))
    return built


def check(model: LMM, parametrization: str) -> None:
    """Whether this model can be read hierarchically, in this parametrization."""
    if model.signed:
        raise SamplingError(
            "signed=True lets variances be negative: V is then valid, but no random effects have it as their "
            "distribution: the marginal model has no hierarchical one. Use fit(), or drop signed=True."
        )
    if parametrization not in PARAMETRIZATIONS:
        known = ", ".join(map(repr, PARAMETRIZATIONS))
        raise SamplingError(f"parametrization={parametrization!r}: there are {known}.")


def _contribution(Z: np.ndarray, effects: Any) -> Any:
    """The rows of Z w."""
    return effects[:, 0] if Z.shape[1] == 1 and (Z == 1).all() else (Z * effects).sum(axis=1)
