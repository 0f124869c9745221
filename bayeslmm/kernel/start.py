"""Starting values for the optimiser, in the units of the blocks (y, X and Z of order one)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import numpy as np

from ..covariance.assembly import Covariance
from ..covariance.binding import BoundResidual
from ..covariance.correlation import Toeplitz
from ..covariance.structure import Structure
from ..errors import InferenceError

_RANGE_GRID = (0.3, 0.8, 2.0, 5.0)  # multiples of the typical gap, up to the typical span
_FINE_GRID = tuple(np.geomspace(0.8, 40, 14))
_CORRELATION_GRID = (0.2, 0.7)


def starts(covariance: Covariance, residual: BoundResidual) -> list[np.ndarray]:
    """Linear coordinates to begin from: one vector, or a small grid where a range or a correlation is nonlinear."""
    effects = sum(len(t.effects) for t in covariance.random)
    share = 0.5 if effects else 1.0
    fixed = [_start(s, 0.5 / effects, 0.3) for t in covariance.random for s, _ in t.blocks]
    choices = []
    for part, rows in zip(residual.parts, residual.rows, strict=True):
        variance = share / len(residual.parts)
        roles = {p.role for p in part.correlation.parameters(part.positions)}
        if "range" in roles:
            grid = _ranges(rows.time, residual.subject, _RANGE_GRID if part.correlation.smooth else _FINE_GRID)
        elif "correlation" in roles and not part.free:
            grid = list(_CORRELATION_GRID)
        else:
            grid = [0.0]
        choices.append([_start(part, variance, value) for value in grid])
    return [np.concatenate([*fixed, *choice]) for choice in product(*choices)]


def given(covariance: Covariance, residual: BoundResidual, values: Mapping[str, float], unit: np.ndarray) -> np.ndarray:
    """The user's starting values on the natural scale, the rest from the first of `starts`.

    Raises InferenceError for an unknown name and for a value outside its domain.
    """
    names = covariance.names
    natural = covariance.natural_from_linear(starts(covariance, residual)[0] * unit)
    domains = [p.domain for p in covariance.parameters for _ in range(len(p))]
    for name, value in values.items():
        if name not in names:
            raise InferenceError(f"start: {name!r} is no parameter of this model; there are {', '.join(names)}.")
        if not domains[names.index(name)].contains(value):
            raise InferenceError(f"start: {name} = {value!r} lies outside its domain {domains[names.index(name)]}.")
        natural[names.index(name)] = value
    return covariance.linear_from_natural(natural) / unit


def _start(structure: Structure, variance: float, value: float) -> np.ndarray:
    """Equal variances, and every range (or first correlation) at `value`."""
    sd = np.full(structure.scale.levels, np.sqrt(variance))
    power = [0.0] if structure.scale.power else []
    parameters = structure.correlation.parameters(structure.positions)
    unit = np.array([value if p.role == "range" else _correlation(p, value) for p in parameters for _ in range(len(p))])
    if structure.free:
        unit[:] = 0.0
    elif isinstance(structure.correlation, Toeplitz):
        unit[1:] = 0.0
    κ = structure.correlation.from_unit(unit, np) if unit.size else unit
    return structure.linear_from_natural(np.concatenate([sd, power, κ]))


def _correlation(parameter, value: float) -> float:
    return value if parameter.domain.contains(value) else 0.5 * parameter.domain.upper


def _ranges(time: np.ndarray | None, subject: np.ndarray | None, multiples: tuple[float, ...]) -> list[float]:
    """Ranges between the typical gap of two rows of a subject and the typical span of a subject."""
    assert time is not None
    assert subject is not None
    order = np.lexsort((time, subject))
    gaps = np.diff(time[order])[np.diff(subject[order]) == 0]
    gaps = gaps[gaps > 0]
    gap = float(np.median(gaps)) if gaps.size else 1.0
    first = np.full(subject.max() + 1, np.inf)
    last = np.full(subject.max() + 1, -np.inf)
    np.minimum.at(first, subject, time)
    np.maximum.at(last, subject, time)
    spans = (last - first)[last > first]
    span = float(np.median(spans)) if spans.size else gap
    grid = [gap * c for c in multiples if gap * c < span or c == 0.8]
    return [*grid, span] if span > grid[-1] else grid
