"""Fixed effects as one random variable `beta`, with priors and sampling at centred columns of X."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pymc.distributions.transforms import Transform

from .algebra import matvec
from .centring import Centring, centring
from .defaults import Priors
from .dims import Dims
from .prior import Prior
from .vectors import joint

if TYPE_CHECKING:
    from ..model import LMM


def coefficients(model: LMM, priors: Priors, dims: Dims) -> Any:
    """beta (p,) on the scale of the formula; None for a model without fixed effects."""
    coefs = model.design.coefs
    if not coefs:
        return None
    dim = dims.of("coef", coefs)
    prior = joint([priors[f"beta[{c}]"] for c in coefs])
    centre = centring(model.design)
    return prior.to_pymc("beta", dims=dim) if centre.trivial else _centred(prior, centre, dim)


def _centred(prior: Prior, centre: Centring, dim: str) -> Any:
    """β = A⁻¹γ with independent priors on γ; |A| = 1, so that densities of β and γ are equal."""
    A, back = centre.A, np.linalg.inv(centre.A)
    return pm.CustomDist(
        "beta",
        back,
        dist=lambda back, size: (back * prior.dist(shape=len(A))).sum(axis=1),
        logp=lambda beta, back: prior.logp(matvec(A, beta), pt),
        signature="(p,p)->(p)",
        transform=Centred(A, back),
        class_name="CentredColumns",
        dims=dim,
    )


@dataclass(frozen=True, eq=False)
class Centred(Transform):
    """The sampler moves on γ = Aβ: level and slopes are nearly independent there."""

    A: np.ndarray
    back: np.ndarray
    name = "centred"
    ndim_supp = 1

    def forward(self, value, *inputs):
        return matvec(self.A, value)

    def backward(self, value, *inputs):
        return matvec(self.back, value)

    def log_jac_det(self, value, *inputs):
        return pt.zeros(value.shape[:-1])
