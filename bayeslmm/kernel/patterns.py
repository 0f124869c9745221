"""Blocks whose V is the same function of θ share a pattern; independent errors are rotated away from the random effects."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from ..covariance.correlation import Rows
from .batch import Batch, Noise


@dataclass(frozen=True)
class Raw:
    """Rows as they come.

    codes: of blocks; per term levels, local (their number within the block) and Z; residual rows; D: columns [X y]; U: crossed.
    """

    codes: np.ndarray
    levels: tuple[np.ndarray, ...]
    local: tuple[np.ndarray, ...]
    Z: tuple[np.ndarray, ...]
    rows: tuple[Rows, ...]
    subject: np.ndarray | None
    D: np.ndarray
    U: sparse.csr_array | None


@dataclass(frozen=True)
class Patterns:
    """Blocks of one size, sorted by pattern: index (B, m) of their rows, owner (B,), first block of each pattern."""

    index: np.ndarray
    owner: np.ndarray
    first: np.ndarray
    count: np.ndarray


def crossed_columns(terms, Z, crossed) -> tuple[sparse.csr_array | None, tuple[int, ...]]:
    parts = []
    for i in crossed:
        n, q = Z[i].shape
        columns = terms[i].codes[:, None] * q + np.arange(q)
        where = (np.repeat(np.arange(n), q), columns.ravel())
        parts.append(sparse.csr_array((Z[i].ravel(), where), shape=(n, len(terms[i].levels) * q)))
    widths = tuple(p.shape[1] for p in parts)
    return (sparse.csr_array(sparse.hstack(parts, format="csr")) if parts else None), widths


def local_levels(blocks: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Number the levels of a nested factor from 0 within each block."""
    owner = np.full(int(codes.max()) + 1, -1)
    owner[codes] = blocks
    order = np.argsort(owner, kind="stable")
    rank = np.empty(len(owner), int)
    rank[order] = np.arange(len(owner)) - np.searchsorted(owner[order], owner[order], side="left")
    return rank[codes]


def by_size(raw: Raw):
    """Row indices (B, m) of the blocks of each size m; rows in a canonical order within their block."""
    keys: list[np.ndarray] = []
    for z, local in zip(raw.Z, raw.local, strict=True):
        keys += [*z.T, local]
    for r in raw.rows:
        keys += [a for a in (r.time, r.position, r.level) if a is not None]
    if raw.subject is not None:
        keys.append(raw.subject)
    order = np.lexsort((*keys, raw.codes))
    size = np.bincount(raw.codes)
    start = np.concatenate([[0], np.cumsum(size)])[:-1]
    for m in np.unique(size[size > 0]):
        yield order[start[size == m][:, None] + np.arange(m)]


def patterns_of(raw: Raw, index: np.ndarray) -> Patterns:
    """Blocks whose V is the same function of θ: equal Z, levels and residual constants."""
    B = len(index)
    constants = [z[index].reshape(B, -1) for z in raw.Z] + [local[index] for local in raw.local]
    for r in raw.rows:
        constants += [a[index] for a in (r.position, r.level, r.log_covariate, r.weight) if a is not None]
        if r.time is not None:
            constants.append(r.time[index] - r.time[index[:, :1]])
    if raw.subject is not None:
        constants.append(_relabel(raw.subject[index]))
    signature = (
        np.ascontiguousarray(np.column_stack([np.asarray(c, float) for c in constants]) + 0.0)
        if constants
        else np.zeros((B, 1))
    )
    key = signature.view(np.dtype((np.void, signature.shape[1] * 8))).ravel()
    _, first, owner, count = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
    order = np.argsort(owner, kind="stable")
    position = np.empty(B, int)
    position[order] = np.arange(B)
    return Patterns(index[order], owner[order], position[first], count)


def _relabel(codes: np.ndarray) -> np.ndarray:
    """Codes within each block, replaced by the place of their first row."""
    return np.argmax(codes[:, :, None] == codes[:, None, :], axis=2)


