"""Which rows form a block: the levels of one factor, chosen so that the algebra is cheapest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..covariance.binding import BoundResidual, nested
from ..design import Term


@dataclass(frozen=True)
class Partition:
    """The block of each row, and which terms stay within blocks or cross them."""

    codes: np.ndarray
    within: tuple[int, ...]
    crossed: tuple[int, ...]


def partition(terms: tuple[Term, ...], residual: BoundResidual, reducible: bool, n: int) -> Partition:
    """The cheapest block factor: cubes of block sizes against the cube of the number of crossed columns."""
    candidates = [t.codes for t in terms] + ([] if residual.subject is None else [residual.subject])
    if not candidates:
        return Partition(np.arange(n), (), ())
    best, lowest = None, np.inf
    for codes in candidates:
        if residual.subject is not None and not nested(residual.subject, codes):
            continue
        within = tuple(i for i, t in enumerate(terms) if nested(t.codes, codes))
        crossed = tuple(i for i in range(len(terms)) if i not in within)
        size = np.bincount(codes).astype(float)
        touched = np.zeros(len(size))
        for i in within:
            block = np.zeros(int(terms[i].codes.max()) + 1, int)
            block[terms[i].codes] = codes  # each level lies in one block
            touched += np.bincount(block, minlength=len(size)) * terms[i].Z.shape[1]
        m = np.minimum(size, touched) if reducible else size
        u = float(sum(len(terms[i].levels) * terms[i].Z.shape[1] for i in crossed))
        cost = np.sum(m**3) + 3 * u**3 + np.sum(m**2) * min(u, 50.0)
        if cost < lowest:
            best, lowest = Partition(codes, within, crossed), cost
    assert best is not None
    return best
