"""The arrays that the likelihood reads: blocks of rows by pattern, pure error, and the way back to the user's units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from ..covariance.correlation import Rows


@dataclass(frozen=True)
class Batch:
    """Blocks of m rows. P patterns, S data blocks in the order of their pattern.

    Z: for each term within blocks (P, m, ℓ, q), ℓ levels of the term in a block; rows: for each residual component;
    count (P,) how many blocks of the data each pattern stands for; owner (S,) pattern of each data block;
    data (S, m, c) the columns [X y]; crossed: sparse (S m, u) columns of crossed terms, or None; block (S,) which
    block of the data this is, levels: for each term (S, ℓ) the levels it touches (-1: none), both None once
    compressed.
    """

    Z: tuple[np.ndarray, ...]
    rows: tuple[Rows, ...]
    count: np.ndarray
    owner: np.ndarray
    data: np.ndarray
    crossed: sparse.csr_array | None
    block: np.ndarray | None
    levels: tuple[np.ndarray, ...] | None

    def take(self, here: np.ndarray) -> Batch:
        """Some of the data blocks (their numbers, increasing), with the patterns that they have."""
        m = self.data.shape[1]
        pattern, owner = np.unique(self.owner[here], return_inverse=True)
        return Batch(
            tuple(z[pattern] for z in self.Z),
            tuple(r.take(pattern) for r in self.rows),
            np.bincount(owner, minlength=len(pattern)),
            owner,
            self.data[here],
            None if self.crossed is None else self.crossed[(here[:, None] * m + np.arange(m)).ravel()],
            None if self.block is None else self.block[here],
            None if self.levels is None else tuple(x[here] for x in self.levels),
        )


@dataclass(frozen=True)
class Noise:
    """Directions of the data that no random effect touches: `count` of them, with cross-products `gram`."""

    rows: Rows
    count: int
    gram: np.ndarray


@dataclass(frozen=True)
class Blocks:
    """A design arranged for the likelihood, in units where y, X and Z are of order one.

    within, crossed: indices of terms; widths: columns of each crossed term; unit (K,): linear coordinate =
    unit x coordinate here; y_scale; basis (p, p): X = Q basis; center (p,): β at which y is centred;
    log_weights: Σ log of the known weights that were divided out.
    """

    batches: tuple[Batch, ...]
    noise: tuple[Noise, ...]
    within: tuple[int, ...]
    crossed: tuple[int, ...]
    widths: tuple[int, ...]
    n: int
    p: int
    unit: np.ndarray
    y_scale: float
    basis: np.ndarray
    center: np.ndarray
    log_weights: float
    levels: tuple[int, ...]
    z_scale: tuple[np.ndarray, ...]
