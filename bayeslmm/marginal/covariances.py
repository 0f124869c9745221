"""Dense covariance matrices of a few rows, straight from the definition V = Z G Z' + R."""

from __future__ import annotations

import numpy as np

from ..covariance.assembly import Covariance
from ..covariance.binding import BoundResidual
from ..covariance.correlation import Rows
from ..design import Design


def subject_covariance(
    design: Design, covariance: Covariance, residual: BoundResidual, θ: np.ndarray, rows: np.ndarray, *, marginal: bool
) -> np.ndarray:
    """V (m, m) of the chosen rows, or R where `marginal` is False, at linear coordinates θ in the data's units."""
    R = covariance.R(θ, tuple(residual_rows(residual, r, rows) for r in residual.rows))[0]
    if not marginal:
        return R
    V = R
    for term, G in zip(design.terms, covariance.G(θ), strict=True):
        Z, level = term.Z[rows], term.codes[rows]
        V = V + (Z @ G @ Z.T) * (level[:, None] == level[None])
    return V


def residual_rows(residual: BoundResidual, constants: Rows, rows: np.ndarray) -> Rows:
    """The chosen rows as one pattern."""
    take = lambda a: None if a is None else a[rows][None]  # noqa: E731
    same = None
    if residual.subject is not None:
        s = residual.subject[rows]
        same = (s[:, None] == s[None]).astype(float)[None]
    return Rows(take(constants.position), take(constants.time), take(constants.level),
                take(constants.log_covariate), same, take(constants.weight))  # fmt: skip
