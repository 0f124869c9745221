"""y ~ N(Xβ, V) as a random variable: the random effects integrated out of the PyMC model.

The same structures that REML differentiates are written here in PyTensor. The data enter through the
cross-products T of each pattern of blocks only,

    r'V⁻¹r = Σ_patterns tr V⁻¹S(b),      S(b) = Σ_kl a_k a_l T_kl,      a = (-b, 1),

so that an evaluation costs as much as there are patterns, however many subjects there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from ..errors import SamplingError
from ..kernel.batch import Blocks
from ..kernel.blocks import arrange, compress
from ..kernel.many import Pooled, products
from .algebra import matvec
from .hyper import Hyper
from .patterns import Batch, batches, places_of_rows
from .random import factor
from .residual import _coloured, _in_rows

if TYPE_CHECKING:
    from ..model import LMM

LOG_2PI = float(np.log(2 * np.pi))
_BY_HAND = 6  # rows up to which a matrix is eliminated entry by entry: LAPACK would compile for seconds


def observe_marginally(model: LMM, hypers: list[Hyper], beta: Any, name: str) -> Any:
    """The observed variable `name` with dimension obs, given β and the variance parameters only.

    Raises SamplingError for designs without shared patterns that are too large for a symbolic likelihood.
    """
    design, covariance = model.design, model.covariance
    likelihood = Likelihood.of(model)
    within = sum(len(term.blocks) for term in covariance.random)
    roots = _roots(model, hypers[:within])
    θ = pt.concatenate([h.linear for h in hypers])
    found = batches(model.residual, len(design.y))
    place = places_of_rows(found, len(design.y))
    beta = pt.zeros(0) if beta is None else beta

    def draw(beta, θ, *rest):
        mean = design.offset + (matvec(design.X, beta) if design.coefs else 0.0)
        for term, Λ in zip(design.terms, rest[:-1], strict=True):
            z = pm.Normal.dist(size=(len(term.levels), term.Z.shape[1]))
            w = (z[:, None, :] * Λ[None]).sum(axis=2)
            mean = mean + (w[term.codes] * term.Z).sum(axis=1)
        noise = pm.Normal.dist(size=len(design.y))
        return mean + _in_rows([_coloured(noise, _root_of_R(model, θ, b), b) for b in found], place)

    matrices = "".join(f",(q{i},q{i})" for i in range(len(roots)))
    return pm.CustomDist(
        name, beta, θ, *roots, dist=draw, logp=lambda value, beta, θ, *roots: likelihood.log(beta, θ, roots),
        signature=f"(p),(k){matrices}->(n)", class_name="NormalOfSubjects", observed=design.y, dims="obs",
    )  # fmt: skip


def _roots(model: LMM, hypers: list[Hyper]) -> list[Any]:
    """Λ (q, q) with ΛΛ' = G of each grouping factor."""
    left, out = iter(hypers), []
    for term in model.covariance.random:
        own = [factor(next(left)) for _ in term.blocks]
        whole = [pt.diag(Λ) if Λ.ndim == 1 else Λ for Λ in own]
        out.append(whole[0] if len(whole) == 1 else pt.linalg.block_diag(*whole))
    return out


def _root_of_R(model: LMM, θ: Any, batch: Batch) -> Any:
    """L (P, m, m) with LL' = R of the patterns of a batch; padding is independent with variance 1."""
    covariance, m = model.covariance, batch.mask.shape[1]
    parts = zip(covariance.residual, covariance.residual_slices(), batch.rows, strict=True)
    R = sum(s.matrix(θ[k], rows, pt) for s, k, rows in parts)
    R = R * (batch.mask[:, :, None] * batch.mask[:, None, :]) + np.eye(m) * (1 - batch.mask)[:, :, None]
    return pt.sqrt(R) if m == 1 else pt.linalg.cholesky(R)


