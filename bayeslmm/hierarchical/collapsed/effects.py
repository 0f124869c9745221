"""β and w given the variance parameters and the data: exact draws, all subjects and many draws at once.

With V = ZGZ' + R and G = ΛΛ', w = Λv for v ~ N(0, I), and

    v | β, y ~ N(H⁻¹Λ'Z'R⁻¹(y - Xβ), H⁻¹),        H = I + Λ'Z'R⁻¹ZΛ,

which holds for a singular G too. Terms that cross blocks are drawn first, from the same formula with V₁ in
the place of R; then each block by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import solve_triangular

from ...kernel.batch import Batch, Blocks
from ...kernel.many import Products, crossed_roots, crossed_sums, left, matrices_of_G, residual_matrices
from ...kernel.symmetric import cholesky, invert, root
from ...manyvalues import Many
from .target import Evaluated, Target

_NUMBERS = 2_000_000  # in one array of a chunk


def draw_beta(target: Target, drawn: Evaluated, rng: np.random.Generator) -> np.ndarray:
    """b (D, p) in the units of the blocks: N(A⁻¹a, A⁻¹) from the Cholesky factor of M + E."""
    p = target.blocks.p
    L, right = drawn.L[:, :p, :p], drawn.L[:, p, :p] + rng.standard_normal((len(drawn.u), p))
    if not p:
        return right
    return np.linalg.solve(np.swapaxes(L, 1, 2), right[..., None])[..., 0]


def beta_of_data(blocks: Blocks, b: np.ndarray) -> np.ndarray:
    """β (D, p) on the scale of the formula."""
    if not blocks.p:
        return b
    return blocks.center + blocks.y_scale * solve_triangular(blocks.basis, b.T).T


def draw_effects(
    target: Target, θ: np.ndarray, b: np.ndarray, rng: np.random.Generator, only: np.ndarray | None = None
) -> list[np.ndarray]:
    """w (D, levels, q) of every grouping factor, in the units of the data.

    θ (D, K): linear coordinates in the units of the data; b (D, p) in the units of the blocks. only: the
    levels of the first grouping factor that are wanted, N in the place of all its levels.
    """
    blocks, covariance = target.blocks, target.products.covariance
    if only is not None and len(only) < blocks.levels[0]:
        blocks = _blocks_of(blocks, only)
    D = len(θ)
    sizes = [len(t.effects) for t in covariance.random]
    counts = list(blocks.levels)
    place = [np.arange(n) for n in counts]
    if only is not None and counts:
        place[0] = np.full(counts[0], -1)
        place[0][only] = np.arange(len(only))
        counts[0] = len(only)
    out = [np.zeros((D, n, q)) for n, q in zip(counts, sizes, strict=True)]
    if not out:
        return out
    step = max(1, min(D, _NUMBERS // max(1, sum(len(x.data) for x in blocks.batches))))
    for k in range(0, D, step):
        some = slice(k, k + step)
        own, a = θ[some] / blocks.unit, np.column_stack([-b[some], np.ones(len(b[some]))])
        crossed = _draw_crossed(target.products, own, a, rng) if blocks.crossed else None
        _fill_crossed(out, blocks, crossed, some, place)
        for batch, levels, v in _within(blocks, covariance, own, a, crossed, rng):
            for i, at, w in _by_term(blocks, batch, levels, v):
                to = place[i][at]
                if (to < 0).any():
                    w, to = w[:, to >= 0], to[to >= 0]
                run = len(to) > 0 and bool((np.diff(to) == 1).all())
                out[i][some, slice(to[0], to[-1] + 1) if run else to] = w
    for w, s in zip(out, blocks.z_scale, strict=True):
        w *= blocks.y_scale / s
    return out


def _blocks_of(blocks: Blocks, levels: np.ndarray) -> Blocks:
    """The blocks that hold some levels of the first grouping factor."""
    if 0 not in blocks.within:
        return blocks
    batches = []
    for batch in blocks.batches:
        assert batch.levels is not None
        here = np.flatnonzero(np.isin(batch.levels[blocks.within.index(0)], levels).any(axis=1))
        if here.size:
            batches.append(batch.take(here))
    return replace(blocks, batches=tuple(batches))


# --- terms that cross blocks ------------------------------------------------------------------------------


def _draw_crossed(products: Products, θ: np.ndarray, a: np.ndarray, rng) -> np.ndarray:
    """Effects (D, u) of all crossed terms; a (D, p + 1) with [X y] a = y - Xb."""
    u = sum(products.blocks.widths)
    M = crossed_sums(products, θ)
    Λ = crossed_roots(products, θ)
    inner = np.eye(u) + left(Λ, left(Λ, M[:, :u, :u]).swapaxes(1, 2))
    L, _ = cholesky(inner)
    right = left(Λ, M[:, :u, u:] @ a[..., None])
    v = np.linalg.solve(L, right) + rng.standard_normal(right.shape)
    return left(Λ, np.linalg.solve(np.swapaxes(L, 1, 2), v), transpose=False)[..., 0]


def _fill_crossed(out: list[np.ndarray], blocks: Blocks, crossed, some: slice, place: list[np.ndarray]) -> None:
    start = 0
    for i, width in zip(blocks.crossed, blocks.widths, strict=True):
        own = crossed[:, start : start + width]
        wanted = np.flatnonzero(place[i] >= 0)
        out[i][some, place[i][wanted]] = own.reshape(len(own), -1, out[i].shape[2])[:, wanted]
        start += width


# --- terms within blocks ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Piece:
    """Data blocks start to stop of a batch, and the patterns low to high that they have."""

    start: int
    stop: int
    low: int
    high: int


def _pieces(batch: Batch, D: int) -> Iterator[_Piece]:
    S, m, _ = batch.data.shape
    step = max(1, _NUMBERS // (D * m * m))
    for start in range(0, S, step):
        stop = min(start + step, S)
        yield _Piece(start, stop, int(batch.owner[start]), int(batch.owner[stop - 1]) + 1)


def _within(blocks: Blocks, covariance, θ: np.ndarray, a: np.ndarray, crossed, rng):
    """(batch, levels touched by the blocks of each term, w (k, S, D)) piece by piece."""
    x, D = Many(np.ascontiguousarray(θ.T)), len(θ)
    if not blocks.within:
        return
    G = matrices_of_G(covariance, x, D)
    Λ = {i: root(G[i]) for i in blocks.within}
    for batch in blocks.batches:
        for piece in _pieces(batch, D):
            some = slice(piece.low, piece.high)
            m, P = batch.data.shape[1], piece.high - piece.low
            R = np.zeros((m, m, P, D))
            for part in residual_matrices(covariance, x, batch.rows, some, D):
                R += np.moveaxis(part, 0, 2)
            Ri = invert(R.reshape(m, m, -1))[0].reshape(m, m, P, D)
            ZΛ = _scaled(batch, blocks, Λ, some, D)
            RZ = np.einsum("ijpd,jkpd->ikpd", Ri, ZΛ, optimize=True)
            H = np.einsum("ikpd,ilpd->klpd", ZΛ, RZ, optimize=True)
            k = len(H)
            H[np.arange(k), np.arange(k)] += 1.0
            Hi = invert(H.reshape(k, k, -1))[0]
            F = root(Hi).reshape(k, k, P, D)
            gain = np.einsum("klpd,ilpd->kipd", Hi.reshape(k, k, P, D), RZ, optimize=True)
            r = _residual(batch, piece, a, crossed)
            owner = batch.owner[piece.start : piece.stop] - piece.low
            z = rng.standard_normal((k, len(owner), D))
            v = _apply(gain, r, owner) + _apply(F, z, owner)
            levels = [t[piece.start : piece.stop] for t in batch.levels or ()]
            yield batch, levels, _times_root(v, batch, blocks, Λ)


def _scaled(batch: Batch, blocks: Blocks, Λ, some: slice, D: int) -> np.ndarray:
    """ZΛ (m, k, P, D) over the levels and effects of all terms within blocks."""
    parts = []
    for z, i in zip(batch.Z, blocks.within, strict=True):
        own = z[some]
        P, m, levels, q = own.shape
        product = (own.reshape(-1, q) @ Λ[i].reshape(q, -1)).reshape(P, m, levels * q, D)
        parts.append(np.moveaxis(product, 0, 2))
    return np.concatenate(parts, axis=1)


def _residual(batch: Batch, piece: _Piece, a: np.ndarray, crossed) -> np.ndarray:
    """y - Xb - Uc of a piece: (m, S, D)."""
    data = batch.data[piece.start : piece.stop]
    m = data.shape[1]
    r = data @ a.T
    if batch.crossed is not None:
        r -= (batch.crossed[piece.start * m : piece.stop * m] @ crossed.T).reshape(r.shape)
    return np.swapaxes(r, 0, 1)


def _apply(A: np.ndarray, r: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """A_owner(s) r_s: (k, m, P, D), (m, S, D) -> (k, S, D)."""
    shared = A.shape[2] == 1
    out = np.zeros((len(A), *r.shape[1:]))
    for i in range(len(A)):
        for j in range(A.shape[1]):
            out[i] += (A[i, j] if shared or A.shape[2] == len(owner) else A[i, j][owner]) * r[j]
    return out


def _times_root(v: np.ndarray, batch: Batch, blocks: Blocks, Λ) -> np.ndarray:
    """w = Λv of every level: (k, S, D)."""
    out, start = np.empty_like(v), 0
    for z, i in zip(batch.Z, blocks.within, strict=True):
        levels, q = z.shape[2:]
        stop = start + levels * q
        own = v[start:stop].reshape(levels, q, *v.shape[1:])
        out[start:stop] = np.einsum("abd,lbsd->lasd", Λ[i], own).reshape(-1, *v.shape[1:])
        start = stop
    return out


def _by_term(blocks: Blocks, batch: Batch, levels: list[np.ndarray], w: np.ndarray):
    """(term, its levels (N,), their effects (D, N, q)) of one piece."""
    start = 0
    for z, i, touched in zip(batch.Z, blocks.within, levels, strict=True):
        count, q = z.shape[2:]
        own = w[start : start + count * q].reshape(count, q, len(touched), -1).transpose(2, 0, 3, 1)
        real = touched >= 0
        one = own.reshape(-1, *own.shape[2:]) if count == 1 and real.all() else own[real]
        yield i, touched[real], np.swapaxes(one, 0, 1)
        start += count * q
