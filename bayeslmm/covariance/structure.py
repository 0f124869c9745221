"""Covariance = Scale × Correlation, in the three coordinate systems that its users need.

- *linear*: variances, with covariances where the family is linear in them and (correlation, range, power) where it
  is not. The matrix is written in these: the likelihood, Kenward-Roger and standard errors differentiate here.
- *natural*: standard deviations, correlations, ranges: what is reported, and where priors live.
- *working*: unconstrained, for the optimiser; a variance of exactly zero and a correlation of ±1 are inside.

All three are vectors of the same length and order: scale first, then power, then correlation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np

from ..errors import CovarianceError
from ..parameters import Parameter
from .correlation import Correlation, Independent, Rows, Unstructured
from .scale import Scale, weight_factor


@dataclass(frozen=True)
class ResidualSum:
    """Components of the residual covariance that add: `Exponential("Time") + Independent()`."""

    parts: tuple[Correlation, ...]

    @staticmethod
    def of(x) -> ResidualSum:
        if isinstance(x, ResidualSum):
            return x
        if isinstance(x, Correlation):
            return ResidualSum((x,))
        name = getattr(x, "__name__", repr(x))
        raise CovarianceError(
            f"residual= takes a covariance structure such as Independent() or Exponential('t') + Independent(), "
            f"not {name}" + (": call it, with its column." if isinstance(x, type) else ".")
        )

    def __add__(self, other) -> ResidualSum:
        return ResidualSum(self.parts + ResidualSum.of(other).parts)

    def __iter__(self) -> Iterator[Correlation]:
        return iter(self.parts)

    def __str__(self) -> str:
        return " + ".join(map(str, self.parts))


@dataclass(frozen=True)
class Structure:
    """One covariance component, bound to its positions: Σ(θ) = D(sd) C(κ) D(sd).

    positions: labels of the places that rows can take; suffix: what follows the names of its parameters;
    signed: variances may be negative (then working coordinates are the linear ones).
    """

    correlation: Correlation
    scale: Scale
    positions: tuple[str, ...] = ()
    suffix: str = ""
    signed: bool = False

    # --- what it is made of -------------------------------------------------------------------------------

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """Its natural parameters, in the order of the parameter vector."""
        κ = self.correlation.parameters(self.positions)
        return (
            *self.scale.parameters(),
            *(Parameter(p.name + self.suffix, p.role, p.labels, p.domain, p.dim, p.unit) for p in κ),
        )

    @cached_property
    def size(self) -> int:
        return sum(map(len, self.parameters))

    @cached_property
    def free(self) -> bool:
        """Unstructured with a variance for each position: linear in variances and covariances."""
        return isinstance(self.correlation, Unstructured) and self.scale.labels == self.positions

    @cached_property
    def linear(self) -> bool:
        """Whether the matrix is linear in (variances, covariances)."""
        common = self.scale.labels is None and self.correlation.linear
        return not self.scale.power and (self.free or (common and not isinstance(self.correlation, Unstructured)))

    @property
    def diagonal(self) -> bool:
        return isinstance(self.correlation, Independent)

    def split(self, x):
        """(variances or sds, power, κ) of a parameter vector."""
        a = self.scale.levels
        b = a + self.scale.power
        return x[:a], (x[a] if self.scale.power else None), x[b : self.size]

    @cached_property
    def scales_with_variance(self) -> np.ndarray:
        """Which linear coordinates are multiplied by c when Σ is."""
        count = self.size if self.linear else self.scale.levels
        return np.arange(self.size) < count

    # --- the matrix ---------------------------------------------------------------------------------------

    def matrix(self, θ, rows: Rows, xp=np):
        """Σ at linear coordinates θ (K,) for the rows: (P, m, m)."""
        v, δ, κ = self.split(θ)
        if self.diagonal:
            Σ = _spread(self.scale.variance(v, rows)) * self.correlation.matrix(κ, rows, xp)
        elif self.linear:
            Σ = self._from_covariances(v, κ, rows, xp)
        else:
            Σ = self.scale.outer(v, rows, xp) * self.correlation.matrix(κ, rows, xp)
        if δ is not None:
            Σ = Σ * self.scale.multiplier(δ, rows, xp)
        if rows.weight is not None:
            Σ = Σ * weight_factor(rows)
        return Σ if rows.same is None else Σ * rows.same

    def _from_covariances(self, v, covariances, rows, xp):
        # C - I is linear in κ: with covariances in the place of κ it is the off-diagonal part of Σ. Rows at one place
        # (a new row beside an observed one) share its variance.
        same = 1 - rows.apart
        variance = v[rows.position] if self.free else v[0]
        off = self.correlation.matrix(covariances, rows, xp) - same if len(self.positions) > 1 else 0.0
        return _spread(variance) * same + off

    # --- coordinates --------------------------------------------------------------------------------------

    def linear_from_natural(self, x, xp=np):
        """Linear coordinates; a signed structure is reported in them, since a negative variance has no root."""
        if self.signed:
            return x
        sd, δ, κ = self.split(x)
        v = [sd[i] * sd[i] for i in range(self.scale.levels)]
        k = [κ[i] for i in range(self.size - self.scale.levels - self.scale.power)]
        if self.free:
            k = [r * sd[i] * sd[j] for r, (i, j) in zip(k, self._pairs(), strict=True)]
        elif self.linear:
            k = [r * v[0] for r in k]
        return xp.stack([*v, *([] if δ is None else [δ]), *k])

    def natural_from_linear(self, θ: np.ndarray) -> np.ndarray:
        """Standard deviations and correlations; a correlation of a zero variance is nan."""
        if self.signed:
            return np.asarray(θ, float)
        v, δ, κ = self.split(np.asarray(θ, float))
        with np.errstate(invalid="ignore", divide="ignore"):
            sd = np.sqrt(v)
            if self.free:
                i, j = np.array(self._pairs(), int).reshape(-1, 2).T
                κ = κ / (sd[i] * sd[j])
            elif self.linear:
                κ = κ / v[0]
        return np.concatenate([sd, [] if δ is None else [δ], κ])

    def linear_from_working(self, w, xp=np):
        if self.signed:
            return w
        a, δ, u = self.split(w)
        k = [u[i] for i in range(self.size - self.scale.levels - self.scale.power)]
        if self.free:
            v, k = self._gram(a, k)
        else:
            v = [self._variance_from_working(a[i], xp) for i in range(self.scale.levels)]
            if k:
                unit = xp.stack([d.from_working(x, xp) for d, x in zip(self._domains(), k, strict=True)])
                κ = self.correlation.from_unit(unit, xp)
                k = [κ[i] * v[0] if self.linear else κ[i] for i in range(len(k))]
        return xp.stack([*v, *([] if δ is None else [δ]), *k])

    def working_from_linear(self, θ: np.ndarray) -> np.ndarray:
        θ = np.asarray(θ, float)
        if self.signed:
            return θ
        v, δ, κ = self.split(θ)
        if self.free:
            i, j = np.array(self._pairs(), int).reshape(-1, 2).T
            G = np.diag(v)
            G[i, j] = G[j, i] = κ
            Λ = semidefinite_cholesky(G)
            a, k = np.diag(Λ), Λ[i, j]
        else:
            a = np.sqrt(v) if self._reaches_zero else 0.5 * np.log(v)
            κ = κ / v[0] if self.linear and κ.size else κ
            u = self.correlation.to_unit(κ)
            k = np.array([d.to_working(x) for d, x in zip(self._domains(), u, strict=True)])
        return np.concatenate([a, [] if δ is None else [δ], k])

    @cached_property
    def _reaches_zero(self) -> bool:
        # sd_j sd_k has no derivative at zero when levels differ and correlate: such scales stay positive.
        return self.diagonal or self.scale.labels is None

    def _variance_from_working(self, w, xp):
        return w * w if self._reaches_zero else xp.exp(2 * w)

    def _domains(self):
        return [p.domain for p in self.correlation.parameters(self.positions) for _ in range(len(p))]

    def _pairs(self) -> list[tuple[int, int]]:
        return [(i, j) for i in range(len(self.positions)) for j in range(i)]

    def _gram(self, diagonal, below):
        """Variances and covariances of ΛΛ' for a lower triangular Λ: covers every semidefinite matrix."""
        q = len(self.positions)
        Λ = {**{(i, i): diagonal[i] for i in range(q)}, **dict(zip(self._pairs(), below, strict=True))}

        def inner(i, j):
            return reduce(lambda s, t: s + t, (Λ[i, k] * Λ[j, k] for k in range(min(i, j) + 1)))

        return [inner(i, i) for i in range(q)], [inner(i, j) for i, j in self._pairs()]


def _spread(variance):
    """(P, m) -> (P, m, 1) so that it multiplies rows of a matrix; a number stays a number."""
    return variance[..., :, None] if getattr(variance, "ndim", 0) else variance


def semidefinite_cholesky(A: np.ndarray) -> np.ndarray:
    """Lower triangular Λ with ΛΛ' = A for a symmetric A that may be singular; negative parts are cut off."""
    eigenvalues, vectors = np.linalg.eigh(A)
    root = vectors * np.sqrt(np.clip(eigenvalues, 0, None))
    R = np.linalg.qr(root.T, mode="r")
    return (R * np.where(np.diag(R) < 0, -1, 1)[:, None]).T
