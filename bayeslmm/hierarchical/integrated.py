"""y ~ N(Xβ, V) as a random variable: the random effects integrated out of the PyMC model.

The same structures that REML differentiates are written here in PyTensor. The data enter through the
cross-products T of each pattern of blocks only,

    r'V⁻¹r = Σ_patterns tr V⁻¹S(b),      S(b) = Σ_kl a_k a_l T_kl,      a = (-b, 1),

so that an evaluation costs as much as there are patterns, however many subjects there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from ..covariance.structure import Structure
from ..errors import DesignError, SamplingError
from ..kernel.batch import Blocks
from ..kernel.blocks import arrange, compress
from ..kernel.estimate import best_of
from ..kernel.many import Pooled, products
from ..kernel.start import starts
from .algebra import gram, matvec, take
from .coefficients import Coordinates
from .hyper import Hyper
from .inverse import inverse
from .patterns import Batch, batches, places_of_rows
from .random import covariance, factor
from .residual import _coloured, _in_rows

if TYPE_CHECKING:
    from ..model import LMM

LOG_2PI = float(np.log(2 * np.pi))


def observe_marginally(likelihood: Likelihood, hypers: list[Hyper], beta: Any, name: str) -> Any:
    """The observed variable `name` with dimension obs, given β and the variance parameters only."""
    model, design = likelihood.model, likelihood.model.design
    K = sum(len(term.blocks) for term in model.covariance.random)
    G, Λ = [covariance(h) for h in hypers[:K]], [factor(h) for h in hypers[:K]]
    θ = pt.concatenate([h.linear for h in hypers[K:]])
    found = batches(model.residual, len(design.y))
    place = places_of_rows(found, len(design.y))
    beta = pt.zeros(0) if beta is None else beta

    def logp(value, beta, θ, *matrices):
        return likelihood.log(beta, θ, matrices[:K], matrices[K:])

    def draw(beta, θ, *rest):
        mean = design.offset + (matvec(design.X, beta) if design.coefs else 0.0)
        for term, whole in zip(design.terms, _of_terms(model, rest[K : 2 * K]), strict=True):
            z = pm.Normal.dist(size=(len(term.levels), term.Z.shape[1]))
            w = (z[:, None, :] * whole[None]).sum(axis=2)
            mean = mean + (take(w, term.codes) * term.Z).sum(axis=1)
        noise = pm.Normal.dist(size=len(design.y))
        return mean + _in_rows([_coloured(noise, _root_of_R(model, θ, b), b) for b in found], place)

    return pm.CustomDist(
        name, beta, θ, *G, *Λ, dist=draw, logp=logp, signature=_signature([*G, *Λ]),
        class_name="NormalOfSubjects", observed=design.y, dims="obs",
    )  # fmt: skip


def _signature(matrices: list[Any]) -> str:
    return "(p),(k)" + "".join(f",({','.join([f'q{i}'] * A.ndim)})" for i, A in enumerate(matrices)) + "->(n)"


def _of_terms(model: LMM, Λ: Sequence[Any]) -> list[Any]:
    """Λ (q, q) of each grouping factor from those of its blocks."""
    left, out = iter(Λ), []
    for term in model.covariance.random:
        own = [next(left) for _ in term.blocks]
        whole = [pt.diag(A) if A.ndim == 1 else A for A in own]
        out.append(whole[0] if len(whole) == 1 else pt.linalg.block_diag(*whole))
    return out


def _root_of_R(model: LMM, θ: Any, batch: Batch) -> Any:
    """L (P, m, m) with LL' = R of the patterns of a batch; padding is independent with variance 1."""
    m = batch.mask.shape[1]
    R = sum(s.matrix(θ[k], rows, pt) for s, k, rows in zip(*_residual(model), batch.rows, strict=True))
    R = R * (batch.mask[:, :, None] * batch.mask[:, None, :]) + np.eye(m) * (1 - batch.mask)[:, :, None]
    return pt.sqrt(R) if m == 1 else pt.linalg.cholesky(R)


