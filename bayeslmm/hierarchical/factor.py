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

from .algebra import times_transpose
from .lkj import lkj_constant


def lkj_factor(name: str, eta: float, q: int, dims: Any = None, **kwargs: Any) -> Any:
    """Create `chol_<name>` with LL' ~ LKJ(eta), and <name> = LL' as a Deterministic with `dims`."""
    L = pm.CustomDist(
        f"chol_{name}",
        float(eta),
        dist=lambda _, size: _draw(eta, q),
        logp=lambda L, _: _logp(L, eta, q),
        signature="()->(q,q)",
        transform=UnitRows(q),
        initval=np.eye(q),
        class_name="LKJFactor",
        **kwargs,
    )
    off = 1 - np.eye(q)
    pm.Deterministic(name, times_transpose(L, L) * off + np.eye(q), dims=dims)
    return L


def _logp(L: Any, eta: float, q: int) -> Any:
    """log density of the entries below the diagonal of L: |C|^(η-1) and the Jacobian of C -> L."""
    exponents = 2 * (eta - 1) + q - 1 - np.arange(q)
    return lkj_constant(eta, q) + (exponents * pt.log(pt.diagonal(L))).sum()


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
class UnitRows(Transform):
    """Real numbers x_ij, j < i -> rows (x_i1, ..., x_i,i-1, 1, 0, ...) of length one."""

    q: int
    name = "unitrows"
    ndim_supp = 2

    def forward(self, value, *inputs):
        i, j = np.tril_indices(self.q, -1)
        return value[i, j] / value[i, i]

    def backward(self, value, *inputs):
        return self._rows(value) / pt.sqrt(self._squares(value))[:, None]

    def log_jac_det(self, value, *inputs):
        power = np.arange(self.q) + 2.0
        return -0.5 * (power * pt.log(self._squares(value))).sum()

    def _place(self):
        """Where the entry of each cell stands in (x, 0, 1)."""
        i, j = np.tril_indices(self.q, -1)
        place = np.full((self.q, self.q), len(i))
        place[i, j] = np.arange(len(i))
        place[np.diag_indices(self.q)] = len(i) + 1
        return place

    def _rows(self, value):
        return pt.concatenate([value, np.array([0.0, 1.0])])[self._place()]

    def _squares(self, value):
        rows = self._rows(value)
        return (rows * rows).sum(axis=1)
