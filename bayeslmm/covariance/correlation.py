"""Correlations: functions from parameters κ to a correlation matrix, each written once.

A correlation reads the constants of its rows (positions or times) and its parameters, in arithmetic, constant
indexing and `xp.exp/log/sqrt/...` only, so that `xp` may be numpy, `bayeslmm.jets` or `pytensor.tensor`. The
classes are also what users write as `residual=`: the fields say which column orders the rows, what the subject is
and how the standard deviation varies; sums make several components.

A correlation of your own over time is one class with one method::

    class RationalQuadratic(TimeCorrelation):
        def at(self, lag, κ, xp):
            return 1 / (1 + (lag / κ[0]) * (lag / κ[0]))
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass, fields
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from ..parameters import Interval, Parameter, Positive


@dataclass(frozen=True)
class Rows:
    """Constants of the m rows of P patterns of subjects; whatever a structure does not read is None.

    position (P, m) place of each row in the order of visits; time (P, m); level (P, m) level of the `by` column;
    log_covariate (P, m) log of the `power` column; same (P, m, m) 1 where two rows share the residual's subject;
    weight (P, m) known precision weight.
    """

    position: np.ndarray | None = None
    time: np.ndarray | None = None
    level: np.ndarray | None = None
    log_covariate: np.ndarray | None = None
    same: np.ndarray | None = None
    weight: np.ndarray | None = None

    @cached_property
    def apart(self) -> np.ndarray:
        """1 where two rows are at different positions, else 0: (P, m, m)."""
        i, j = pairwise(self.position)
        return (i != j).astype(float)

    @cached_property
    def pair(self) -> np.ndarray:
        """The number of each pair of different positions, row by row below the diagonal, else 0: (P, m, m)."""
        i, j = pairwise(self.position)
        low, high = np.minimum(i, j), np.maximum(i, j)
        return np.where(self.apart > 0, high * (high - 1) // 2 + low, 0)

    def take(self, index) -> Rows:
        """The constants of some rows or patterns: every array indexed alike."""
        return Rows(**{f.name: None if (a := getattr(self, f.name)) is None else a[index] for f in fields(self)})


def pairwise(a: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Row and column views of (..., m) that broadcast to (..., m, m)."""
    assert a is not None, "the structure reads a constant that its rows do not have"
    return a[..., :, None], a[..., None, :]


@dataclass(frozen=True)
class Correlation(ABC):
    """Base of every residual structure: Σ = D(sd) C(κ) D(sd).

    column: the visit or time column (positions default to the order of the rows); subject: the column within which
    rows are correlated; by: a column whose levels have their own standard deviation; power: a positive column x
    with sd ∝ x^δ.
    """

    column: str | None = None
    _: KW_ONLY
    subject: str | None = None
    by: str | None = None
    power: str | None = None

    reads: ClassVar[str] = "position"  # "position", "time" or "nothing"
    linear: ClassVar[bool] = False  # C - I is linear in κ, so that covariances can replace correlations
    serial: ClassVar[bool] = False  # a process in time: its sd is called sigma_serial
    smooth: ClassVar[bool] = True  # twice differentiable in κ; if not, the likelihood has many local maxima

    @abstractmethod
    def parameters(self, levels: tuple[str, ...]) -> tuple[Parameter, ...]:
        """The parameters κ for the given positions, in order."""

    @abstractmethod
    def matrix(self, κ, rows: Rows, xp) -> Any:
        """C(κ): (K,) -> (P, m, m)."""

    def from_unit(self, u, xp):
        """κ from coordinates u that vary independently in their domains; the identity for most."""
        return u

    def to_unit(self, κ: np.ndarray) -> np.ndarray:
        """The inverse of `from_unit`."""
        return κ

    def __add__(self, other):
        from .structure import ResidualSum

        return ResidualSum.of(self) + other

    def __str__(self) -> str:
        given = {"subject": self.subject, "by": self.by, "power": self.power}
        words = [repr(self.column)] if self.column else []
        words += [f"{k}={v!r}" for k, v in given.items() if v is not None]
        return f"{type(self).__name__}({', '.join(words)})"


@dataclass(frozen=True)
class Independent(Correlation):
    """Uncorrelated errors, C = I: the lecture's measurement error ω with variance τ²."""

    reads = "nothing"

    def __post_init__(self):
        if self.column is not None:
            raise TypeError(f"Independent() takes no column; did you mean Independent(by={self.column!r})?")

    def parameters(self, levels):
        return ()

    def matrix(self, κ, rows, xp):
        shape = next(a for a in (rows.level, rows.position, rows.weight) if a is not None).shape
        return np.broadcast_to(np.eye(shape[-1]), (*shape, shape[-1]))


@dataclass(frozen=True)
class CompoundSymmetry(Correlation):
    """Exchangeable rows, C_jk = ρ with -1/(m-1) < ρ < 1 for m positions (SAS: cs, csh)."""

    linear = True

    def parameters(self, levels):
        return (Parameter("rho", "correlation", domain=Interval(-1 / max(len(levels) - 1, 1), 1)),)

    def matrix(self, κ, rows, xp):
        return (1 - rows.apart) + κ[0] * rows.apart


@dataclass(frozen=True)
class Unstructured(Correlation):
    """Every pair of positions has its own correlation (SAS: un; nlme: corSymm; mmrm: us)."""

    linear = True

    def parameters(self, levels):
        pairs = tuple(f"{levels[j]}, {levels[i]}" for i in range(len(levels)) for j in range(i))
        return (Parameter("corr", "correlation", pairs, Interval(-1, 1)),) if pairs else ()

    def matrix(self, κ, rows, xp):
        if not rows.apart.any():
            return 1 - rows.apart
        return (1 - rows.apart) + κ[rows.pair] * rows.apart


