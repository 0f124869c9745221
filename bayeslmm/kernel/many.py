"""The likelihood at many θ at once: M = D'V⁻¹D and log|V| for D parameter vectors, values only.

A pattern of blocks is needed only through T = Σ_s D_s ⊗ D_s, since

    D'V⁻¹D = Σ_ij (V⁻¹)_ij T_ij

is one matrix product for all parameter vectors; its cost does not depend on the number of subjects. Terms
that cross blocks are eliminated afterwards as in `moments.py` (Woodbury), a matrix a draw.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .. import manyvalues
from ..covariance.assembly import Covariance
from ..covariance.correlation import Rows
from ..manyvalues import Many, values
from .batch import Batch, Blocks
from .moments import _accumulate, moments
from .symmetric import cholesky, invert, root

_CACHE = 50_000  # numbers in one array of V: what a core keeps close
_PRODUCTS = 60_000_000  # numbers in all cross-products; beyond, draws are evaluated one by one
_WOODBURY = 4_000_000  # numbers in one array of crossed columns


@dataclass(frozen=True)
class Pooled:
    """P patterns of m rows: ZZ (terms: (P m m, q q)), residual rows, count (P,), T (c c, P, m m)."""

    ZZ: tuple[np.ndarray, ...]
    rows: tuple[Rows, ...]
    count: np.ndarray
    T: np.ndarray
    m: int


@dataclass(frozen=True)
class Products:
    """All cross-products of a design; `pooled` is None where they would be larger than the data."""

    blocks: Blocks
    covariance: Covariance
    pooled: tuple[Pooled, ...] | None

    @property
    def columns(self) -> int:
        """c, the number of columns of [U X y]."""
        return sum(self.blocks.widths) + self.blocks.p + 1


def products(blocks: Blocks, covariance: Covariance) -> Products:
    """Pool the blocks of every pattern."""
    c = sum(blocks.widths) + blocks.p + 1
    size = sum(len(b.count) * b.data.shape[1] ** 2 * c * c for b in blocks.batches)
    pooled = None if size > _PRODUCTS else tuple(_pool(b, c) for b in blocks.batches)
    return Products(blocks, covariance, pooled)


def _pool(batch: Batch, c: int) -> Pooled:
    S, m, _ = batch.data.shape
    D = batch.data
    if batch.crossed is not None:
        D = np.concatenate([batch.crossed.toarray().reshape(S, m, -1), D], axis=2)
    P = len(batch.count)
    T = np.zeros((P, m * m, c * c))
    starts = np.searchsorted(batch.owner, np.arange(P + 1))
    if P == S:
        T[:] = np.einsum("sia,sjb->sijab", D, D).reshape(P, m * m, c * c)
    else:
        for k in range(P):
            flat = D[starts[k] : starts[k + 1]].reshape(-1, m * c)
            T[k] = (flat.T @ flat).reshape(m, c, m, c).transpose(0, 2, 1, 3).reshape(m * m, c * c)
    ZZ = tuple(np.einsum("pila,pjlb->pijab", z, z).reshape(P, m * m, -1) for z in batch.Z)
    return Pooled(ZZ, batch.rows, batch.count.astype(float), np.ascontiguousarray(np.moveaxis(T, 2, 0)), m)


@dataclass(frozen=True)
class ManyMoments:
    """M (D, c, c) of [X y] and logdet (D,), -inf where V is not positive definite."""

    M: np.ndarray
    logdet: np.ndarray


def many_moments(products: Products, θ: np.ndarray) -> ManyMoments:
    """M and log|V| at linear coordinates θ (D, K) in the units of the blocks."""
    if products.pooled is None:
        return _one_by_one(products, θ)
    c = products.columns
    M, logdet = np.zeros((c * c, len(θ))), np.zeros(len(θ))
    step = max(1, min(512, len(θ)))
    with np.errstate(all="ignore"):
        for k in range(0, len(θ), step):
            draws = slice(k, k + step)
            M[:, draws], logdet[draws] = _sums(products, θ[draws])
        bad = ~np.isfinite(logdet) | ~np.isfinite(M).all(axis=0)
        square = np.moveaxis(M.reshape(c, c, -1), -1, 0)
        if products.blocks.crossed:
            square, logdet = _eliminate(products, θ, square, logdet, bad)
    logdet[bad] = -np.inf
    square[bad] = np.eye(square.shape[1])
    return ManyMoments(square, logdet)


def _one_by_one(products: Products, θ: np.ndarray) -> ManyMoments:
    c = products.blocks.p + 1
    M, logdet = np.tile(np.eye(c), (len(θ), 1, 1)), np.full(len(θ), -np.inf)
    for k, at in enumerate(θ):
        found = moments(products.blocks, products.covariance, at, 0)
        if found is not None:
            M[k], logdet[k] = found.M, found.logdet
    return ManyMoments(M, logdet)


def _sums(products: Products, θ: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """M (c c, D) and log|V| (D,) of all blocks and pure error, crossed terms set aside."""
    covariance, D = products.covariance, len(θ)
    x = Many(np.ascontiguousarray(θ.T))
    M, logdet = np.zeros((products.columns**2, D)), np.zeros(D)
    G = matrices_of_G(covariance, x, D)
    for pooled in products.pooled or ():
        P, mm = len(pooled.count), pooled.m**2
        step = max(1, _CACHE // (mm * D))
        for k in range(0, P, step):
            some = slice(k, k + step)
            V = _V(pooled, some, products, x, G)
            Vi, log = invert(V.reshape(pooled.m, pooled.m, -1))
            few = V.shape[2]
            logdet += pooled.count[some] @ log.reshape(few, D)
            across = np.ascontiguousarray(np.swapaxes(Vi.reshape(mm, few, D), 0, 1)).reshape(few * mm, D)
            M += pooled.T[:, some].reshape(len(M), -1) @ across
    part, at = covariance.residual[0], covariance.residual_slices()[0]
    for noise in products.blocks.noise:
        v = values(part.matrix(x[at], noise.rows, manyvalues), D)[0, 0, 0]
        logdet += np.where(v > 0, noise.count * np.log(v), -np.inf)
        M += noise.gram.ravel()[:, None] / v
    return M, logdet


def matrices_of_G(covariance: Covariance, x: Many, draws: int) -> list[np.ndarray]:
    """G (q, q, D) of every grouping factor."""
    parts = zip(covariance.random, covariance.term_slices(), strict=True)
    return [values(t.matrix(x[k], manyvalues), draws) for t, k in parts]


def _V(pooled: Pooled, some: slice, products: Products, x: Many, G: list[np.ndarray]) -> np.ndarray:
    """V (m, m, P, D) of some patterns."""
    m, D, P = pooled.m, x.a.shape[-1], len(pooled.count[some])
    V = np.zeros((m, m, P, D))
    for ZZ, i in zip(pooled.ZZ, products.blocks.within, strict=True):
        own = ZZ[some].reshape(P * m * m, -1) @ G[i].reshape(-1, D)
        V += np.moveaxis(own.reshape(P, m, m, D), 0, 2)
    for R in residual_matrices(products.covariance, x, pooled.rows, some, D):
        V += np.moveaxis(R, 0, 2)
    return V


def residual_matrices(covariance: Covariance, x: Many, rows: tuple[Rows, ...], some, draws: int):
    """(P, m, m, D) of every residual component, for some of the patterns."""
    for part, k, constants in zip(covariance.residual, covariance.residual_slices(), rows, strict=True):
        yield values(part.matrix(x[k], constants.take(some), manyvalues), draws)


# --- crossed terms ----------------------------------------------------------------------------------------


def _eliminate(products: Products, θ: np.ndarray, M: np.ndarray, logdet: np.ndarray, bad: np.ndarray):
    """Moments of [X y] under V = V₁ + U G U' from those of [U X y] under V₁; `bad` is updated."""
    blocks, u = products.blocks, sum(products.blocks.widths)
    out, log = np.empty((len(θ), blocks.p + 1, blocks.p + 1)), logdet.copy()
    step = max(1, _WOODBURY // products.columns**2)
    for k in range(0, len(θ), step):
        some = slice(k, k + step)
        Λ = crossed_roots(products, θ[some])
        inner = np.eye(u) + left(Λ, left(Λ, M[some, :u, :u]).swapaxes(1, 2))
        L, failed = cholesky(inner)
        bad[some] |= failed
        half = np.linalg.solve(L, left(Λ, M[some, :u, u:]))
        out[some] = M[some, u:, u:] - np.swapaxes(half, 1, 2) @ half
        log[some] += 2 * np.log(np.diagonal(L, axis1=1, axis2=2)).sum(axis=1)
    return out, log


def crossed_sums(products: Products, θ: np.ndarray) -> np.ndarray:
    """M (D, c, c) of [U X y] under V₁, before the crossed terms are eliminated."""
    c = products.columns
    if products.pooled is not None:
        return np.moveaxis(_sums(products, θ)[0].reshape(c, c, -1), -1, 0)
    found = [_accumulate(products.blocks, products.covariance, at, 0) for at in θ]
    return np.array([total[0].M for total in found if total is not None])


def crossed_roots(products: Products, θ: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """Λ (D, q, q) with ΛΛ' = G of every crossed term, and the number of its columns."""
    G = matrices_of_G(products.covariance, Many(np.ascontiguousarray(θ.T)), len(θ))
    blocks = products.blocks
    return [(np.moveaxis(root(G[i]), -1, 0), w) for i, w in zip(blocks.crossed, blocks.widths, strict=True)]


def left(Λ: list[tuple[np.ndarray, int]], A: np.ndarray, transpose: bool = True) -> np.ndarray:
    """Λ'A, or ΛA, for the block diagonal Λ of all crossed terms: (D, u, r) -> (D, u, r)."""
    parts, start = [], 0
    for small, width in Λ:
        q = small.shape[1]
        T = np.swapaxes(small, 1, 2) if transpose else small
        own = A[:, start : start + width].reshape(len(A), width // q, q, -1)
        parts.append((T[:, None] @ own).reshape(len(A), width, -1))
        start += width
    return np.concatenate(parts, axis=1)
