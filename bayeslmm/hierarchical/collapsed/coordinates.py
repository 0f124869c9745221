"""Unconstrained coordinates u of the variance parameters, in which their posterior is close to normal.

    standard deviations, ranges    log x
    bounded numbers                x = mid + half tanh u
    free correlation matrices      Fisher's z of the partial correlations of a C-vine
    powers                         as they are

A posterior that reaches to a standard deviation of zero has a long tail in log x. Therefore all but the
powers are bent once more, log x = c + sinh u: near c nothing changes, and far away the tail becomes short.

The priors are those of `priors.py`, on the natural scale; the log of the Jacobian is added here.
Everything is written once for numpy, jets (derivatives at the mode) and `manyvalues` (thousands of
proposals).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import jets, manyvalues
from ...covariance.structure import Structure
from ...manyvalues import Many
from ...parameters import Positive
from ..defaults import Priors
from ..lkj import LKJ, lkj_constant, order
from ..prior import Prior, Uniform
from ..slots import Place, Slot, places

if TYPE_CHECKING:
    from ...model import LMM


@dataclass(frozen=True)
class Axis:
    """One number x as a function of u: an interval where one is given, else exp u or u itself."""

    prior: Prior
    positive: bool

    @property
    def interval(self) -> tuple[float, float] | None:
        """(middle, half width) of the support of a uniform prior."""
        if not isinstance(self.prior, Uniform):
            return None
        return (self.prior.lower + self.prior.upper) / 2, (self.prior.upper - self.prior.lower) / 2

    def value(self, u: Any, xp: Any) -> Any:
        """x at u."""
        if self.interval is not None:
            return self.interval[0] + self.interval[1] * xp.tanh(u)
        return xp.exp(u) if self.positive else u

    def log_slope(self, u: Any, xp: Any) -> Any:
        """log dx/du."""
        if self.interval is not None:
            return np.log(self.interval[1]) + log_sech2(u, xp)
        return u if self.positive else 0 * u

    def inverse(self, x: float) -> float:
        """u of x; values on an edge are taken a little inside."""
        if self.interval is not None:
            middle, half = self.interval
            return float(np.arctanh(np.clip((x - middle) / half, -0.98, 0.98)))
        return float(np.log(max(x, 1e-300))) if self.positive else float(x)


def log_sech2(u: Any, xp: Any) -> Any:
    """log(1 - tanh² u)."""
    return 2 * np.log(2.0) - 2 * u - 2 * xp.log(1 + xp.exp(-2 * u))


@dataclass(frozen=True)
class Part:
    """One slot of hyperparameters: its place in u, and one axis a number (none for a correlation matrix)."""

    slot: Slot
    structure: Structure
    index: int
    at: slice
    priors: tuple[Prior, ...]
    axes: tuple[Axis, ...]

    def numbers(self, u: list[Any], xp: Any) -> list[Any]:
        """The natural numbers of the slot; of a matrix its entries below the diagonal, row by row."""
        if self.slot.role == "matrix":
            return correlations(u, xp)
        return [axis.value(u[i], xp) for i, axis in enumerate(self.axes)]

    def log_prior(self, u: list[Any], numbers: list[Any], xp: Any, jacobian: bool) -> Any:
        """Log prior density of the slot, with respect to u or (without the Jacobian) its numbers."""
        total: Any = 0.0
        if self.slot.role == "matrix":
            assert isinstance(self.priors[0], LKJ)
            η, q = self.priors[0].eta, order(self.size)
            pairs = [(i, j) for i in range(q) for j in range(i)]
            for k, (_, j) in enumerate(pairs):  # det C = Π (1 - z²)
                total = total + (η - 1 + (1 + (q - j - 2) / 2) * jacobian) * log_sech2(u[k], xp)
            return total + lkj_constant(η, q)
        for i, (axis, x) in enumerate(zip(self.axes, numbers, strict=True)):
            total = total + axis.prior.logp(x, xp)
            if jacobian:
                total = total + axis.log_slope(u[i], xp)
        return total

    @property
    def size(self) -> int:
        return self.at.stop - self.at.start

    def straight(self, i: int) -> bool:
        """Whether a number is its own coordinate."""
        return bool(self.axes) and not self.axes[i].positive and self.axes[i].interval is None


def correlations(u: list[Any], xp: Any) -> list[Any]:
    """Correlations, row by row, of unconstrained partial correlations: C = LL', L[i, j] = z_ij Π √(1 -
    z²).
    """
    q = order(len(u))
    rows: list[list[Any]] = [[1.0]]
    out = []
    for i in range(1, q):
        row: list[Any] = []
        left: Any = 1.0
        for j in range(i):
            v = u[i * (i - 1) // 2 + j]
            row.append(xp.tanh(v) * left)
            left = left * xp.exp(0.5 * log_sech2(v, xp))
        rows.append([*row, left])
        for j in range(i):
            entry: Any = 0.0
            for k in range(j + 1):
                entry = entry + rows[i][k] * rows[j][k]
            out.append(entry)
    return out


def _partials(r: np.ndarray) -> list[float]:
    """Unconstrained partial correlations of the correlations r; a singular matrix is shrunk towards
    identity.
    """
    q = order(len(r))
    C = np.eye(q)
    i, j = np.tril_indices(q, -1)
    C[i, j] = C[j, i] = np.nan_to_num(r)
    low = float(np.linalg.eigvalsh(C)[0])
    if low < 0.02:
        C = (C - np.eye(q)) * 0.98 / (1 - low) + np.eye(q)
    L = np.linalg.cholesky(C)
    used = np.cumsum(np.pad(L, ((0, 0), (1, 0)))[:, :-1] ** 2, axis=1)
    left = np.sqrt(np.maximum(1 - used, 0.0))
    return list(np.arctanh(L[i, j] / left[i, j]))


@dataclass(frozen=True)
class Coordinates:
    """All hyperparameters of a model, K of them, in the order of the covariance's parameter vector.

    center (K,): the points c around which coordinates are straight.
    """

    parts: tuple[Part, ...]
    structures: tuple[Structure, ...]
    center: np.ndarray

    @staticmethod
    def of(model: LMM, priors: Priors) -> Coordinates:
        parts, start = [], 0
        for place in places(model):
            size = _size(place)
            own = tuple(priors[name] for name in place.slot.entries)
            positive = isinstance(place.slot.domain, Positive)
            axes = () if place.slot.role == "matrix" else tuple(Axis(p, positive) for p in own)
            parts.append(
                Part(place.slot, place.structure, place.index, slice(start, start + size), own, axes)
            )
            start += size
        return Coordinates(tuple(parts), model.covariance.structures, np.zeros(start))

    @property
    def size(self) -> int:
        return len(self.center)

    @property
    def bent(self) -> list[bool]:
        """Which coordinates are bent."""
        return [not part.straight(i) for part in self.parts for i in range(part.size)]

    @property
    def positive(self) -> np.ndarray:
        """Which coordinates are of positive numbers: standard deviations and ranges."""
        flags = [bool(part.axes) and part.axes[i].positive for part in self.parts for i in range(part.size)]
        return np.array(flags, dtype=bool)

    def around(self, natural: np.ndarray) -> Coordinates:
        """Coordinates with their centre at the natural parameters of the covariance (K,)."""
        return replace(self, center=self._unbent(natural))

    def unbend(self, u: Any, xp: Any) -> tuple[list[Any], Any]:
        """The coordinates log x, ... of u, and the log of the Jacobian."""
        slope: Any = 0.0
        out = []
        for i, (c, bent) in enumerate(zip(self.center, self.bent, strict=True)):
            if not bent:
                out.append(u[i])
                continue
            up, down = xp.exp(u[i]), xp.exp(-u[i])
            out.append(c + 0.5 * (up - down))
            slope = slope + xp.log(0.5 * (up + down))
        return out, slope

    def linear(self, u: Any, xp: Any, *, jacobian: bool = True) -> tuple[Any, Any]:
        """Linear coordinates of the covariance (K,), and the log prior density."""
        natural: list[list[Any]] = [[] for _ in self.structures]
        density: Any = 0.0
        unbent, slope = self.unbend(u, xp)
        if jacobian:
            density = slope
        for part in self.parts:
            own = unbent[part.at]
            numbers = part.numbers(own, xp)
            density = density + part.log_prior(own, numbers, xp, jacobian)
            natural[part.index] += shown(part, numbers, xp)
        θ: list[Any] = []
        for structure, x in zip(self.structures, natural, strict=True):
            linear = structure.linear_from_natural(xp.stack(x), xp)
            θ += [linear[i] for i in range(structure.size)]
        return xp.stack(θ), density

    def many(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same for draws u (D, K): (D, K) and (D,)."""
        with np.errstate(all="ignore"):
            θ, density = self.linear(Many(np.ascontiguousarray(u.T)), manyvalues)
        return np.ascontiguousarray(θ.a.T), density.a

    def derivatives(self, u: np.ndarray, *, jacobian: bool = True):
        """(θ, dθ [out, in], d²θ [out, in, in]) and (log prior, its gradient, its Hessian) at u."""
        θ, density = self.linear(jets.variables(u), jets, jacobian=jacobian)
        v, d, h = jets.derivatives(θ, self.size)
        p, dp, hp = jets.derivatives(density, self.size)
        K = self.size
        second = np.zeros((K, K, K)) if h is None else np.moveaxis(h, -1, 0)
        return (v, d.T, second), (float(p), dp, np.zeros((K, K)) if hp is None else hp)

    def inverse(self, natural: np.ndarray) -> np.ndarray:
        """u of the natural parameters of the covariance (K,)."""
        t = self._unbent(natural)
        return np.where(self.bent, np.arcsinh(t - self.center), t)

    def _unbent(self, natural: np.ndarray) -> np.ndarray:
        out: list[float] = []
        for part in self.parts:
            x = natural[part.at]
            if part.slot.role == "matrix":
                out += _partials(x)
                continue
            if part.slot.role == "partial":
                x = part.structure.correlation.to_unit(x)
            out += [axis.inverse(float(v)) for axis, v in zip(part.axes, x, strict=True)]
        return np.array(out)


def shown(part: Part, numbers: list[Any], xp: Any) -> list[Any]:
    """The numbers as the covariance reads them: partial autocorrelations become correlations."""
    if part.slot.role != "partial":
        return numbers
    κ = part.structure.correlation.from_unit(numbers, xp)
    return [κ[i] for i in range(len(numbers))]


def _size(place: Place) -> int:
    slot = place.slot
    if slot.role == "matrix":
        q = len(slot.labels or ())
        return q * (q - 1) // 2
    return len(slot.entries)
