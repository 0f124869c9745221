"""Fewer and larger arrays: cross-products in the place of many blocks, one batch for each number of rows, bounded memory."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
from scipy import sparse

from ..covariance.correlation import Rows
from .batch import Batch, Noise

_CHUNK = 2_000_000  # numbers in one array of V: bounds the memory of a batch


def compress_batch(batch: Batch) -> Batch:
    """Replace the N blocks of a pattern by a triangular factor of their cross-products where that is smaller."""
    _, m, c = batch.data.shape
    ends = np.cumsum(np.bincount(batch.owner, minlength=len(batch.count)))
    if not (np.diff(ends, prepend=0) > m * c).any():
        return batch
    data, owner = [], []
    for pattern, (start, end) in enumerate(zip(np.concatenate([[0], ends[:-1]]), ends, strict=True)):
        part = batch.data[start:end]
        if len(part) > m * c:
            part = triangle(part.reshape(len(part), m * c)).reshape(-1, m, c)
        data.append(part)
        owner.append(np.full(len(part), pattern))
    return replace(batch, data=np.concatenate(data), owner=np.concatenate(owner), block=None, levels=None)


def triangle(A: np.ndarray) -> np.ndarray:
    """R of A = QR for a tall A, from pieces that fit in cache."""
    step = max(4 * A.shape[1], 2000)
    if len(A) <= 2 * step:
        return np.linalg.qr(A, mode="r")
    pieces = [np.linalg.qr(A[k : k + step], mode="r") for k in range(0, len(A), step)]
    return triangle(np.concatenate(pieces))


def merge(batches: list[Batch]) -> list[Batch]:
    """One batch for each number of rows."""
    out = []
    for m in sorted({b.data.shape[1] for b in batches}):
        same = [b for b in batches if b.data.shape[1] == m]
        out.append(same[0] if len(same) == 1 else _join(same))
    return out


def _join(batches: list[Batch]) -> Batch:
    shift = np.cumsum([0] + [len(b.count) for b in batches[:-1]])
    Z, levels = [], []
    local = [b.levels or () for b in batches]
    for t in range(len(batches[0].Z)):
        most = max(b.Z[t].shape[2] for b in batches)
        Z.append(np.concatenate([_pad(b.Z[t], most, 2, 0) for b in batches]))
        levels.append(np.concatenate([_pad(x[t], most, 1, -1) for x in local]))
    return Batch(
        tuple(Z),
        tuple(_join_rows(parts) for parts in zip(*(b.rows for b in batches), strict=True)),
        np.concatenate([b.count for b in batches]),
        np.concatenate([b.owner + s for b, s in zip(batches, shift, strict=True)]),
        np.concatenate([b.data for b in batches]),
        None if batches[0].crossed is None else sparse.csr_array(sparse.vstack([b.crossed for b in batches])),
        np.concatenate([b.block for b in batches]),
        tuple(levels),
    )


def _pad(a: np.ndarray, length: int, axis: int, value: float) -> np.ndarray:
    width = [(0, length - size if i == axis else 0) for i, size in enumerate(a.shape)]
    return np.pad(a, width, constant_values=value)


def _join_rows(parts: tuple[Rows, ...]) -> Rows:
    def field(name):
        arrays = [getattr(r, name) for r in parts]
        if all(a is None for a in arrays):
            return None
        if name == "same":  # one batch may hold several subjects in a block and another only one
            shape = next(a for a in arrays if a is not None).shape[1:]
            arrays = [np.ones((_length(r), *shape)) if a is None else a for a, r in zip(arrays, parts, strict=True)]
        return np.concatenate(arrays)

    return Rows(**{f.name: field(f.name) for f in fields(Rows)})


def _length(rows: Rows) -> int:
    return next(len(a) for a in (rows.position, rows.time, rows.level) if a is not None)


def chunks(batch: Batch):
    """Pieces whose arrays of V and of data stay below a bound; a pattern cut in two is counted once."""
    S, m, c = batch.data.shape
    P = len(batch.count)
    step = max(1, min(_CHUNK // max(m * m, 1), _CHUNK // max(m * c, 1)))
    if step >= max(S, P):
        yield batch
        return
    for start in range(0, S, step):
        stop = min(start + step, S)
        low, high = batch.owner[start], batch.owner[stop - 1] + 1
        count = batch.count[low:high].copy()
        if start and batch.owner[start - 1] == low:
            count[0] = 0
        yield Batch(
            tuple(z[low:high] for z in batch.Z),
            tuple(r.take(slice(low, high)) for r in batch.rows),
            count,
            batch.owner[start:stop] - low,
            batch.data[start:stop],
            None if batch.crossed is None else batch.crossed[start * m : stop * m],
            None if batch.block is None else batch.block[start:stop],
            None if batch.levels is None else tuple(x[start:stop] for x in batch.levels),
        )


def pool(noise: list[Noise]) -> list[Noise]:
    """One record for each stratum."""
    out: dict[int, Noise] = {}
    for x in noise:
        key = -1 if x.rows.level is None else int(x.rows.level[0, 0])
        out[key] = x if key not in out else replace(x, count=out[key].count + x.count, gram=out[key].gram + x.gram)
    return list(out.values())
