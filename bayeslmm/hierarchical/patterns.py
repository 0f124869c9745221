"""Arranges the rows of a residual for batched algebra: subjects of similar size together, each pattern once.

Subjects with the same residual constants (times, positions, strata, weights) share one R: a *pattern*. A
batch pads its subjects to one size m, so that P patterns are one array (P, m, m) and no loop over subjects
is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..covariance.binding import BoundResidual
from ..covariance.correlation import Rows

_FILL = 0.6  # share of a batch's size that a subject must fill: padding costs at most 1/0.6³ in flops


@dataclass(frozen=True)
class Batch:
    """S subjects padded to m rows, with P patterns.

    index (S, m): their rows, padding repeats the first; inside (S, m) and mask (P, m): 1 where a row is
    real; owner (S,): pattern of each subject; rows: for each residual component its constants (P, m).
    """

    index: np.ndarray
    inside: np.ndarray
    mask: np.ndarray
    owner: np.ndarray
    rows: tuple[Rows, ...]


def batches(residual: BoundResidual, n: int) -> tuple[Batch, ...]:
    """All rows of a residual in batches; where rows are independent, each is a subject of its own."""
    subject = np.arange(n) if residual.subject is None else residual.subject
    keys = [a for r in residual.rows for a in (r.position, r.time) if a is not None]
    order = np.lexsort((*keys[::-1], subject))
    size = np.bincount(subject)
    start = np.cumsum(size) - size
    found = []
    for members in _size_classes(size):
        m = int(size[members].max())
        within = np.arange(m) < size[members][:, None]
        index = order[np.where(within, start[members][:, None] + np.arange(m), start[members][:, None])]
        found.append(_batch(residual, index, within))
    return tuple(found)


def _size_classes(size: np.ndarray) -> list[np.ndarray]:
    """Subjects whose sizes lie between m and 0.6 m, from the largest down."""
    left = np.flatnonzero(size > 0)
    classes = []
    while left.size:
        joins = size[left] >= _FILL * size[left].max()
        classes.append(left[joins])
        left = left[~joins]
    return classes


def _batch(residual: BoundResidual, index: np.ndarray, inside: np.ndarray) -> Batch:
    constants = [inside.astype(float)]
    for r in residual.rows:
        constants += [a[index] for a in (r.position, r.level, r.log_covariate, r.weight) if a is not None]
        if r.time is not None:
            constants.append(r.time[index] - r.time[index[:, :1]])
    signature = np.column_stack([np.asarray(c, float).reshape(len(index), -1) for c in constants]) + 0.0
    _, first, owner = np.unique(signature, axis=0, return_index=True, return_inverse=True)
    rows = tuple(_take(r, index[first]) for r in residual.rows)
    return Batch(index, inside.astype(float), inside[first].astype(float), owner.ravel(), rows)


def _take(rows: Rows, index: np.ndarray) -> Rows:
    def at(a: np.ndarray | None) -> np.ndarray | None:
        return None if a is None else a[index]

    return Rows(
        at(rows.position), at(rows.time), at(rows.level), at(rows.log_covariate), weight=at(rows.weight)
    )


def places_of_rows(found: tuple[Batch, ...], n: int) -> np.ndarray:
    """Where each row stands in the concatenation of all batches, raveled."""
    where = np.empty(n, int)
    flat_index = np.concatenate([b.index.ravel() for b in found])
    real = np.concatenate([b.inside.ravel() for b in found]) > 0
    where[flat_index[real]] = np.flatnonzero(real)
    return where
