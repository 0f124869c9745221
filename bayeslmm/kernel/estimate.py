"""REML and ML estimates as plain arrays: the design in, θ̂, β̂, EBLUPs and the verdict on convergence out."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from ..covariance.assembly import Covariance
from ..covariance.binding import BoundResidual
from ..covariance.structure import Structure
from ..design import Design
from ..errors import DesignError
from .batch import Blocks
from .blocks import arrange, compress
from .information import estimated_parameters, information
from .likelihood import Evaluation
from .optimise import DECREMENT, ZERO, Optimum, maximise
from .predictors import blups
from .start import given, starts

_SCOUT_STEPS = 6
_CLIMBERS = 4
_RIDGE = 1e-11  # smallest eigenvalue of the scaled information that counts as positive


@dataclass(frozen=True)
class Convergence:
    """How a fit ended, judged at the end and not by an optimiser's word.

    status: "converged", "boundary" (converged, on the edge of the parameter space), "not identified" (a maximum, but one
    of many: parameters can be exchanged without a change in V) or "not converged"; gradient: the log-likelihood still to
    be gained by a Newton step, ½ g'H⁻¹g; at_boundary: what sits on the edge, in words.
    """

    status: str
    gradient: float
    at_boundary: tuple[str, ...]
    iterations: int
    message: str

    def __bool__(self) -> bool:
        return self.status in ("converged", "boundary")

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Estimate:
    """A fit in arrays. θ (K,) linear coordinates in the units of the data; w: (levels, q) of each grouping factor."""

    method: str
    blocks: Blocks
    θ: np.ndarray
    loglik: float
    beta: np.ndarray
    cov_beta: np.ndarray
    w: tuple[np.ndarray, ...]
    evaluation: Evaluation
    convergence: Convergence


def estimate(
    design: Design, covariance: Covariance, residual: BoundResidual, *, reml: bool,
    start: Mapping[str, float] | None = None,
) -> Estimate:  # fmt: skip
    """Maximise the (restricted) likelihood from every starting point, or from `start`, and keep the best.

    Raises DesignError where the data are fitted without error, so that no likelihood has a maximum, and InferenceError
    for a `start` that names no parameter or lies outside its domain.
    """
    blocks = arrange(design, covariance, residual)
    _has_error(design, blocks)
    lean = compress(blocks)
    candidates = starts(covariance, residual)
    if start is not None:  # beside the others where there are several summits, else in the place of the only one
        own = given(covariance, residual, start, blocks.unit)
        candidates = [own, *candidates] if len(candidates) > 1 else [own]
    best = best_of(lean, covariance, candidates, reml)
    return assemble(blocks, covariance, residual, best, reml)


def assemble(blocks: Blocks, covariance: Covariance, residual: BoundResidual, optimum: Optimum, reml: bool) -> Estimate:
    """The estimate at an optimum, in the units of the data."""
    at = optimum.evaluation
    back = np.linalg.inv(blocks.basis) if blocks.p else np.zeros((0, 0))
    return Estimate(
        method="REML" if reml else "ML",
        blocks=blocks,
        θ=optimum.θ * blocks.unit,
        loglik=at.value,
        beta=blocks.center + blocks.y_scale * (back @ at.beta),
        cov_beta=blocks.y_scale**2 * (back @ at.A_inverse @ back.T),
        w=blups(blocks, covariance, optimum.θ, at.beta),
        evaluation=at,
        convergence=_judge(covariance, residual, optimum, reml),
    )


def best_of(blocks: Blocks, covariance: Covariance, candidates: list[np.ndarray], reml: bool) -> Optimum:
    """The highest summit: from several starting points a few steps each, then on from the best that are apart."""
    if len(candidates) > 2:
        scouts = [s for θ in candidates if (s := _scout(blocks, covariance, θ, reml)) is not None]
        scouts.sort(key=lambda s: -s.evaluation.value)
        candidates = [s.θ for s in _apart(scouts)]
    summits = []
    for θ in candidates:
        with suppress(FloatingPointError):
            summits.append(maximise(blocks, covariance, θ, reml=reml))
    if not summits:
        raise DesignError("No starting covariance is positive definite: the residual structure does not fit the data.")
    return max(summits, key=lambda s: s.evaluation.value)


def _scout(blocks: Blocks, covariance: Covariance, θ: np.ndarray, reml: bool) -> Optimum | None:
    try:
        return maximise(blocks, covariance, θ, reml=reml, limit=_SCOUT_STEPS, polish=False)
    except FloatingPointError:
        return None


def _apart(scouts: list[Optimum]) -> list[Optimum]:
    """The best scouts, up to `_CLIMBERS`, none on its way to where a better one is."""
    kept: list[Optimum] = []
    for s in scouts:
        if all(np.abs(s.θ - k.θ).max() > 1e-2 * np.abs(k.θ).max() for k in kept):
            kept.append(s)
    return kept[:_CLIMBERS]


def _has_error(design: Design, blocks: Blocks) -> None:
    exact = sum(float(x.gram[-1, -1]) for x in blocks.noise)
    count = sum(x.count for x in blocks.noise)
    if blocks.noise and count > blocks.p and exact <= 1e-22 * blocks.n:
        raise DesignError(
            f"{design.response} is fitted perfectly by the fixed and random effects: there is no residual error left, "
            "and the likelihood grows without bound. Check that the response is not a function of the predictors."
        )


# --- the verdict ------------------------------------------------------------------------------------------


def _judge(covariance: Covariance, residual: BoundResidual, optimum: Optimum, reml: bool) -> Convergence:
    edge = boundary(covariance, residual, optimum.θ)
    ok = optimum.decrement < 1e3 * DECREMENT and not optimum.stuck
    gradient = float(optimum.decrement)
    if not ok:
        message = (
            f"Not converged after {optimum.iterations} iterations: a further step would gain about {gradient:.2g} in "
            "log-likelihood. The model may be too rich for the data: try fewer random effects or a simpler residual."
        )
        return Convergence("not converged", gradient, edge, optimum.iterations, message)
    absorbed = absorbed_parameters(covariance, optimum, reml)
    if absorbed:
        message = (
            f"Not identified: the fixed effects leave no information about {', '.join(absorbed)}, whose value is arbitrary "
            "(a level of the random effect for each level of a fixed one). Leave out the fixed or the random term."
        )
        return Convergence("not identified", gradient, edge, optimum.iterations, message)
    ridge = exchangeable_parameters(covariance, optimum)
    if ridge:
        message = (
            f"Not identified: {', '.join(ridge)} can be exchanged without changing V, so that their values are arbitrary "
            "(the log-likelihood is not). Leave out one of the terms they belong to."
        )
        return Convergence("not identified", gradient, edge, optimum.iterations, message)
    if edge:
        message = f"Converged on the boundary: {'; '.join(edge)}."
        return Convergence("boundary", gradient, edge, optimum.iterations, message)
    return Convergence("converged", gradient, (), optimum.iterations, f"Converged in {optimum.iterations} iterations.")


def absorbed_parameters(covariance: Covariance, optimum: Optimum, reml: bool) -> list[str]:
    """Parameters whose part of V lies in the space of X: REML has no information about them, ½ tr(PV_jPV_j) = 0."""
    if not reml:
        return []
    left = np.diag(information(optimum.evaluation, "expected", reml=True))
    whole = 0.5 * np.diag(optimum.evaluation.moments.tjk)
    return [covariance.names[k] for k in np.flatnonzero(left < 1e-9 * whole)]


def exchangeable_parameters(covariance: Covariance, optimum: Optimum) -> list[str]:
    """Parameters that share a direction in which V does not change: the null space of ½ tr(V⁻¹V_jV⁻¹V_k)."""
    keep = estimated_parameters(covariance, optimum.θ, "drop")
    if len(keep) < 2:
        return []
    H = optimum.evaluation.moments.tjk[np.ix_(keep, keep)]
    size = np.sqrt(np.diag(H))
    if not (size > 0).all():
        return [covariance.names[k] for k in keep[size == 0]]
    values, vectors = np.linalg.eigh(H / np.outer(size, size))
    if values[0] > _RIDGE:
        return []
    return [covariance.names[k] for k, share in zip(keep, np.abs(vectors[:, 0]), strict=True) if share > 0.05]


def boundary(covariance: Covariance, residual: BoundResidual, θ: np.ndarray) -> tuple[str, ...]:
    """What sits on the edge of the parameter space, in words; θ in the units of the blocks."""
    found: list[str] = []
    for structure, k in zip(covariance.structures, covariance.slices, strict=True):
        if not structure.signed:
            found += _structure_boundary(structure, θ[k])
    for part, rows, k in zip(residual.parts, residual.rows, covariance.residual_slices(), strict=True):
        if rows.time is not None and θ[k][0] > ZERO:
            found += range_boundary(part, rows.time, θ[k])
    return tuple(found)


def _structure_boundary(structure: Structure, θ: np.ndarray) -> list[str]:
    names = [n for p in structure.parameters for n in p.full_names()]
    v, _, κ = structure.split(θ)
    zero = [f"{names[i]} is 0" for i in range(len(v)) if v[i] <= ZERO]
    if zero or not len(κ):
        return zero
    natural = structure.natural_from_linear(θ)[len(θ) - len(κ) :]
    if structure.free and len(v) > 2:
        i, j = np.tril_indices(len(v), -1)
        C = np.eye(len(v))
        C[i, j] = C[j, i] = natural
        singular = bool(np.linalg.eigvalsh(C)[0] < 1e-7)
        return [f"the {len(v)} x {len(v)} covariance of {structure.scale.name} is singular"] if singular else []
    domains = structure._domains()
    out = []
    for r, d, name in zip(natural, domains, names[len(θ) - len(κ) :], strict=True):
        if hasattr(d, "lower") and min(r - d.lower, d.upper - r) < 1e-6 * (d.upper - d.lower):
            out.append(f"{name} is {d.lower if r - d.lower < d.upper - r else d.upper:.6g}")
    return out


def range_boundary(part: Structure, time: np.ndarray, θ: np.ndarray) -> list[str]:
    """Whether the range is so long or short that the data say nothing about it, in words."""
    range_ = θ[-1]
    values = np.unique(time)
    gap, span = float(np.diff(values).min(initial=np.inf)), float(values[-1] - values[0])
    name = part.parameters[-1].full_names()[0]
    if range_ > 1e3 * span:
        return [f"{name} = {range_:.3g} is far beyond the data's span of {span:.6g}: the process is constant in time"]
    if range_ < 0.02 * gap:
        return [f"{name} = {range_:.3g} is far below the smallest gap of {gap:.6g}: the process is independent noise"]
    return []
