"""Fixed effects as one random variable `beta`, with priors at centred columns of X."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pymc.distributions.transforms import Transform

from .algebra import matvec
from .centring import centring
from .defaults import Priors
from .dims import Dims
from .prior import Prior
from .vectors import joint

if TYPE_CHECKING:
    from ..model import LMM


def coefficients(model: LMM, priors: Priors, dims: Dims, coordinates: Coordinates | None = None) -> Any:
    """beta (p,) on the scale of the formula; None for a model without fixed effects.

    coordinates: where the sampler moves; at centred columns by default.
    """
    coefs = model.design.coefs
    if not coefs:
        return None
    dim = dims.of("coef", coefs)
    prior = joint([priors[f"beta[{c}]"] for c in coefs])
    centre = centring(model.design)
    if centre.trivial and coordinates is None:
        return prior.to_pymc("beta", dims=dim)
    back = np.linalg.inv(centre.A)
    return _transformed(prior, centre.A, back, coordinates or Coordinates(np.zeros(len(coefs)), back), dim)


def _transformed(prior: Prior, A: np.ndarray, back: np.ndarray, coordinates: Coordinates, dim: str) -> Any:
    """β = A⁻¹γ with independent priors on γ; |A| = 1, so that densities of β and γ are equal."""
    return pm.CustomDist(
        "beta",
        back,
        dist=lambda back, size: (back * prior.dist(shape=len(A))).sum(axis=1),
        logp=lambda beta, back: prior.logp(matvec(A, beta), pt),
        signature="(p,p)->(p)",
        transform=coordinates,
        support_point=coordinates.start,
        class_name="CentredColumns",
        dims=dim,
    )


@dataclass(frozen=True, eq=False)
class Coordinates(Transform):
    """β = location + root γ: the sampler moves on γ (p,), in which the coefficients are nearly independent.

    It starts at γ = 0 where the location is that of the data (`whitened`), else where the prior is.
    """

    location: np.ndarray
    root: np.ndarray
    name: str = "centred"
    ndim_supp = 1

    @property
    def start(self) -> Any:
        """The support point of PyMC: a function of the variable, or None for PyMC's own choice."""
        return (lambda rv, size, *_: pt.as_tensor(self.location)) if self.name == "whitened" else None

    def forward(self, value, *inputs):
        return matvec(np.linalg.inv(self.root), value - self.location)

    def backward(self, value, *inputs):
        return self.location + matvec(self.root, value)

    def log_jac_det(self, value, *inputs):
        return pt.constant(np.linalg.slogdet(self.root)[1])