@dataclass(frozen=True, eq=False)
class Likelihood:
    """log p(y | β, θ) as a graph; arrays are those of the collapsed sampler, in the units of the blocks."""

    model: LMM
    blocks: Blocks
    pooled: tuple[Pooled, ...]

    @staticmethod
    def of(model: LMM) -> Likelihood:
        """Raises SamplingError where the cross-products would be larger than memory."""
        blocks = compress(arrange(model.design, model.covariance, model.residual))
        pooled = products(blocks, model.covariance).pooled
        if pooled is None:
            raise SamplingError(
                "The rows of this design share no patterns, and the cross-products of a symbolic likelihood "
                "would be larger than the data: use sampler='collapsed' or parametrization='noncentered'."
            )
        return Likelihood(model, blocks, pooled)

    def log(self, beta: Any, θ: Any, roots: tuple[Any, ...]) -> Any:
        """The log-likelihood at β (p,), linear coordinates θ (K,) in the units of the data, and the roots
        of G.
        """
        blocks, covariance = self.blocks, self.model.covariance
        u = sum(blocks.widths)
        a = pt.concatenate([-self._standard(beta), np.ones(1)]) if blocks.p else pt.ones(1)
        θ = θ / blocks.unit
        logdet, M = pt.constant(0.0), _Products(u, a)
        for pooled in self.pooled:
            inverse, log = invert(self._V(pooled, θ))
            logdet = logdet + (pooled.count * log).sum()
            M.add(inverse, pooled)
        part, at = covariance.residual[0], covariance.residual_slices()[0]
        for noise in blocks.noise:
            v = part.matrix(θ[at], noise.rows, pt)[0, 0, 0]
            logdet = logdet + noise.count * pt.log(v)
            M.add_noise(1 / v, noise.gram)
        quadratic = M.rr
        if u:
            more, fitted = self._crossed(M, roots)
            logdet, quadratic = logdet + more, quadratic - fitted
        constant = blocks.n * (LOG_2PI + 2 * np.log(blocks.y_scale)) - blocks.log_weights
        return -0.5 * (constant + logdet + quadratic)

    def _standard(self, beta: Any) -> Any:
        """β -> b, the coefficients of the orthonormal basis about the least squares fit."""
        return matvec(self.blocks.basis / self.blocks.y_scale, beta - self.blocks.center)

    def _V(self, pooled: Pooled, θ: Any) -> Any:
        """V (P, m, m) of the patterns."""
        covariance, m, P = self.model.covariance, pooled.m, len(pooled.count)
        V = pt.zeros((P, m, m))
        for ZZ, i in zip(pooled.ZZ, self.blocks.within, strict=True):
            term = covariance.random[i]
            G = term.matrix(θ[covariance.term_slices()[i]], pt)
            V = V + (ZZ.reshape(P, m, m, -1) * G.ravel()).sum(axis=3)
        for part, k, rows in zip(covariance.residual, covariance.residual_slices(), pooled.rows, strict=True):
            V = V + part.matrix(θ[k], rows, pt)
        return V

    def _crossed(self, M: _Products, roots: tuple[Any, ...]) -> tuple[Any, Any]:
        """(log|I + Λ'SΛ|, r'V₁⁻¹U K U'V₁⁻¹r) of the crossed terms."""
        blocks = self.blocks
        own = []
        for i, width in zip(blocks.crossed, blocks.widths, strict=True):
            Λ = roots[i] * (blocks.z_scale[i] / blocks.y_scale)[:, None]
            levels = width // len(blocks.z_scale[i])
            kron = np.eye(levels)[:, None, :, None] * Λ[None, :, None, :]
            own.append(kron.reshape((width, width)))
        Λ = own[0] if len(own) == 1 else pt.linalg.block_diag(*own)
        L = pt.linalg.cholesky(np.eye(sum(blocks.widths)) + Λ.T @ M.uu @ Λ)
        half = pt.linalg.solve_triangular(L, Λ.T @ M.ur, lower=True)
        return 2 * pt.log(pt.diagonal(L)).sum(), (half * half).sum()


class _Products:
    """Sums over patterns of [U r]'V₁⁻¹[U r], with r = [X y] a."""

    def __init__(self, u: int, a: Any):
        self.u, self.a = u, a
        self.rr: Any = pt.constant(0.0)
        self.uu: Any = pt.zeros((u, u))
        self.ur: Any = pt.zeros(u)

    def add(self, inverse: Any, pooled: Pooled) -> None:
        """Add the patterns with V⁻¹ (P, m, m)."""
        c = round(np.sqrt(len(pooled.T)))
        T = pooled.T.reshape(c, c, len(pooled.count), pooled.m, pooled.m)
        self._add((T * inverse).sum(axis=(2, 3, 4)))

    def add_noise(self, precision: Any, gram: np.ndarray) -> None:
        """Add pure error."""
        self._add(precision * gram)

    def _add(self, M: Any) -> None:
        u, a = self.u, self.a
        self.rr = self.rr + (M[u:, u:] * a[:, None] * a[None, :]).sum()
        if u:
            self.uu = self.uu + M[:u, :u]
            self.ur = self.ur + (M[:u, u:] * a).sum(axis=1)


def invert(V: Any) -> tuple[Any, Any]:
    """V⁻¹ (P, m, m) and log|V| (P,)."""
    m = V.type.shape[2]
    if m > _BY_HAND:
        L = pt.linalg.cholesky(V)
        eye = pt.as_tensor(np.broadcast_to(np.eye(m), (V.type.shape[0], m, m)))
        half = pt.linalg.solve_triangular(L, eye, lower=True)
        log_diagonal = pt.log(pt.diagonal(L, axis1=1, axis2=2))
        return (half[:, :, :, None] * half[:, :, None, :]).sum(axis=1), 2 * log_diagonal.sum(axis=1)
    A = [[V[:, i, j] for j in range(m)] for i in range(m)]
    logdet: Any = 0.0
    for k in range(m):  # Gauss-Jordan, as in marginal.symmetric
        pivot = A[k][k]
        logdet = logdet + pt.log(pivot)
        row = [x / pivot for x in A[k]]
        for i in range(m):
            if i != k:
                factor_ = A[i][k]
                A[i] = [-factor_ / pivot if j == k else A[i][j] - factor_ * row[j] for j in range(m)]
        row[k] = 1 / pivot
        A[k] = row
    return pt.stack([pt.stack(r, axis=1) for r in A], axis=1), logdet