def _residual(model: LMM) -> tuple[tuple[Structure, ...], list[slice]]:
    """The components of R, and where each stands in the vector of their linear coordinates."""
    parts, slices = model.covariance.residual, model.covariance.residual_slices()
    start = slices[0].start
    return parts, [slice(k.start - start, k.stop - start) for k in slices]


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

    def coordinates(self) -> Coordinates:
        """Coordinates of β with posterior covariance of about 1: at the REML estimate, before there are priors.

        Where that says of a combination of coefficients that it is known exactly, as with an error variance of zero, its
        sd is a thousandth of the largest: a sampler could not move in it otherwise.
        """
        blocks, covariance = self.blocks, self.model.covariance
        try:
            at = best_of(blocks, covariance, starts(covariance, self.model.residual), True).evaluation
            b, cov_b = at.beta, at.A_inverse
        except DesignError:
            b, cov_b = np.zeros(blocks.p), np.eye(blocks.p) / blocks.n
        back = blocks.y_scale * np.linalg.inv(blocks.basis)
        values, vectors = np.linalg.eigh(cov_b)
        root = vectors * np.sqrt(np.maximum(values, 1e-6 * values.max(initial=0.0)))
        return Coordinates(blocks.center + back @ b, back @ root, "whitened")

    def log(self, beta: Any, θ: Any, G: Sequence[Any], Λ: Sequence[Any]) -> Any:
        """The log-likelihood at β (p,), linear coordinates θ of the residual, G and its root Λ of every block
        of random effects, in the units of the data.
        """
        blocks, u = self.blocks, sum(self.blocks.widths)
        c = u + blocks.p + 1
        parts, slices = _residual(self.model)
        θ = θ / blocks.unit[len(blocks.unit) - sum(p.size for p in parts) :]
        logdet, M = pt.constant(0.0), pt.constant(0.0)
        for pooled in self.pooled:
            inverted, log = inverse(self._V(pooled, θ, G))
            logdet = logdet + (pooled.count * log).sum()
            M = M + matvec(pooled.T.reshape(c * c, -1), inverted.ravel())
        for noise in blocks.noise:
            v = parts[0].matrix(θ[slices[0]], noise.rows, pt)[0, 0, 0]
            logdet = logdet + noise.count * pt.log(v)
            M = M + noise.gram.ravel() / v
        a = self._coefficients(beta)
        M = M.reshape((c, c))
        quadratic = (M[u:, u:].ravel() * gram(a[:, None]).ravel()).sum()
        if u:
            more, fitted = self._crossed(M[:u, :u], matvec(M[:u, u:], a), Λ)
            logdet, quadratic = logdet + more, quadratic - fitted
        constant = blocks.n * (LOG_2PI + 2 * np.log(blocks.y_scale)) - blocks.log_weights
        return -0.5 * (constant + logdet + quadratic)

    def _coefficients(self, beta: Any) -> Any:
        """a = (-b, 1) of r = [X y] a, with b the coefficients of the orthonormal basis about the least squares fit."""
        blocks, p = self.blocks, self.blocks.p
        if not p:
            return pt.ones(1)
        to_basis = blocks.basis / blocks.y_scale
        fixed = np.append(to_basis @ blocks.center, 1.0)
        return fixed - matvec(np.vstack([to_basis, np.zeros((1, p))]), beta)

    def _V(self, pooled: Pooled, θ: Any, G: Sequence[Any]) -> Any:
        """V (P, m, m) of the patterns: what is linear in variances and covariances is a constant matrix times them."""
        blocks, m, P = self.blocks, pooled.m, len(pooled.count)
        V: Any = 0.0
        own = _split(G, [len(term.blocks) for term in self.model.covariance.random])
        for ZZ, i in zip(pooled.ZZ, blocks.within, strict=True):
            scale = blocks.z_scale[i] / blocks.y_scale
            whole = ZZ.reshape(P * m * m, len(scale), -1) * (scale[:, None] * scale)
            for (_, columns), block in zip(self.model.covariance.random[i].blocks, own[i], strict=True):
                at = list(columns)
                constant = whole[:, at, at] if block.ndim == 1 else whole[:, at][:, :, at].reshape(P * m * m, -1)
                V = V + matvec(constant, block.ravel())
        for part, k, rows in zip(*_residual(self.model), pooled.rows, strict=True):
            if part.linear or (part.diagonal and not part.scale.power):
                constant = np.stack([part.matrix(unit, rows).ravel() for unit in np.eye(part.size)], axis=1)
                V = V + matvec(constant, θ[k])
            else:
                V = V + part.matrix(θ[k], rows, pt).ravel()
        return V.reshape((P, m, m))

    def _crossed(self, uu: Any, ur: Any, blocks_of_Λ: Sequence[Any]) -> tuple[Any, Any]:
        """(log|I + Λ'SΛ|, r'V₁⁻¹U K U'V₁⁻¹r) of the crossed terms, with S = U'V₁⁻¹U (uu) and U'V₁⁻¹r (ur)."""
        blocks, roots = self.blocks, _of_terms(self.model, blocks_of_Λ)
        own = []
        for i, width in zip(blocks.crossed, blocks.widths, strict=True):
            Λ = roots[i] * (blocks.z_scale[i] / blocks.y_scale)[:, None]
            levels = width // len(blocks.z_scale[i])
            kron = np.eye(levels)[:, None, :, None] * Λ[None, :, None, :]
            own.append(kron.reshape((width, width)))
        Λ = own[0] if len(own) == 1 else pt.linalg.block_diag(*own)
        L = pt.linalg.cholesky(np.eye(sum(blocks.widths)) + Λ.T @ uu @ Λ)
        half = pt.linalg.solve_triangular(L, Λ.T @ ur, lower=True)
        return 2 * pt.log(pt.diagonal(L)).sum(), (half * half).sum()


def _split(values: Sequence[Any], sizes: list[int]) -> list[Sequence[Any]]:
    ends = np.cumsum(sizes, dtype=int)
    return [values[int(e) - k : int(e)] for e, k in zip(ends, sizes, strict=True)]
