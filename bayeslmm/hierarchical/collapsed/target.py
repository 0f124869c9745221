"""The log posterior of the variance parameters, with β and w integrated out exactly.

With γ = Aβ at centred columns, γ ~ N(b₀, B₀) or flat, the prior is information on β like any other: it adds
E = [[P, h], [h', q]] to the cross-products M = [X y]'V⁻¹[X y], after which

    log p(y | θ) = -½ [ n log 2π + log|V| + log|X'V⁻¹X + P| + r'V⁻¹r + (prior's part) ] + constants

is the restricted likelihood of `likelihood.py` with M + E in the place of M.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ...errors import SamplingError
from ...kernel.batch import Blocks
from ...kernel.blocks import arrange, compress
from ...kernel.likelihood import LOG_2PI, from_moments
from ...kernel.many import Products, many_moments, products
from ...kernel.moments import moments
from ...kernel.symmetric import cholesky
from ..centring import centring
from ..defaults import Priors
from ..prior import Flat
from ..priors import Normal
from .coordinates import Coordinates

if TYPE_CHECKING:
    from ...model import LMM


@dataclass(frozen=True)
class Information:
    """What the prior of β says, in the units of the blocks: E (p + 1, p + 1) and the log of its constant."""

    E: np.ndarray
    constant: float


@dataclass(frozen=True)
class Target:
    """log p(u | y) up to p(y), where u are the coordinates of the variance parameters."""

    coordinates: Coordinates
    blocks: Blocks
    lean: Blocks
    products: Products
    information: Information

    @staticmethod
    def of(model: LMM, priors: Priors) -> Target:
        blocks = arrange(model.design, model.covariance, model.residual)
        lean = compress(blocks)
        return Target(Coordinates.of(model, priors), blocks, lean, products(lean, model.covariance),
                      prior_information(model, priors, blocks))  # fmt: skip

    @property
    def constant(self) -> float:
        """What does not depend on θ."""
        b = self.blocks
        log_basis = float(np.log(np.abs(np.diag(b.basis))).sum())
        scale = (b.n - b.p) * (LOG_2PI + 2 * np.log(b.y_scale))
        return -0.5 * (scale + 2 * log_basis - b.log_weights) + self.information.constant

    def many(self, u: np.ndarray) -> Evaluated:
        """The log posterior at draws u (D, K), with what the conditional distribution of β needs."""
        θ, prior = self.coordinates.many(u)
        return self.at(u, θ, prior)

    def at(self, u: np.ndarray, θ: np.ndarray, prior: np.ndarray | float = 0.0) -> Evaluated:
        """The same at linear coordinates θ (D, K) in the units of the data, with a given log prior."""
        prior = np.broadcast_to(prior, (len(θ),))
        with np.errstate(over="ignore"):
            own = θ / self.lean.unit
        found = many_moments(self.products, np.where(np.isfinite(own), own, -1.0))
        L, bad = cholesky(found.M + self.information.E)
        p = self.blocks.p
        diagonal = np.log(np.diagonal(L, axis1=1, axis2=2)[:, :p]).sum(axis=1)
        likelihood = self.constant - 0.5 * (found.logdet + 2 * diagonal + L[:, p, p] ** 2)
        bad |= ~(np.isfinite(found.logdet) & np.isfinite(likelihood) & np.isfinite(prior))
        likelihood, prior = np.where(bad, -np.inf, likelihood), np.where(bad, -np.inf, prior)
        return Evaluated(u, θ, likelihood, prior, L)

    def one(self, u: np.ndarray, *, jacobian: bool = True) -> tuple[float, np.ndarray, np.ndarray] | None:
        """Value, gradient and Hessian at u; without the Jacobian, of the density of the natural
        parameters.
        """
        with np.errstate(all="ignore"):
            (θ, J, second), (prior, slope, curvature) = self.coordinates.derivatives(u, jacobian=jacobian)
        if not (np.isfinite(θ).all() and np.isfinite(second).all() and np.isfinite(curvature).all()):
            return None
        θ, J, second = θ / self.lean.unit, J / self.lean.unit[:, None], second / self.lean.unit[:, None, None]
        found = moments(self.lean, self.products.covariance, θ, 2)
        if found is None:
            return None
        at = from_moments(replace(found, M=found.M + self.information.E), self.lean, reml=True, order=2)
        if at is None or at.score is None or at.hessian is None or not np.isfinite(at.value + prior):
            return None
        value = at.value + self.information.constant + prior
        return (
            value,
            at.score @ J + slope,
            J.T @ at.hessian @ J + np.tensordot(at.score, second, 1) + curvature,
        )


@dataclass(frozen=True)
class Evaluated:
    """D draws: u (D, K), θ (D, K) linear coordinates in the units of the data, log p(y | θ), log prior of u,
    and L (D, p + 1, p + 1), the Cholesky factor of M + E."""

    u: np.ndarray
    θ: np.ndarray
    likelihood: np.ndarray
    prior: np.ndarray
    L: np.ndarray

    @property
    def value(self) -> np.ndarray:
        return self.likelihood + self.prior

    def take(self, index: np.ndarray) -> Evaluated:
        """Some of the draws."""
        return Evaluated(*(a[index] for a in (self.u, self.θ, self.likelihood, self.prior, self.L)))

    @staticmethod
    def join(parts: list[Evaluated]) -> Evaluated:
        arrays = zip(*((e.u, e.θ, e.likelihood, e.prior, e.L) for e in parts), strict=True)
        return Evaluated(*(np.concatenate(a) for a in arrays))


def prior_information(model: LMM, priors: Priors, blocks: Blocks) -> Information:
    """The prior of β as cross-products in the units of the blocks.

    Raises SamplingError where it is neither normal nor flat: β is then not to be integrated out in closed
    form.
    """
    p = blocks.p
    E, constant = np.zeros((p + 1, p + 1)), 0.0
    if not p:
        return Information(E, constant)
    A = centring(model.design).A
    own = [priors[f"beta[{c}]"] for c in model.design.coefs]
    for name, prior in zip(model.design.coefs, own, strict=True):
        if not isinstance(prior, Normal | Flat):
            raise SamplingError(
                f"The prior of {name} is {prior!r}. The collapsed sampler integrates β out exactly, which "
                "needs a normal or flat prior: choose one, or sample with sampler='nuts'."
            )
    mean = np.array([x.mu if isinstance(x, Normal) else 0.0 for x in own])
    precision = np.array([1 / x.sigma**2 if isinstance(x, Normal) else 0.0 for x in own])
    # γ - b₀ = [T, t] [b; -1]: rows of pseudo-observations with errors of the prior's sd
    T = blocks.y_scale * A @ np.linalg.inv(blocks.basis)
    rows = np.column_stack([T, mean - A @ blocks.center]) * np.sqrt(precision)[:, None]
    informative = precision > 0
    constant = 0.5 * float(np.log(precision[informative]).sum() - informative.sum() * LOG_2PI)
    return Information(rows.T @ rows, constant)
