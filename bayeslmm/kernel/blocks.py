"""Arranges a design for the likelihood: independent blocks, grouped by pattern, and reduced without loss.

V is block diagonal over the levels of one grouping factor, the *block factor*, once the terms that cross it are set
aside as further columns U of the design. Four exact steps make the likelihood cheap and well conditioned, none of
which depends on θ:

1. y is replaced by its least squares residual, X by an orthonormal basis and the columns of Z by multiples of about 1.
2. Blocks with the same Z, times and strata share one V: a *pattern*.
3. Where the errors of a block are independent with one variance, a rotation Q' of its rows splits them into the few
   rows that random effects touch, and pure error, of which only the cross-products matter.
4. A pattern of many blocks is replaced by a triangular factor of its cross-products: T = Σ vec(D_i) vec(D_i)'.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..covariance.assembly import Covariance
from ..covariance.binding import BoundResidual, nested
from ..covariance.correlation import Independent
from ..design import Design
from .batch import Blocks
from .batching import chunks, compress_batch, merge, pool
from .partition import Partition, partition
from .patterns import Raw, as_batch, by_size, crossed_columns, local_levels, patterns_of, rotate
from .standard import standardize, unit_of


def arrange(design: Design, covariance: Covariance, residual: BoundResidual, *,
            clusters: np.ndarray | None = None, responses: np.ndarray | None = None) -> Blocks:  # fmt: skip
    """Steps 1 to 3: a design and its bound covariance -> blocks.

    clusters: codes (n,) that are to be the blocks, in which every term and residual subject is nested; the
    rows then stay as they are (no rotation, no division by weights) and each block has its whole V.
    responses: (n, R) columns that take the place of y, one set of blocks for all of them.
    """
    standard = standardize(design, covariance, responses)
    n, p = design.X.shape
    D, Z, log_weights = standard.D, standard.Z, 0.0
    diagonal = len(residual.parts) == 1 and isinstance(residual.parts[0].correlation, Independent)
    reducible = clusters is None and diagonal and not residual.parts[0].scale.power
    rows = residual.rows
    if reducible and rows[0].weight is not None:
        root = np.sqrt(rows[0].weight)[:, None]
        D, Z = D * root, tuple(z * root for z in Z)
        log_weights = float(np.log(rows[0].weight).sum())
        rows = (replace(rows[0], weight=None),)
    if clusters is None:
        part = partition(design.terms, residual, reducible, n)
    else:
        part = Partition(clusters, tuple(range(len(design.terms))), ())
    if reducible and rows[0].level is not None:
        strata = rows[0].level
        reducible = nested(part.codes, strata)
    U, widths = crossed_columns(design.terms, Z, part.crossed)
    within = tuple(design.terms[i].codes for i in part.within)
    raw = Raw(part.codes, within, tuple(local_levels(part.codes, design.terms[i].codes) for i in part.within),
               tuple(Z[i] for i in part.within), rows, residual.subject, D, U)
    batches, noise = [], []
    for index in by_size(raw):
        patterns = patterns_of(raw, index)
        if reducible:
            kept, left = rotate(raw, patterns)
            batches += kept
            noise += left
        else:
            batches.append(as_batch(raw, patterns))
    batches = [chunk for b in merge(batches) for chunk in chunks(b)]
    return Blocks(
        tuple(batches), tuple(pool(noise)), part.within, part.crossed, widths, n, p,
        unit_of(covariance, standard), standard.y_scale, standard.basis, standard.center, log_weights,
        tuple(len(t.levels) for t in design.terms), standard.z_scale,
    )  # fmt: skip


def compress(blocks: Blocks) -> Blocks:
    """The same likelihood from fewer numbers; which block belongs to whom is lost."""
    if blocks.crossed:
        return blocks
    return replace(blocks, batches=tuple(compress_batch(b) for b in blocks.batches))
