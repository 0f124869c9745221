"""The coordinates in which coefficients have independent priors: columns of X centred at their means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..design import Design


@dataclass(frozen=True)
class Centring:
    """β on the scale of the formula -> β at centred columns, γ = A β.

    A (p, p) differs from the identity in the row of the intercept only, which holds the column means: γ_0
    is the mean of the response at the means of the other columns. location (p,): γ that fits mean(y) best;
    scale (p,): sd of each column (root mean square where there is no intercept).
    """

    A: np.ndarray
    location: np.ndarray
    scale: np.ndarray

    @property
    def trivial(self) -> bool:
        return bool((np.eye(len(self.A)) == self.A).all())


def centring(design: Design) -> Centring:
    """The centring of a design's columns."""
    X, y = design.X, design.y - design.offset
    p = X.shape[1]
    A, location = np.eye(p), np.zeros(p)
    intercept = next((j for j in range(p) if (X[:, j] == 1).all()), None)
    if intercept is None:
        scale = np.sqrt(np.mean(X**2, axis=0))
        location = np.linalg.lstsq(X, np.full(len(y), y.mean()), rcond=None)[0] if p else location
        return Centring(A, location, np.where(scale > 0, scale, 1.0))
    A[intercept] = X.mean(axis=0)
    location[intercept] = y.mean()
    scale = X.std(axis=0, ddof=1)
    scale[intercept] = 1.0
    return Centring(A, location, np.where(scale > 0, scale, 1.0))
