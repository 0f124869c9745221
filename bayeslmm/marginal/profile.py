"""Profile likelihood intervals: the parameter values that a likelihood ratio test does not reject.

The limits of a parameter c are its largest and smallest value in the region ℓ ≥ ℓ̂ - ½χ²₁(level) (Venzon and
Moolgavkar 1988), found by Newton steps on the Lagrange conditions

    ∇ℓ(w) = λ∇c(w),     ℓ(w) = ℓ̂ - ½χ²₁

in working coordinates w, in which a variance of zero and a correlation of ±1 are ordinary points: a limit
may lie there. For a coefficient l'β the other coefficients are profiled out in closed form, and what is
left is unconstrained,

    l'β̂(w) ± √( 2 (ℓ(w) - ℓ̂ + ½χ²₁) · l'(X'V⁻¹X)⁻¹l )  →  extreme over w.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from .. import jets
from ..covariance.assembly import Covariance
from ..covariance.structure import Structure
from ..kernel.batch import Blocks
from ..kernel.likelihood import Evaluation, evaluate
from ..kernel.refit import inside

_STEPS = 25
_FAR = 8.0  # working coordinates are searched this far from the estimate
_OUTSIDE = -1e6  # stands for a log-likelihood where V is not positive definite


@dataclass(frozen=True)
class Profile:
    """What all limits share: the arranged data, the maximum and the cut ℓ̂ - ½χ²₁."""

    blocks: Blocks
    covariance: Covariance
    reml: bool
    θ: np.ndarray
    cut: float

    @staticmethod
    def of(
        blocks: Blocks, covariance: Covariance, θ: np.ndarray, value: float, *, level: float, reml: bool
    ) -> Profile:
        return Profile(blocks, covariance, reml, θ, value - 0.5 * float(stats.chi2.ppf(level, 1)))

    def likelihood(self, w: np.ndarray):
        """(ℓ, gradient, Hessian, evaluation) in working coordinates; None where V is not positive
        definite.
        """
        with np.errstate(all="ignore"):
            θ, J, second = self.covariance.derivatives("linear_from_working", w)
            finite = np.isfinite(θ).all() and np.isfinite(second).all()
            at = evaluate(self.blocks, self.covariance, θ, reml=self.reml) if finite else None
        if at is None or not np.isfinite(at.value):
            return None
        assert at.score is not None
        return at.value, at.score @ J, J.T @ at.hessian @ J + np.tensordot(at.score, second, 1), at


# --- variance parameters ----------------------------------------------------------------------------------


def parameter_limit(profile: Profile, k: int, side: int) -> np.ndarray:
    """θ at the lower (side = -1) or upper (+1) limit of the k-th parameter, linear coordinates in the units
    of the blocks.

    θ_k is 0 or ∞ where no value of a range (or power) towards that side is rejected.
    """
    covariance = profile.covariance
    which = next(i for i, s in enumerate(covariance.slices) if s.start <= k < s.stop)
    structure, at = covariance.structures[which], covariance.slices[which]
    target = lambda w: _target(structure, k - at.start, at, w)  # noqa: E731
    start = covariance.working_from_linear(profile.θ)
    w = _lagrange(profile, target, start, side)
    if w is not None:
        return _without_dust(covariance.linear_from_working(w))
    role = [p.role for p in structure.parameters for _ in range(len(p))][k - at.start]
    if role in ("range", "power"):
        return _along_coordinate(profile, k, side, start, role)
    w = _search(profile, _root(target) if role == "sd" else target, start, side)
    return _without_dust(covariance.linear_from_working(w))


def _along_coordinate(profile: Profile, k: int, side: int, start: np.ndarray, role: str) -> np.ndarray:
    """θ where the likelihood, maximised over all but the k-th working coordinate, crosses the cut; 0 or ∞
    where never.
    """
    others = np.arange(len(start)) != k
    rest = start[others]

    def height(x: float) -> float:
        nonlocal rest
        place = lambda u: np.insert(u, k, x)  # noqa: E731
        at = lambda u: profile.likelihood(place(u)) or (_OUTSIDE, np.zeros(len(start)), np.eye(len(start)))  # noqa: E731
        found = optimize.minimize(
            lambda u: -at(u)[0],
            rest,
            jac=lambda u: -at(u)[1][others],
            hess=lambda u: -at(u)[2][np.ix_(others, others)],
            method="trust-exact",
            options={"gtol": 1e-6, "maxiter": 60},
        )
        rest = found.x
        return float(-found.fun - profile.cut)

    near = start[k]
    for distance in (0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, _FAR):
        far = start[k] + side * distance
        if height(far) < 0:
            x = optimize.brentq(height, near, far, xtol=1e-7)
            return profile.covariance.linear_from_working(np.insert(rest, k, x))
        near = far
    θ = profile.covariance.linear_from_working(start)
    θ[k] = 0.0 if role == "range" and side < 0 else side * np.inf
    return θ


def _without_dust(θ: np.ndarray) -> np.ndarray:
    return np.where(np.abs(θ) < 1e-9, 0.0, θ)


def _target(structure: Structure, k: int, at: slice, w: np.ndarray):
    """A monotone function of the parameter (its variance for a standard deviation), with gradient and
    Hessian in w.
    """
    x = jets.variables(w)
    θ = structure.linear_from_working(x[at], jets)
    levels = structure.scale.levels
    value = θ[k]
    if structure.free and k >= levels:
        i, j = structure._pairs()[k - levels]
        value = θ[k] / jets.sqrt(θ[i] * θ[j])
    elif structure.linear and k >= levels:
        value = θ[k] / θ[0]
    v, d, h = jets.derivatives(value, len(w))
    return float(v), d, np.zeros((len(w), len(w))) if h is None else h


def _root(target):
    """The square root of a target: a standard deviation is nearly linear where its variance is not."""

    def root(w):
        v, d, _ = target(w)
        r = np.sqrt(max(v, 0.0) + 1e-12)
        return r, d / (2 * r)

    return root


def _lagrange(profile: Profile, target, start: np.ndarray, side: int) -> np.ndarray | None:
    """Newton steps from the quadratic approximation; None where they do not arrive at an extreme."""
    here = profile.likelihood(start)
    with np.errstate(all="ignore"):
        _, slope, _ = target(start)
        if here is None or not np.isfinite(slope).all() or not np.abs(slope).max() > 1e-6:
            return None
        try:
            toward = np.linalg.solve(-here[2], slope)
        except np.linalg.LinAlgError:
            return None
        size = float(slope @ toward)
        if not size > 0:
            return None
        reach = np.sqrt(2 * (here[0] - profile.cut))
        w, λ = start + side * reach * toward / np.sqrt(size), -side * reach / np.sqrt(size)
        for _ in range(_STEPS):
            at = profile.likelihood(w)
            if at is None:
                return None
            value, g, H, _ = at
            _, slope, curvature = target(w)
            K = len(w)
            system = np.zeros((K + 1, K + 1))
            system[:K, :K], system[:K, K], system[K, :K] = H - λ * curvature, -slope, g
            right = np.append(λ * slope - g, profile.cut - value)
            if not np.isfinite(system).all():
                return None
            if np.abs(right[:K]).max() < 1e-5 and abs(right[K]) < 1e-7:
                return w if _is_extreme(system, slope, λ, side) else None
            try:
                step = np.linalg.solve(system, right)
            except np.linalg.LinAlgError:
                return None
            shrink = min(1.0, 2.0 / max(float(np.abs(step[:K]).max()), 1e-300))
            w, λ = w + shrink * step[:K], λ + shrink * step[K]
    return None


def _is_extreme(system: np.ndarray, slope: np.ndarray, λ: float, side: int) -> bool:
    """Whether ℓ is largest among all w with this value of the parameter, on the side that was asked for."""
    K = len(slope)
    along = np.linalg.svd(slope[None])[2][1:]
    return bool(λ * side < 0 and (K == 1 or np.linalg.eigvalsh(along @ system[:K, :K] @ along.T)[-1] < 1e-6))


def _search(profile: Profile, target, start: np.ndarray, side: int) -> np.ndarray:
    """The extreme by sequential quadratic programming: slower, and at home on the boundary; with ℓ - cut
    there.
    """
    covariance = profile.covariance
    safe = covariance.working_from_linear(inside(covariance, profile.θ))
    last: dict[bytes, tuple[float, np.ndarray]] = {}

    def likelihood(w):
        if w.tobytes() not in last:
            at = profile.likelihood(w)
            last.clear()
            last[w.tobytes()] = (_OUTSIDE, np.zeros(len(w))) if at is None else (at[0] - profile.cut, at[1])
        return last[w.tobytes()]

    scale = max(abs(target(safe)[0]), 1e-6)
    found = None
    for origin in (safe, 0.5 * (safe + start)):
        with np.errstate(all="ignore"):
            found = optimize.minimize(
                lambda w: -side * target(w)[0] / scale,
                origin,
                jac=lambda w: -side * target(w)[1] / scale,
                method="SLSQP",
                constraints={
                    "type": "ineq",
                    "fun": lambda w: likelihood(w)[0],
                    "jac": lambda w: likelihood(w)[1],
                },
                bounds=[(x - _FAR, x + _FAR) for x in origin],
                options={"maxiter": 100, "ftol": 1e-10},
            )
        if likelihood(found.x)[0] > -1e-4:
            break
    assert found is not None
    return found.x


# --- coefficients -----------------------------------------------------------------------------------------


def coefficient_limit(profile: Profile, row: np.ndarray, side: int) -> float:
    """The limit of row'b for the coefficients b of the blocks (units of the blocks); an ML profile."""
    w = profile.covariance.working_from_linear(profile.θ)
    best = -np.inf
    damping = 1e-8
    at = profile.likelihood(w)
    for _ in range(2 * _STEPS):
        assert at is not None
        value, g, metric = _reach(profile, row, side, at, w)
        best = value
        curvature, axes = np.linalg.eigh(-metric)
        size = np.maximum(np.abs(curvature), 1e-8 * max(np.abs(curvature).max(), 1e-8))
        slope = axes.T @ g
        if 0.5 * np.sum(slope**2 / size) < 1e-10 * max(abs(best), 1e-3):
            break
        moved = False
        for _ in range(30):
            step = axes @ (slope / (size + damping * size.max()))
            tried = profile.likelihood(w + step)
            if (
                tried is not None
                and tried[0] > profile.cut
                and _reach(profile, row, side, tried, w + step)[0] > value
            ):
                w, at, damping, moved = w + step, tried, damping / 10, True
                break
            damping = max(damping * 10, 1e-6)
        if not moved:
            break
    return side * best


def _reach(
    profile: Profile, row: np.ndarray, side: int, at, w: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """side·row'b + √(2δv) with its gradient in w and an approximate Hessian; δ = ℓ - cut, v =
    row'Cov(b)row.
    """
    value, g, H, found = at
    _, J, _ = profile.covariance.derivatives("linear_from_working", w)
    v, db, dv = _linear_functional(found, row)
    δ = max(value - profile.cut, 1e-12)
    root = np.sqrt(2 * δ * v)
    gradient = side * (db @ J) + (v * g + δ * (dv @ J)) / root
    return (
        side * float(row @ found.beta) + root,
        gradient,
        (v / root) * H - np.outer(g, g) * v / (2 * δ * root),
    )


def _linear_functional(at: Evaluation, row: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """v = row'Φrow and the derivatives (K,) of row'b and of v in linear coordinates."""
    m, Φ = at.moments, at.A_inverse
    x = slice(0, len(Φ))
    c = Φ @ row
    inner = m.Mj[:, x] @ np.append(-at.beta, 1.0)
    return float(row @ c), -inner @ c, np.einsum("a,jab,b->j", c, m.Mj[:, x, x], c)