@dataclass(frozen=True)
class AR1(Correlation):
    """First-order autoregression over the order of visits, C_jk = ρ^|j-k| (SAS: ar(1); nlme: corAR1)."""

    serial = True

    def parameters(self, levels):
        return (Parameter("rho", "correlation", domain=Interval(-1, 1)),)

    def matrix(self, κ, rows, xp):
        i, j = pairwise(rows.position)
        lag = np.abs(i - j)
        powers = [1.0 + 0 * κ[0]]
        for _ in range(int(lag.max(initial=0))):
            powers.append(powers[-1] * κ[0])
        return xp.stack(powers)[lag]


@dataclass(frozen=True)
class Toeplitz(Correlation):
    """One correlation for each distance between visits (SAS: toep, toeph).

    The matrix is positive definite exactly if all partial autocorrelations lie in (-1, 1); those are the
    coordinates that vary freely, turned into correlations by the Durbin-Levinson recursion.
    """

    linear = True

    def parameters(self, levels):
        lags = tuple(str(k) for k in range(1, len(levels)))
        return (Parameter("rho", "correlation", lags, Interval(-1, 1)),) if lags else ()

    def matrix(self, κ, rows, xp):
        i, j = pairwise(rows.position)
        lag = np.abs(i - j)
        return xp.stack([1.0 + 0 * κ[0], *(κ[k] for k in range(int(lag.max())))])[lag] if lag.any() else 1.0 - lag

    def from_unit(self, u, xp):
        K = u.shape[0] if isinstance(u, np.ndarray) else len(u) if isinstance(u, list) else int(_length(u))
        ar: list[Any] = []
        r: list[Any] = []
        for k in range(K):
            variance = 1.0
            for i in range(k):
                variance = variance * (1 - u[i] * u[i])
            r.append(u[k] * variance + sum(ar[i] * r[k - 1 - i] for i in range(k)))
            ar = [ar[i] - u[k] * ar[k - 1 - i] for i in range(k)] + [u[k]]
        return xp.stack(r) if r else u

    def to_unit(self, κ):
        u: list[float] = []
        ar: list[float] = []
        variance = 1.0
        for k in range(len(κ)):
            u.append((κ[k] - sum(ar[i] * κ[k - 1 - i] for i in range(k))) / variance)
            ar = [ar[i] - u[k] * ar[k - 1 - i] for i in range(k)] + [u[k]]
            variance *= 1 - u[k] ** 2
        return np.array(u)


def _length(u) -> int:
    return u.type.shape[0] if hasattr(u, "type") else u.shape[0]


@dataclass(frozen=True)
class Antedependence(Correlation):
    """First-order ante-dependence, C_jk = ρ_j ρ_{j+1} ... ρ_{k-1}, one ρ for each pair of neighbours (SAS: ante(1))."""

    def parameters(self, levels):
        pairs = tuple(f"{a}, {b}" for a, b in itertools.pairwise(levels))
        return (Parameter("rho", "correlation", pairs, Interval(-1, 1)),) if pairs else ()

    def matrix(self, κ, rows, xp):
        i, j = pairwise(rows.position)
        size = int(i.max()) + 1
        one = 1.0 + 0 * κ[0] if size > 1 else np.ones(())
        table = [[one] * size for _ in range(size)]
        for a in range(size):
            for b in range(a + 1, size):
                table[a][b] = table[b][a] = table[a][b - 1] * κ[b - 1]
        return xp.stack([x for row in table for x in row])[i * size + j]


@dataclass(frozen=True)
class TimeCorrelation(Correlation):
    """A correlation that depends on the time between two rows only, at any times: C_jk = ρ(|t_j - t_k|)."""

    reads = "time"
    serial = True

    def parameters(self, levels):
        return (Parameter("range", "range", domain=Positive()),)

    @abstractmethod
    def at(self, lag, κ, xp) -> Any:
        """ρ at the lags (..., m, m), in the unit of the time column; κ[0] is the range."""

    def matrix(self, κ, rows, xp):
        i, j = pairwise(rows.time)
        return self.at(np.abs(i - j), κ, xp)


@dataclass(frozen=True)
class Exponential(TimeCorrelation):
    """exp(-u/r): the Ornstein-Uhlenbeck process, AR(1) in continuous time (nlme: corExp, corCAR1; SAS: sp(exp))."""

    def at(self, lag, κ, xp):
        return xp.exp(-lag / κ[0])


@dataclass(frozen=True)
class Gaussian(TimeCorrelation):
    """exp(-(u/r)²): infinitely smooth (nlme: corGaus; SAS: sp(gau))."""

    def at(self, lag, κ, xp):
        h = lag / κ[0]
        return xp.exp(-h * h)


@dataclass(frozen=True)
class Matern32(TimeCorrelation):
    """(1 + h) exp(-h) with h = √3 u/r: once differentiable."""

    def at(self, lag, κ, xp):
        h = np.sqrt(3) * lag / κ[0]
        return (1 + h) * xp.exp(-h)


@dataclass(frozen=True)
class Matern52(TimeCorrelation):
    """(1 + h + h²/3) exp(-h) with h = √5 u/r: twice differentiable."""

    def at(self, lag, κ, xp):
        h = np.sqrt(5) * lag / κ[0]
        return (1 + h + h * h / 3) * xp.exp(-h)


@dataclass(frozen=True)
class Spherical(TimeCorrelation):
    """1 - 1.5 u/r + 0.5 (u/r)³ up to the range r, 0 beyond (nlme: corSpher; SAS: sp(sph))."""

    smooth = False

    def at(self, lag, κ, xp):
        t = xp.maximum(1 - lag / κ[0], 0.0)
        return t * t * (3 - t) / 2
