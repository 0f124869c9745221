"""Maximises the likelihood by trust-region Newton steps and judges the result by itself.

The optimiser works in unconstrained coordinates in which a variance of zero is an ordinary point (V depends on the
square of the coordinate). Convergence is the Newton decrement ½ g'H⁻¹g, the log-likelihood still to be gained, and
at a boundary the Karush-Kuhn-Tucker condition: no admissible direction increases ℓ.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize

from ..covariance.assembly import Covariance
from ..covariance.structure import Structure
from .batch import Blocks
from .likelihood import Evaluation, evaluate, rescale, residual_count

DECREMENT = 1e-10  # in units of log-likelihood
ZERO = 1e-9  # a variance below this share of the data's is set to zero if that costs nothing
_RESTARTS = 4
_DRIFT = 0.7  # of the logarithm of the common scale


@dataclass(frozen=True)
class Optimum:
    """Where the optimiser stopped: linear coordinates in the units of the blocks, the likelihood there, and its quality."""

    θ: np.ndarray
    evaluation: Evaluation
    decrement: float
    iterations: int
    stuck: bool


class _Objective:
    """-ℓ, its gradient and Hessian in working coordinates; the last point is remembered."""

    def __init__(self, blocks: Blocks, covariance: Covariance, reml: bool):
        self.blocks, self.covariance, self.reml = blocks, covariance, reml
        self.at: np.ndarray | None = None
        self.result: tuple[float, np.ndarray, np.ndarray, Evaluation | None]

    def point(self, w):
        if self.at is None or not np.array_equal(w, self.at):
            self.at = w.copy()
            θ, J, second = self.covariance.derivatives("linear_from_working", w)
            found = evaluate(self.blocks, self.covariance, θ, reml=self.reml) if np.isfinite(θ).all() else None
            if found is None or not np.isfinite(found.value):
                self.result = np.inf, np.zeros(len(w)), np.eye(len(w)), None
            else:
                assert found.hessian is not None
                assert found.score is not None
                hessian = J.T @ found.hessian @ J + np.tensordot(found.score, second, 1)
                self.result = -found.value, -(found.score @ J), -hessian, found
        return self.result

    def value(self, w):
        return self.point(w)[0]

    def gradient(self, w):
        return self.point(w)[1]

    def hessian(self, w):
        return self.point(w)[2]


def decrement(gradient: np.ndarray, hessian: np.ndarray) -> tuple[float, bool]:
    """(½ g'|H|⁻¹g, whether some direction still curves upwards); directions without curvature count by their slope."""
    eigenvalues, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
    slope = vectors.T @ gradient
    size = np.maximum(np.abs(eigenvalues), 1e-8 * max(1.0, float(np.abs(eigenvalues).max(initial=0))))
    return float(0.5 * np.sum(slope**2 / size)), bool((eigenvalues < -1e-5 * np.abs(eigenvalues).max(initial=1)).any())


def maximise(
    blocks: Blocks, covariance: Covariance, start: np.ndarray, *, reml: bool, limit: int = 200, polish: bool = True
) -> Optimum:
    """Climb from linear coordinates `start`; restarted by itself from a boundary that is not optimal.

    `polish=False` stops after `limit` steps without looking at boundaries. Raises FloatingPointError where the
    starting covariance is not positive definite.
    """
    θ = _with_scale(blocks, covariance, start, reml)
    if not polish:
        return _climb(blocks, covariance, θ, reml, limit)
    used = 0
    for _ in range(_RESTARTS):
        optimum = _climb(blocks, covariance, θ, reml, limit - used)
        used += optimum.iterations
        optimum = _snap(blocks, covariance, replace(optimum, iterations=used), reml)
        further = _escape(covariance, optimum)
        if further is None or used >= limit:
            break
        θ = further
    return optimum


def _with_scale(blocks, covariance, θ, reml) -> np.ndarray:
    found = evaluate(blocks, covariance, θ, reml=reml, order=0)
    if found is None:
        raise FloatingPointError("the starting covariance is not positive definite")
    return rescale(found, covariance, blocks, θ, reml)


def _climb(blocks, covariance, θ, reml, limit) -> Optimum:
    """Newton steps; whenever the common scale has drifted off its optimum it is put back in closed form."""
    used = 0
    while True:
        optimum, drifted = _steps(blocks, covariance, θ, reml, limit - used)
        used += max(optimum.iterations, 1)
        if not drifted or used >= limit:
            return replace(optimum, iterations=used)
        θ = rescale(optimum.evaluation, covariance, blocks, optimum.θ, reml)


def _steps(blocks, covariance, θ, reml, limit) -> tuple[Optimum, bool]:
    objective = _Objective(blocks, covariance, reml)
    ν = residual_count(blocks, reml)

    def drift(w):
        evaluation = objective.point(w)[3]
        return abs(np.log(evaluation.rss / ν)) if evaluation is not None and evaluation.rss > 0 else 0.0

    def done(intermediate_result):
        _, g, H, _ = objective.point(intermediate_result.x)
        left, saddle = decrement(g, H)
        if (left < DECREMENT and not saddle) or drift(intermediate_result.x) > _DRIFT:
            raise StopIteration

    w = covariance.working_from_linear(θ)
    found = optimize.minimize(
        objective.value, w, jac=objective.gradient, hess=objective.hessian, method="trust-exact", callback=done,
        options={"gtol": 1e-13, "maxiter": max(limit, 1), "initial_trust_radius": 1.0, "max_trust_radius": 20.0},
    )  # fmt: skip
    w = _polish(objective, found.x)
    _, g, H, evaluation = objective.point(w)
    left, saddle = decrement(g, H)
    end = Optimum(covariance.linear_from_working(w), evaluation, left, int(found.nit), saddle)
    return end, drift(w) > _DRIFT


def _polish(objective: _Objective, w: np.ndarray) -> np.ndarray:
    """One more Newton step near the optimum, where it squares the error; kept if the decrement falls."""
    _, g, H, _ = objective.point(w)
    before, saddle = decrement(g, H)
    if saddle or not 1e-18 < before < 1e-4:
        return w
    further = w - np.linalg.lstsq(H, g, rcond=1e-10)[0]
    _, g, H, evaluation = objective.point(further)
    return further if evaluation is not None and decrement(g, H)[0] < before else w


# --- the boundary -----------------------------------------------------------------------------------------


def _snap(blocks, covariance, optimum: Optimum, reml) -> Optimum:
    """Put variances that are negligible at exactly zero, where the likelihood does not notice."""
    θ = optimum.θ.copy()
    for structure, k in zip(covariance.structures, covariance.slices, strict=True):
        θ[k] = _without_dust(structure, θ[k])
    if np.array_equal(θ, optimum.θ):
        return optimum
    found = evaluate(blocks, covariance, θ, reml=reml)
    if found is None or found.value < optimum.evaluation.value - 1e-9:
        return optimum
    return replace(optimum, θ=θ, evaluation=found)


def _without_dust(structure: Structure, θ: np.ndarray) -> np.ndarray:
    if structure.signed:
        return θ
    if structure.free:
        G = _as_matrix(structure, θ)
        values, vectors = np.linalg.eigh(G)
        if (values > ZERO).all() or not values.size:
            return θ
        cleaned = (vectors * np.where(values > ZERO, values, 0.0)) @ vectors.T
        i, j = np.tril_indices(len(G), -1)
        return np.concatenate([np.diag(cleaned), cleaned[i, j]])
    if structure._reaches_zero:
        levels = structure.scale.levels
        dust = np.append(np.abs(θ[:levels]) < ZERO, np.zeros(len(θ) - levels, bool))
        if structure.linear and dust[:levels].any():
            dust[:] = True
        return np.where(dust, 0.0, θ)
    return θ


def _as_matrix(structure: Structure, x: np.ndarray, off: float = 1.0) -> np.ndarray:
    """The symmetric matrix of (variances, covariances); `off` scales what lies off the diagonal."""
    q = len(structure.positions)
    out = np.diag(x[:q])
    i, j = np.tril_indices(q, -1)
    out[i, j] = out[j, i] = off * x[q:]
    return out


def _escape(covariance: Covariance, optimum: Optimum) -> np.ndarray | None:
    """A point from which ℓ can still grow, if the optimum lies on a boundary and is not one; else None."""
    score = optimum.evaluation.score
    assert score is not None
    θ, moved = optimum.θ.copy(), False
    for structure, k in zip(covariance.structures, covariance.slices, strict=True):
        if structure.signed or not (structure.free or structure._reaches_zero):
            continue
        if structure.free:
            G, S = _as_matrix(structure, θ[k]), _as_matrix(structure, score[k], 0.5)
            values, vectors = np.linalg.eigh(G)
            null = vectors[:, values <= ZERO]
            if not null.size:
                continue
            gain, directions = np.linalg.eigh(null.T @ S @ null)
            if gain[-1] > 1e-4:
                n = null @ directions[:, -1]
                G = G + 1e-3 * np.outer(n, n)
                i, j = np.tril_indices(len(G), -1)
                θ[k], moved = np.concatenate([np.diag(G), G[i, j]]), True
        else:
            levels = np.arange(structure.scale.levels)
            stuck = levels[(θ[k][levels] <= ZERO) & (score[k][levels] > 1e-4)]
            if stuck.size:
                part = θ[k].copy()
                part[stuck] = 1e-3
                θ[k], moved = part, True
    return θ if moved else None
