"""The mode of the posterior of the variance parameters, and the curvature there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import optimize

from ...errors import DesignError, SamplingError
from ...kernel.estimate import best_of
from ...kernel.refit import inside
from ...kernel.start import starts
from .target import Target

if TYPE_CHECKING:
    from ...model import LMM

_DECREMENT = 1e-12  # log density that a Newton step would still gain
_FLAT = 0.05  # least curvature that counts: a direction has a posterior sd of at most 1/√0.05 = 4.5 in u
_APART = 0.5  # log density within which two summits are both kept
_LOWER = 12.0  # log density below the highest summit from which one is ignored


@dataclass(frozen=True)
class Mode:
    """A summit u (K,) of the log density, its height, and the covariance (K, K) of the normal that fits
    there.
    """

    u: np.ndarray
    value: float
    covariance: np.ndarray


def modes(target: Target, model: LMM) -> tuple[Target, list[Mode]]:
    """The summits of the log posterior, the highest first, in coordinates around the REML estimate.

    Raises SamplingError where no starting point has a posterior density.
    """
    found: list[Mode] = []
    points = _starts(target, model)
    target = replace(target, coordinates=target.coordinates.around(points[0]))
    for natural in points:
        summit = climb(target, target.coordinates.inverse(natural))
        if summit is not None and not any(_same(summit, other) for other in found):
            found.append(summit)
    if not found:
        raise SamplingError(
            "No starting point has a posterior density: the priors exclude every covariance near the data. "
            "Print default_priors(model) to see values of the right size."
        )
    found.sort(key=lambda m: -m.value)
    return target, [m for m in found if m.value > found[0].value - _LOWER]


def _starts(target: Target, model: LMM) -> list[np.ndarray]:
    """Natural parameters: the REML estimate, taken a little inside; more where there may be several
    summits.
    """
    covariance, lean = model.covariance, target.lean
    candidates = starts(covariance, model.residual)
    try:
        best = [best_of(lean, covariance, candidates, True).θ]
    except DesignError:
        best = []
    chosen = best + (candidates[:: max(1, len(candidates) // 3)] if len(candidates) > 2 or not best else [])
    return [covariance.natural_from_linear(inside(covariance, θ) * lean.unit) for θ in chosen]


def climb(target: Target, u: np.ndarray, *, jacobian: bool = True) -> Mode | None:
    """Trust-region Newton steps uphill from u; None where the density is zero there.

    jacobian=False climbs the density of the natural parameters instead of that of u.
    """
    start = target.one(u, jacobian=jacobian)
    if start is None:
        return None
    last: list[tuple[np.ndarray, tuple]] = [(u, start)]

    def at(v):
        if not np.array_equal(v, last[0][0]):
            found = target.one(v, jacobian=jacobian)
            last[0] = (v.copy(), (-np.inf, np.zeros(len(v)), -np.eye(len(v))) if found is None else found)
        return last[0][1]

    def done(intermediate_result):
        _, g, H = at(intermediate_result.x)
        if 0.5 * g @ inverse_curvature(H, 1e-8) @ g < _DECREMENT:
            raise StopIteration

    found = optimize.minimize(
        lambda v: -at(v)[0], u, jac=lambda v: -at(v)[1], hess=lambda v: -at(v)[2], method="trust-exact",
        callback=done, options={"gtol": 1e-11, "maxiter": 200, "initial_trust_radius": 1.0},
    )  # fmt: skip
    value, _, H = at(found.x)
    return Mode(found.x, float(value), inverse_curvature(H))


def inverse_curvature(hessian: np.ndarray, least: float = _FLAT) -> np.ndarray:
    """(-H)⁻¹ with curvatures of at least `least` relative to a unit scale."""
    values, vectors = np.linalg.eigh(-(hessian + hessian.T) / 2)
    return (vectors / np.maximum(np.abs(values), least)) @ vectors.T


def _same(a: Mode, b: Mode) -> bool:
    d = a.u - b.u
    return bool(d @ np.linalg.solve(b.covariance, d) < _APART)
