"""The likelihood without a case, for many cases at once: cross-products of all blocks, less those of one.

Where V is linear in θ and each case lies within one block, blocks of a pattern share their cross-products T =
Σ D ⊗ D, and a case takes away its own block and puts back what is left of it: the rows that stay, the others
replaced by rows of variance one without data. No refit passes over the data again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..covariance.assembly import Covariance
from ..kernel.batched import Sums, inverses
from ..kernel.likelihood import LOG_2PI
from ..kernel.stacked import Stacked
from .prediction_df import differentiated


@dataclass(frozen=True)
class Pool:
    """Blocks of one size: B (K, P, m, m) with V = Σ θ_j B_j; count (P,); T (P m m, c c); and of the cases
    in them: case (r,), owner (r,) pattern, own (r, m, c) the block's columns [X y], keep (r, m) 1 where a
    row stays.
    """

    B: np.ndarray
    count: np.ndarray
    T: np.ndarray
    case: np.ndarray
    owner: np.ndarray
    own: np.ndarray
    keep: np.ndarray


@dataclass(frozen=True)
class Deletions:
    """R likelihoods, each without one case; removed (R,) rows are missing from n."""

    pools: tuple[Pool, ...]
    n: int
    removed: np.ndarray
    p: int
    log_basis: float
    y_scale: float

    @property
    def R(self) -> int:
        return len(self.removed)

    @property
    def constant(self) -> np.ndarray:
        return -(self.n - self.removed) * (LOG_2PI + 2 * np.log(self.y_scale))

    def take(self, index: np.ndarray) -> Deletions:
        """Some of the cases, in the order of `index`."""
        place = np.full(self.R, -1)
        place[index] = np.arange(len(index))
        pools = []
        for x in self.pools:
            here = place[x.case] >= 0
            pools.append(replace(x, case=place[x.case[here]], owner=x.owner[here], own=x.own[here], keep=x.keep[here]))
        return replace(self, pools=tuple(pools), removed=self.removed[index])

    def sums(self, θ: np.ndarray) -> Sums:
        """The sums over all blocks but what each case removes, each at its own θ (R, K)."""
        R, K = θ.shape
        a, c = 1 + K + K * (K + 1) // 2, self.p + 1
        M = np.zeros((a, R, c * c))
        logdet, traces, bad = np.zeros(R), np.zeros((a - 1, R)), np.zeros(R, bool)
        shared = bool((θ == θ[:1]).all())  # one θ for all cases: the blocks are summed once
        for x in self.pools:
            wrong, log, t, tt, A = inverses(np.tensordot(θ[:1] if shared else θ, x.B, 1), x.B[:, None])
            both = np.concatenate([t, tt])
            bad |= wrong.any(axis=1)
            M += A.reshape(a, len(log), -1) @ x.T
            logdet += log @ x.count
            traces += both @ x.count
            at = (0 if shared else x.case), x.owner
            M[:, x.case] -= _products(A[:, at[0], at[1]], x.own)
            logdet[x.case] -= log[at]
            traces[:, x.case] -= both[:, at[0], at[1]]
            if x.keep.any():
                _, log, t, tt, A = _what_stays(x, θ)
                M[:, x.case] += _products(A, x.own * x.keep[..., None])
                logdet[x.case] += log
                traces[:, x.case] += np.concatenate([t, tt])
        M = M.reshape(a, R, c, c)
        p = self.p
        return Sums(logdet, traces[:K].T, traces[K:].T, M[..., :p, :p].copy(), M[..., :p, p], M[..., p, p], bad)


def _products(A: np.ndarray, D: np.ndarray) -> np.ndarray:
    """D'AD flattened: (a, r, m, m), (r, m, c) -> (a, r, c c)."""
    return (np.swapaxes(D, 1, 2) @ A @ D).reshape(len(A), len(D), D.shape[2] ** 2)


def _what_stays(x: Pool, θ: np.ndarray):
    both = x.keep[:, :, None] * x.keep[:, None, :]
    B = x.B[:, x.owner] * both
    V = np.einsum("rj,jrmn->rmn", θ[x.case], B)
    return inverses(V + (1 - x.keep)[..., None] * np.eye(V.shape[-1]), B)


@dataclass(frozen=True)
class Columns:
    """[X y] with X orthonormal and y centred, as the fit has them: D (n, p + 1), basis, centre, y_scale,
    and unit (K,): the linear coordinates of the data are unit x those used here.
    """

    D: np.ndarray
    basis: np.ndarray
    center: np.ndarray
    y_scale: float
    unit: np.ndarray


def deletions(
    rows: Stacked,
    covariance: Covariance,
    θ: np.ndarray,
    columns: Columns,
    case: np.ndarray,
    R: int,
    *,
    linear: bool,
) -> Deletions | None:
    """Prepare R cases, case (n,) of each row, each within one block; θ in the units of the data.

    linear=False: V is held at V(θ), a family of one parameter, for answers with θ fixed. None where V is
    asked to be linear in θ and is not.
    """
    pools = []
    scale = columns.unit if linear else np.ones(1)
    numbers = 2_000_000 // columns.D.shape[1] ** 2
    for group, batch, first in differentiated(rows, covariance, θ, numbers, every=True):
        V = batch.V()
        B = V[None]
        if linear:
            B = np.stack([first[j][0] for j in range(covariance.size)])
            if np.abs(np.tensordot(θ, B, 1) - V).max() > 1e-10 * np.abs(V).max():
                return None
        B = B * (scale / columns.y_scale**2)[:, None, None, None]
        pools.append(_pool(group.observed, B, columns.D, case))
    log_basis = float(np.log(np.abs(np.diag(columns.basis))).sum())
    removed = np.bincount(case, minlength=R)
    return Deletions(tuple(pools), len(case), removed, len(columns.basis), log_basis, columns.y_scale)


def _pool(index: np.ndarray, B: np.ndarray, D: np.ndarray, case: np.ndarray) -> Pool:
    """The blocks with rows `index` (b, m), those of equal B (K, b, m, m) taken together."""
    b, m = index.shape
    signature = np.ascontiguousarray(np.swapaxes(B, 0, 1).reshape(b, -1)) + 0.0
    key = signature.view(np.dtype((np.void, signature.shape[1] * 8))).ravel()
    _, first, owner, count = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
    data = D[index]
    T = np.zeros((len(first), m * m, data.shape[2] ** 2))
    outer = np.einsum("bmc,bnd->bmncd", data, data).reshape(b, m * m, -1)
    np.add.at(T, owner, outer)
    own = case[index]
    pairs = np.unique(np.column_stack([np.repeat(np.arange(b), m), own.ravel()]), axis=0)
    block, which = pairs.T
    keep = (own[block] != which[:, None]).astype(float)
    return Pool(B[:, first], count.astype(float), T.reshape(-1, T.shape[2]), which, owner[block], data[block], keep)
