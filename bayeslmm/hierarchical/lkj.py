"""The LKJ prior of a correlation matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import gammaln

from .prior import Family


@dataclass(frozen=True, repr=False)
class LKJ(Family):
    """p(C) ∝ det(C)^(η-1) over correlation matrices: uniform at η = 1, towards independence as η grows.

    Source: Lewandowski, Kurowicka and Joe (2009), Journal of Multivariate Analysis 100, 1989-2001.
    """

    eta: float = 2.0
    support = "correlation"

    def __post_init__(self) -> None:
        self._require_positive("eta")

    def logp(self, x: Any, xp: Any) -> Any:
        """Log density at the correlations (q(q-1)/2,), row by row: C[1, 0], C[2, 0], C[2, 1], ..."""
        q = order(_count(x))
        if q == 1:
            return 0.0
        return lkj_constant(self.eta, q) + (self.eta - 1) * _log_determinant(x, q, xp)

    def sample(self, rng: np.random.Generator, size: Any = None, q: int = 2) -> Any:
        """Draws of the correlations (..., q(q-1)/2): partial correlations are independent betas (C-vine)."""
        shape: tuple[int, ...] = () if size is None else tuple(int(s) for s in np.ravel(size))
        partial = np.zeros((*shape, q, q))
        for k in range(q - 1):
            b = self.eta + (q - 2 - k) / 2
            partial[..., k + 1 :, k] = 2 * rng.beta(b, b, (*shape, q - 1 - k)) - 1
        L = np.zeros((*shape, q, q))
        for i in range(q):
            left = np.ones(shape)
            for j in range(i):
                L[..., i, j] = partial[..., i, j] * np.sqrt(left)
                left = left * (1 - partial[..., i, j] ** 2)
            L[..., i, i] = np.sqrt(left)
        C = L @ np.swapaxes(L, -1, -2)
        return C[(..., *np.tril_indices(q, -1))]

    def to_pymc(self, name: str, *, q: int = 2, dims: Any = None, **kwargs: Any) -> Any:
        """The Cholesky factor `chol_<name>` (q, q), and the matrix <name> as a Deterministic."""
        from .factor import lkj_factor

        return lkj_factor(name, self.eta, q, dims, **kwargs)

    def pymc(self):
        return "LKJCorr", {"eta": self.eta}


def order(pairs: int) -> int:
    """The order q of a matrix with q(q-1)/2 entries below its diagonal."""
    return round((1 + np.sqrt(1 + 8 * pairs)) / 2)


def _count(x: Any) -> int:
    return int(x.type.shape[0]) if hasattr(x, "type") else int(x.shape[0])


def lkj_constant(eta: float, q: int) -> float:
    """log of 1 / ∫ det(C)^(η-1) dC."""
    k = np.arange(1, q)
    terms = 0.5 * k * np.log(np.pi) + gammaln(eta + 0.5 * (q - 1 - k))
    return float((q - 1) * gammaln(eta + 0.5 * (q - 1)) - terms.sum())


def _log_determinant(x: Any, q: int, xp: Any) -> Any:
    """log det C by the elimination C = L D L', entry by entry so that every number type can run it."""
    rows: list[list[Any]] = [[1.0]]
    pivots: list[Any] = [1.0]
    total: Any = 0.0
    for i in range(1, q):
        work: list[Any] = []  # L[i, j] D[j]
        for j in range(i):
            entry = x[i * (i - 1) // 2 + j]
            for k in range(j):
                entry = entry - work[k] * rows[j][k]
            work.append(entry)
        row = [work[j] / pivots[j] for j in range(i)]
        pivot: Any = 1.0
        for j in range(i):
            pivot = pivot - work[j] * row[j]
        rows.append([*row, 1.0])
        pivots.append(pivot)
        total = total + xp.log(pivot)
    return total
