"""Blocks of similar size side by side: which rows, their Z by level, their residual covariance.

Blocks are padded with rows of variance one that nothing depends on, so that a few batches hold all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import block_diag

from ..covariance.assembly import Covariance
from ..covariance.correlation import Rows
from .stacked import Stacked

_NUMBERS = 2_000_000  # in one array of a batch: bounds the memory


@dataclass(frozen=True)
class Group:
    """Blocks of similar size: rows (B, m) of the observed, (B, t) of the targets, -1 where padded."""

    observed: np.ndarray
    targets: np.ndarray


def groups(rows: Stacked, numbers: int = _NUMBERS, *, every: bool = False, exact: bool = False) -> Iterator[Group]:
    """Blocks in batches of similar numbers of observed rows and targets.

    every: blocks without targets too. exact: equal numbers, so that nothing is padded.
    """
    n = rows.observed
    _, block = np.unique(rows.block, return_inverse=True)
    count = int(block.max(initial=-1)) + 1
    order = np.argsort(block, kind="stable")
    seen = np.bincount(block[:n], minlength=count)
    wanted = np.bincount(block[n:], minlength=count)
    start = np.cumsum(seen + wanted) - seen - wanted
    keep = np.flatnonzero((wanted > 0) | ((seen > 0) & (every or bool(rows.crossed))))
    rounded = (lambda size: size) if exact else _ladder
    sizes = np.column_stack([rounded(seen[keep]), rounded(wanted[keep])])
    for m, t in np.unique(sizes, axis=0):
        chosen = keep[(sizes == (m, t)).all(axis=1)]
        length = max(1, int(numbers // max((m + t) ** 2, 1)))
        for part in (chosen[i : i + length] for i in range(0, len(chosen), length)):
            yield Group(
                _pick(order, start[part], seen[part], m),
                _pick(order, start[part] + seen[part], wanted[part], t),
            )


def _ladder(size: np.ndarray) -> np.ndarray:
    """Round up to 0, 1, 2, 3, 4, 6, 8, 12, 16, 24, ...: few sizes, half of a block at most is padding."""
    steps = np.array([0, 1, 2, 3] + [k * 2**i for i in range(1, 40) for k in (2, 3)])
    return steps[np.searchsorted(steps, size)]


def _pick(order: np.ndarray, start: np.ndarray, length: np.ndarray, m: int) -> np.ndarray:
    place = start[:, None] + np.arange(m)
    inside = np.arange(m) < length[:, None]
    return np.where(inside, order[np.minimum(place, len(order) - 1)], -1)


def take_rows(rows: Rows, index: np.ndarray, subject: np.ndarray | None) -> Rows:
    """The constants of the chosen rows (B, m); padded entries repeat the block's first row."""
    pick = lambda a: None if a is None else a[index]  # noqa: E731
    same = None
    if subject is not None:
        s = subject[index]
        same = (s[:, :, None] == s[:, None, :]).astype(float)
    return Rows(
        pick(rows.position),
        pick(rows.time),
        pick(rows.level),
        pick(rows.log_covariate),
        same,
        pick(rows.weight),
    )


@dataclass(frozen=True)
class Batch:
    """The numbers of a group: Zo (B, m, k) and Zt (B, t, k) over the local levels of the terms within blocks,
    G (k, k), error (B, m) variances of independent errors (1 where padded), serial (B, m, m) the rest of R
    or None, cross (B, t, m) and own (B, t, t) of the serial components.
    """

    Zo: np.ndarray
    Zt: np.ndarray
    G: np.ndarray
    error: np.ndarray
    serial: np.ndarray | None
    cross: np.ndarray
    own: np.ndarray

    def V(self) -> np.ndarray:
        """The covariance (B, m, m) of the observed rows."""
        V = self.Zo @ self.G @ np.swapaxes(self.Zo, 1, 2)
        V = V if self.serial is None else V + self.serial
        at = np.arange(V.shape[1])
        V[:, at, at] += self.error
        return V


def local_Z(rows: Stacked, group: Group) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Z of a group by level within each block, and the number of levels of each term."""
    index = np.concatenate([group.observed, group.targets], axis=1)
    B, m = index.shape
    wide, counts = [], []
    for i in rows.within:
        codes = np.where(index >= 0, rows.codes[i][index], -1)
        local = _rank_within(codes)
        count = int(local.max(initial=0)) + 1
        z = np.where((index >= 0)[..., None], rows.Z[i][index], 0.0)
        indicator = (local[..., None] == np.arange(count)).astype(float)
        wide.append((indicator[..., None] * z[:, :, None, :]).reshape(B, m, -1))
        counts.append(count)
    Z = np.concatenate(wide, axis=2) if wide else np.zeros((B, m, 0))
    cut = group.observed.shape[1]
    return Z[:, :cut], Z[:, cut:], counts


def _rank_within(codes: np.ndarray) -> np.ndarray:
    """Number the distinct codes (B, m) of each block from 0; -1 stays out of the count."""
    order = np.argsort(codes, axis=1, kind="stable")
    ordered = np.take_along_axis(codes, order, axis=1)
    new = np.zeros_like(ordered)
    new[:, 1:] = (ordered[:, 1:] != ordered[:, :-1]) & (ordered[:, :-1] >= 0)
    rank = np.cumsum(new, axis=1)
    out = np.empty_like(rank)
    np.put_along_axis(out, order, rank, axis=1)
    return out


def residual_matrices(rows: Stacked, group: Group, covariance: Covariance, θ: np.ndarray):
    """(error, serial, cross, own) of a `Batch`."""
    index = np.concatenate([group.observed, group.targets], axis=1)
    filled = np.where(index >= 0, index, index.max(axis=1, keepdims=True))
    real = (index >= 0).astype(float)
    m = group.observed.shape[1]
    B, t = group.targets.shape
    error, Σ = 1 - real[:, :m], None
    for part, k, constants in zip(covariance.residual, covariance.residual_slices(), rows.rows, strict=True):
        if part.diagonal:
            one = take_rows(constants, filled[:, :m].reshape(-1, 1), None)
            error = error + part.matrix(θ[k], one).reshape(B, m) * real[:, :m]
        else:
            own = part.matrix(θ[k], take_rows(constants, filled, rows.subject))
            own = own * real[:, :, None] * real[:, None, :]
            Σ = own if Σ is None else Σ + own
    if Σ is None:
        return error, None, np.broadcast_to(0.0, (B, t, m)), np.broadcast_to(0.0, (B, t, t))
    return error, Σ[:, :m, :m], Σ[:, m:, :m], Σ[:, m:, m:]


def make_batch(rows: Stacked, group: Group, covariance: Covariance, θ: np.ndarray, local: Any = None) -> Batch:
    """The numbers of a group at θ; local: what `local_Z` gives, where it is known already."""
    Zo, Zt, counts = local_Z(rows, group) if local is None else local
    G = covariance.G(θ)
    wide = block_diag(*(np.kron(np.eye(c), G[i]) for i, c in zip(rows.within, counts, strict=True)))
    return Batch(Zo, Zt, wide if counts else np.zeros((0, 0)), *residual_matrices(rows, group, covariance, θ))