def _pattern_constants(raw: Raw, patterns: Patterns):
    """Z expanded by level (P, m, ℓ, q) and residual rows of one block of each pattern."""
    index = patterns.index[patterns.first]
    Z = []
    for z, local in zip(raw.Z, raw.local, strict=True):
        levels = local[index]
        indicator = (levels[..., None] == np.arange(levels.max(initial=0) + 1)).astype(float)
        Z.append(indicator[..., None] * z[index][:, :, None, :])
    same = None
    if raw.subject is not None:
        s = raw.subject[index]
        same = (s[:, :, None] == s[:, None, :]).astype(float)
        same = None if same.all() else same
    rows = tuple(replace(r.take(index), same=same) for r in raw.rows)
    return tuple(Z), rows


def as_batch(raw: Raw, patterns: Patterns) -> Batch:
    Z, rows = _pattern_constants(raw, patterns)
    index = patterns.index
    crossed = None if raw.U is None else raw.U[index.ravel()]
    levels = []
    for z, codes, local in zip(Z, raw.levels, raw.local, strict=True):
        found = np.full((len(index), z.shape[2]), -1)
        found[np.arange(len(index))[:, None], local[index]] = codes[index]
        levels.append(found)
    return Batch(Z, rows, patterns.count, patterns.owner, raw.D[index], crossed, raw.codes[index[:, 0]], tuple(levels))


def rotate(raw: Raw, patterns: Patterns) -> tuple[list[Batch], list[Noise]]:
    """Split the rows of each block into those that random effects touch and pure error.

    With Z_i = Q R, the rows Q'[X y] have covariance R G R' + σ²I and the rest σ²I; both are independent.
    """
    batch = as_batch(raw, patterns)
    S, m, _ = batch.data.shape
    wide = [z.reshape(len(z), m, -1) for z in batch.Z]
    k = sum(w.shape[2] for w in wide)
    if k >= m:
        return [batch], []
    if k == 0:
        return [], _noise_by_stratum(batch, batch.data, None, m)
    Q, triangle = np.linalg.qr(np.concatenate(wide, axis=2))
    own = Q[batch.owner]
    reduced = np.swapaxes(own, 1, 2) @ batch.data
    error = batch.data - own @ reduced
    crossed = None
    if batch.crossed is not None:
        blocks = sparse.bsr_array((np.swapaxes(own, 1, 2), np.arange(S), np.arange(S + 1)), shape=(S * k, S * m))
        crossed = sparse.csr_array(blocks @ batch.crossed)
    ends = np.cumsum([w.shape[2] for w in wide])
    Z = tuple(
        triangle[:, :, e - w.shape[2] : e].reshape(len(z), k, *z.shape[2:])
        for e, w, z in zip(ends, wide, batch.Z, strict=True)
    )
    rows = tuple(Rows(*(None if a is None else a[:, :k] for a in (r.position, r.time, r.level))) for r in batch.rows)
    kept = replace(batch, Z=Z, rows=rows, data=reduced, crossed=crossed)
    return [kept], _noise_by_stratum(batch, error, crossed, m - k)


def _noise_by_stratum(batch: Batch, error: np.ndarray, crossed, surplus: int) -> list[Noise]:
    level = batch.rows[0].level
    stratum = np.zeros(len(batch.data), int) if level is None else level[batch.owner, 0]
    out = []
    for s in np.unique(stratum):
        chosen = np.flatnonzero(stratum == s)
        E = error[chosen].reshape(-1, error.shape[2])
        out.append(
            _error_products(
                E,
                _rows_of(batch.crossed, chosen, error.shape[1]),
                _rows_of(crossed, chosen, error.shape[1] - surplus),
                surplus * len(chosen),
                None if level is None else int(s),
            )
        )
    return out


def _rows_of(U, chosen: np.ndarray, m: int):
    return None if U is None else U[(chosen[:, None] * m + np.arange(m)).ravel()]


def _error_products(E, U, U_reduced, count: int, level: int | None) -> Noise:
    gram = E.T @ E
    if U is not None:
        uu = (U.T @ U - U_reduced.T @ U_reduced).toarray()
        ue = U.T @ E
        gram = np.block([[uu, ue], [ue.T, gram]])
    one = np.zeros((1, 1), int)
    return Noise(Rows(position=one, level=None if level is None else one + level), count, gram)
