"""The normal distribution of Ω = U + W at target rows given observed rows, block by block.

With k(t) = Σ(t, t_i) the covariance of a target with the observed rows of its block, V₁ their covariance,
and the terms that cross blocks set aside as U₂b, b ~ N(0, G₂):

    Ω̂(t) = k'V₁⁻¹(y - Xβ) + h'b̂,     h = u - U₂'V₁⁻¹k,     b̂ = KU₂'V₁⁻¹(y - Xβ)
    Var[Ω(t) | y] = Σ(t, t) - k'V₁⁻¹k + h'Kh,                K = (G₂⁻¹ + U₂'V₁⁻¹U₂)⁻¹

(the lecture's formulas where nothing crosses). Ω̂(t) + x'β̂ depends on β̂ through d = x - X'V₁⁻¹k -
X'V₁⁻¹U₂Kh. k = k_U + k_W keeps the random effects and the serial process apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from ..covariance.assembly import Covariance
from .padded import Batch, Group, groups, make_batch
from .stacked import Stacked
from .woodbury import inner_inverse


@dataclass(frozen=True)
class Conditional:
    """What is known of the targets (T,), at given β: Û, Ŵ, d (T, p), and conditional variances.

    var_u, var_w of the random effects and the serial process, cov_uw their covariance, prior the variance
    of Ω before the data."""

    u: np.ndarray
    w: np.ndarray
    d: np.ndarray
    var_u: np.ndarray
    var_w: np.ndarray
    cov_uw: np.ndarray
    prior: np.ndarray


@dataclass(frozen=True)
class Piece:
    """One group, solved under V₁: columns are [serial and random effects] of each target.

    target (B, t) numbers from 0, -1 padded; au, aw (B, m, t) = L⁻¹k; white (B, m, p + 1) = L⁻¹[X r];
    prior_u (B, t), or (B, t, t) if `full`, prior_w (B, t); hu, hw sparse (B t, u) and gram = (U₂'V₁⁻¹U₂,
    U₂'V₁⁻¹[X r]) of this group, None where nothing crosses.
    """

    target: np.ndarray
    au: np.ndarray
    aw: np.ndarray
    white: np.ndarray
    prior_u: np.ndarray
    prior_w: np.ndarray
    hu: sparse.csr_array | None
    hw: sparse.csr_array | None
    gram: tuple[sparse.csr_array, np.ndarray] | None


def pieces(
    rows: Stacked, covariance: Covariance, θ: np.ndarray, beta: np.ndarray, *, full: bool = False
) -> Iterator[Piece]:
    """Solve every group; β enters through r = y - Xβ only. full: with covariances between targets."""
    D = np.column_stack([rows.X[: rows.observed], rows.y - rows.X[: rows.observed] @ beta])
    U = crossed_columns(rows)
    reducible = all(p.diagonal for p in covariance.residual)
    for group in groups(rows):
        batch = make_batch(rows, group, covariance, θ)
        real = (group.observed >= 0)[..., None]
        data = np.where(real, D[group.observed], 0.0)
        crossed = None if U is None else padded_rows(U, group.observed)
        left = None
        if reducible:
            batch, data, crossed, left = reduce(batch, data, crossed)
        yield _solve(rows, group, batch, data, crossed, left, U, full)


def crossed_columns(rows: Stacked) -> sparse.csr_array | None:
    """[Z of each crossed term] as sparse columns (n, u)."""
    parts = []
    for i in rows.crossed:
        n, q = rows.Z[i].shape
        columns = rows.codes[i][:, None] * q + np.arange(q)
        where = (np.repeat(np.arange(n), q), columns.ravel())
        parts.append(sparse.csr_array((rows.Z[i].ravel(), where), shape=(n, rows.levels[i] * q)))
    return sparse.csr_array(sparse.hstack(parts, format="csr")) if parts else None


def padded_rows(U: sparse.csr_array, index: np.ndarray) -> sparse.csr_array:
    """The rows of U of a group (B m, u), zero where padded."""
    flat = index.ravel()
    keep = sparse.diags_array((flat >= 0).astype(float))
    return sparse.csr_array(keep @ U[np.maximum(flat, 0)])


def block_diagonal(T: np.ndarray) -> Any:
    """Matrices (B, r, c) as one sparse block diagonal matrix (B r, B c)."""
    B, r, c = T.shape
    if not T.size:
        return sparse.csr_array((B * r, B * c))
    return sparse.bsr_array((np.ascontiguousarray(T), np.arange(B), np.arange(B + 1)), shape=(B * r, B * c))


def reduce(batch: Batch, data: np.ndarray, U):
    """Independent errors: with R^-½Zo = QT the rows Q'R^-½[Zo X r] hold all that the targets depend on."""
    B, m, k = batch.Zo.shape
    if k >= m or not (batch.error > 0).all():
        return batch, data, U, None
    root = 1 / np.sqrt(batch.error)
    Q, T = np.linalg.qr(batch.Zo * root[..., None])
    turn = np.swapaxes(Q, 1, 2) * root[:, None, :]
    kept = turn @ data
    out = Batch(T, batch.Zt, batch.G, np.ones((B, k)), None, batch.cross[:, :, :k], batch.own)
    if U is None:
        return out, kept, None, None
    new = sparse.csr_array(block_diagonal(turn) @ U)
    scaled = U.multiply(root.reshape(-1, 1)).tocsr()
    white = (data * root[..., None]).reshape(B * m, -1)
    left = (scaled.T @ scaled - new.T @ new, scaled.T @ white - new.T @ kept.reshape(B * k, -1))
    return out, kept, new, left


def _solve(rows: Stacked, group: Group, b: Batch, data, crossed, left, U, full: bool) -> Piece:
    V = b.V()
    ku = b.Zt @ np.swapaxes(b.Zo @ b.G, 1, 2)
    Li = np.linalg.inv(np.linalg.cholesky(V)) if V.shape[1] else V
    au, aw = Li @ np.swapaxes(ku, 1, 2), Li @ np.swapaxes(b.cross, 1, 2)
    white = Li @ data
    hu = hw = gram = None
    if crossed is not None and U is not None:
        WU = sparse.csr_array(block_diagonal(Li) @ crossed)
        hu = sparse.csr_array(padded_rows(U, group.targets) - block_diagonal(np.swapaxes(au, 1, 2)) @ WU)
        hw = sparse.csr_array(-(block_diagonal(np.swapaxes(aw, 1, 2)) @ WU))
        gram = (WU.T @ WU, WU.T @ white.reshape(WU.shape[0], white.shape[-1]))
        if left is not None:
            gram = (gram[0] + left[0], gram[1] + left[1])
    target = np.where(group.targets >= 0, group.targets - rows.observed, -1)
    ZG = b.Zt @ b.G
    prior_u = ZG @ np.swapaxes(b.Zt, 1, 2) if full else (ZG * b.Zt).sum(axis=2)
    prior_w = np.diagonal(b.own, axis1=1, axis2=2)
    return Piece(target, au, aw, white, prior_u, prior_w, hu, hw, gram)


@dataclass(frozen=True)
class Crossed:
    """The crossed effects given the data: b̂ (u,), K (u, u) and K U₂'V₁⁻¹X (u, p)."""

    b: np.ndarray
    K: np.ndarray
    KUX: np.ndarray


def solve_crossed(found: list[Piece], rows: Stacked, covariance: Covariance, θ: np.ndarray) -> Crossed | None:
    """b̂ and K from the sums over all groups; None where nothing crosses."""
    if not rows.crossed:
        return None
    G = covariance.G(θ)
    widths = tuple(rows.levels[i] * len(G[i]) for i in rows.crossed)
    grams = [x.gram for x in found if x.gram is not None]
    S = np.sum([g[0].toarray() for g in grams], axis=0) if len(grams) < 8 else sum(g[0] for g in grams).toarray()
    right = sum(g[1] for g in grams)
    solved = inner_inverse(S, [G[i] for i in rows.crossed], widths)
    assert solved is not None
    K = solved[0]
    KU = K @ right
    return Crossed(KU[:, -1], K, KU[:, :-1])


def condition(rows: Stacked, covariance: Covariance, θ: np.ndarray, beta: np.ndarray) -> Conditional:
    """The conditional distribution of every target; θ linear coordinates in the units of the data."""
    found = list(pieces(rows, covariance, θ, beta))
    crossed = solve_crossed(found, rows, covariance, θ)
    T, p = len(rows.X) - rows.observed, rows.X.shape[1]
    u, w, var_u, var_w, cov, prior = np.zeros((6, T))
    out = Conditional(u, w, np.zeros((T, p)), var_u, var_w, cov, prior)
    for x in found:
        inside = x.target >= 0
        at = x.target[inside]
        white, α = x.white[..., :-1], x.white[..., -1]
        put = lambda a, v, inside=inside, at=at: a.__setitem__(at, v[inside])  # noqa: E731
        diagonal = lambda a, b: np.einsum("bmt,bmt->bt", a, b)  # noqa: E731
        priors = [x.prior_u, x.prior_w]
        u, w = (np.einsum("bmt,bm->bt", a, α) for a in (x.au, x.aw))
        var_u, var_w = priors[0] - diagonal(x.au, x.au), priors[1] - diagonal(x.aw, x.aw)
        cov = -diagonal(x.au, x.aw)
        d = -np.einsum("bmt,bmp->btp", x.au + x.aw, white)
        prior = priors[0] + priors[1]
        if crossed is not None and x.hu is not None and x.hw is not None:
            shape = u.shape
            uK, wK = x.hu @ crossed.K, x.hw @ crossed.K
            u, w = u + (x.hu @ crossed.b).reshape(shape), w + (x.hw @ crossed.b).reshape(shape)
            dot = lambda h, a, shape=shape: np.asarray(h.multiply(a).sum(axis=1)).reshape(shape)  # noqa: E731
            var_u, var_w, cov = var_u + dot(x.hu, uK), var_w + dot(x.hw, wK), cov + dot(x.hw, uK)
            d = d - ((x.hu + x.hw) @ crossed.KUX).reshape(d.shape)
        for a, v in ((out.u, u), (out.w, w), (out.var_u, var_u), (out.var_w, var_w), (out.cov_uw, cov),
                     (out.d, d), (out.prior, prior)):  # fmt: skip
            put(a, v)
    out.d[:] += rows.X[rows.observed :]
    if rows.crossed:
        out.prior[:] += _crossed_prior(rows, covariance.G(θ))
    return out


def _crossed_prior(rows: Stacked, G: list[np.ndarray]) -> np.ndarray:
    z = [(rows.Z[i][rows.observed :], G[i]) for i in rows.crossed]
    return np.sum([np.einsum("ta,ab,tb->t", a, g, a) for a, g in z], axis=0)
