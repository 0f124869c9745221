"""The Cholesky factor of a correlation matrix as a random variable.

`pm.LKJCorr` of PyMC 6.4 has the same density, but its transform's name has an underscore, which PyMC takes
apart wrongly: its draws are stored under another name, and posterior prediction then draws it anew from the
prior.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pymc.distributions.transforms import Transform

from .algebra import gram, matvec
from .lkj import lkj_constant


def lkj_factor(name: str, eta: float, q: int, dims: Any = None, **kwargs: Any) -> Any:
    """Create `chol_<name>` with LL' ~ LKJ(eta), and <name> = LL' as a Deterministic with `dims`."""
    L = pm.CustomDist(
        f"chol_{name}",
        float(eta),
        dist=lambda _, size: _draw(eta, q),
        logp=lambda L, _: _logp(L, eta, q),
        signature="()->(q,q)",
        transform=PartialCorrelations(q),
        support_point=lambda rv, size, *_: pt.eye(q),
        class_name="LKJFactor",
        **kwargs,
    )
    C = gram(L).ravel() * (1 - np.eye(q)).ravel() + np.eye(q).ravel()
    pm.Deterministic(name, C.reshape((q, q)), dims=dims)
    return L


def _logp(L: Any, eta: float, q: int) -> Any:
    """log density of the entries below the diagonal of L: |C|^(η-1) and the Jacobian of C -> L."""
    exponents = 2 * (eta - 1) + q - 1 - np.arange(q)
    diagonal = np.eye(q * q)[:: q + 1]
    return lkj_constant(eta, q) + (exponents[1:] * pt.log(matvec(diagonal[1:], L.ravel()))).sum()


def _draw(eta: float, q: int) -> Any:
    """Partial correlations are independent betas (C-vine)."""
    rows: list[list[Any]] = []
    for i in range(q):
        row: list[Any] = []
        left: Any = pt.constant(1.0)
        for j in range(i):
            b = eta + (q - 2 - j) / 2
            partial = 2 * pm.Beta.dist(b, b) - 1
            row.append(partial * pt.sqrt(left))
            left = left * (1 - partial * partial)
        rows.append([*row, pt.sqrt(left), *[pt.constant(0.0)] * (q - 1 - i)])
    return pt.stack([x for row in rows for x in row]).reshape((q, q))


@dataclass(frozen=True, eq=False)
class PartialCorrelations(Transform):
    """Real numbers x_ij, j < i -> L with L_ij = t_ij √Π_k<j (1 - t_ik²) for the partial correlations t = tanh x, t_ii = 1.

    Every product of 1 - t² is the exponential of a sum: L is one line of arithmetic between two constant matrices.
    """

    q: int
    name = "partial"
    ndim_supp = 2

    def forward(self, value, *inputs):
        squares = pt.cumsum(value * value, axis=1) - value * value
        i, j = np.tril_indices(self.q, -1)
        return pt.arctanh((value / pt.sqrt(1 - squares))[i, j])

    def backward(self, value, *inputs):
        q = self.q
        place, before = self._constants()
        L = (matvec(place, pt.tanh(value)) + np.eye(q).ravel()) * pt.exp(0.5 * matvec(before, _log_rest(value)))
        return L.reshape((q, q))

    def log_jac_det(self, value, *inputs):
        # dL_ij/dx_ij = (1 - t²) √Π, and the matrix of derivatives is triangular.
        place, before = self._constants()
        below = place.sum(axis=1) > 0
        return ((1 + 0.5 * before[below].sum(axis=0)) * _log_rest(value)).sum()

    def _constants(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the entries below the diagonal stand in L (q², n), and which of them stand before each in its row."""
        i, j = np.tril_indices(self.q, -1)
        row, column = np.divmod(np.arange(self.q**2), self.q)
        place = (row[:, None] == i) & (column[:, None] == j)
        before = (row[:, None] == i) & (j < column[:, None]) & (column <= row)[:, None]
        return place.astype(float), before.astype(float)


def _log_rest(x: Any) -> Any:
    """log(1 - tanh² x)."""
    return 2 * (np.log(2) - x - pt.softplus(-2 * x))
