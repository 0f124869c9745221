"""Draws of the response from a fitted model: y = Xβ + Zw + e with new random effects and new errors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..covariance.assembly import Covariance
from ..covariance.binding import BoundResidual, nested
from ..covariance.correlation import Rows
from ..covariance.structure import semidefinite_cholesky
from ..design import Design
from ..errors import InferenceError


def simulate(
    design: Design,
    covariance: Covariance,
    residual: BoundResidual,
    θ: np.ndarray,
    beta: np.ndarray,
    n: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """n responses (rows, n) at linear coordinates θ and coefficients beta, in the units of the data.

    Raises InferenceError where negative variance components are crossed: then V has no blocks to draw from.
    """
    mean = (design.X @ beta + design.offset)[:, None]
    if any(s.signed for s in covariance.structures):
        return mean + _marginal_draws(design, covariance, residual, θ, n, rng)
    y = mean + _errors(covariance, residual, θ, len(design.y), n, rng)
    for term, G in zip(design.terms, covariance.G(θ), strict=True):
        w = semidefinite_cholesky(G) @ rng.standard_normal((len(term.levels), len(G), n))
        for q in range(len(G)):
            y += term.Z[:, q, None] * w[term.codes, q]
    return y


def _errors(covariance, residual: BoundResidual, θ, rows: int, n: int, rng) -> np.ndarray:
    subject = np.arange(rows) if residual.subject is None else residual.subject
    out = np.empty((rows, n))
    for index in _by_size(subject):
        R = covariance.R(θ, tuple(_take(r, index) for r in residual.rows))
        out[index] = np.linalg.cholesky(R) @ rng.standard_normal((*index.shape, n))
    return out


def _marginal_draws(design: Design, covariance, residual: BoundResidual, θ, n: int, rng) -> np.ndarray:
    units = [t.codes for t in design.terms] + ([] if residual.subject is None else [residual.subject])
    codes = next((c for c in units if all(nested(other, c) for other in units)), None)
    if codes is None:
        raise InferenceError(
            "The model allows negative variance components and its grouping factors are crossed: it "
            "cannot be simulated block by block. Fit it with signed=False."
        )
    out = np.empty((len(design.y), n))
    for index in _by_size(codes):
        V = covariance.R(θ, tuple(_take(r, index, residual.subject) for r in residual.rows))
        for term, G in zip(design.terms, covariance.G(θ), strict=True):
            Z, level = term.Z[index], term.codes[index]
            V = V + (Z @ G @ np.swapaxes(Z, 1, 2)) * (level[:, :, None] == level[:, None])
        out[index] = np.linalg.cholesky(V) @ rng.standard_normal((*index.shape, n))
    return out


def _by_size(codes: np.ndarray) -> Iterator[np.ndarray]:
    """Row indices (B, m) of the blocks of each size m."""
    order = np.argsort(codes, kind="stable")
    size = np.bincount(codes)
    start = np.cumsum(size) - size
    for m in np.unique(size[size > 0]):
        yield order[start[size == m][:, None] + np.arange(m)]


def _take(rows: Rows, index: np.ndarray, subject: np.ndarray | None = None) -> Rows:
    pick = lambda a: None if a is None else a[index]  # noqa: E731
    same = None
    if subject is not None:
        s = subject[index]
        same = (s[:, :, None] == s[:, None]).astype(float)
    fields = (rows.position, rows.time, rows.level, rows.log_covariate)
    position, time, level, covariate = (pick(a) for a in fields)
    return Rows(position, time, level, covariate, same, pick(rows.weight))
