"""The response given the random effects, y | w ~ N(mean, R), as one observed variable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from .algebra import take
from .hyper import Hyper
from .patterns import Batch, batches, places_of_rows

if TYPE_CHECKING:
    from ..model import LMM

LOG_2PI = float(np.log(2 * np.pi))


def observe(model: LMM, hypers: list[Hyper], mean: Any, name: str) -> Any:
    """The observed variable `name` with dimension obs."""
    y = model.design.y
    found = batches(model.residual, len(y))
    if model.residual.subject is None:
        return pm.Normal(name, mean, _sd(hypers, found[0]), observed=y, dims="obs")
    factors = [pt.linalg.cholesky(_covariance(hypers, batch)) for batch in found]
    return _correlated(name, y, mean, found, factors)


def _covariance(hypers: list[Hyper], batch: Batch) -> Any:
    """R (P, m, m) of the patterns of a batch; padding is independent with variance 1."""
    R = 0.0
    for hyper, rows in zip(hypers, batch.rows, strict=True):
        R = R + hyper.structure.matrix(hyper.linear, rows, pt)
    real = batch.mask[:, :, None] * batch.mask[:, None, :]
    if real.all():
        return R
    return R * real + np.eye(batch.mask.shape[1]) * (1 - batch.mask)[:, :, None]


def _sd(hypers: list[Hyper], batch: Batch) -> Any:
    """Standard deviation of each row: independent rows are subjects of size one."""
    sd = pt.sqrt(_covariance(hypers, batch)[:, 0, 0])
    if len(batch.mask) == 1:
        return sd[0]
    owner = np.empty(len(batch.index), int)
    owner[batch.index[:, 0]] = batch.owner
    return take(sd, owner)


def _correlated(name: str, y: np.ndarray, mean: Any, found: tuple[Batch, ...], factors: list[Any]) -> Any:
    place = places_of_rows(found, len(y))
    arguments = ",".join(f"(p{i},m{i},m{i})" for i in range(len(found)))

    def logp(value, mean, *factors):
        parts = [_terms(value - mean, L, batch) for L, batch in zip(factors, found, strict=True)]
        return _in_rows(parts, place)

    def draw(mean, *rest):
        noise = pm.Normal.dist(size=len(y))
        parts = [_coloured(noise, L, batch) for L, batch in zip(rest[:-1], found, strict=True)]
        return mean + _in_rows(parts, place)

    return pm.CustomDist(
        name,
        mean,
        *factors,
        dist=draw,
        logp=logp,
        signature=f"(n),{arguments}->(n)",
        class_name="NormalBySubject",
        observed=y,
        dims="obs",
    )


def _terms(r: Any, L: Any, batch: Batch) -> Any:
    """log density of each row given the earlier rows of its subject (S, m); they add up."""
    u = _solve(L, take(r, batch.index) * batch.inside, batch)
    log_diagonal = pt.log(pt.diagonal(L, axis1=1, axis2=2))
    return -0.5 * (u * u + LOG_2PI) - take(log_diagonal, batch.owner)


def _solve(L: Any, r: Any, batch: Batch) -> Any:
    """L⁻¹ r of each subject: (P, m, m), (S, m) -> (S, m)."""
    if len(batch.mask) == 1:
        return pt.linalg.solve_triangular(L[0], r.T, lower=True).T
    return pt.linalg.solve_triangular(take(L, batch.owner), r, lower=True, b_ndim=1)


def _coloured(noise: Any, L: Any, batch: Batch) -> Any:
    """L u of each subject (S, m), with u standard normal."""
    u = take(noise, batch.index) * batch.inside
    return (take(L, batch.owner) * u[:, None, :]).sum(axis=2)


def _in_rows(parts: list[Any], place: np.ndarray) -> Any:
    flat = [p.ravel() for p in parts]
    return take(flat[0] if len(flat) == 1 else pt.concatenate(flat), place)
