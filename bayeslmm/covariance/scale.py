"""Scales: how the standard deviation varies over rows; the D of Σ = D C D.

The scale is seen through variances v (not standard deviations), because V is linear in them and a variance of
exactly zero then has finite derivatives.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..parameters import Parameter, Positive, Real
from .correlation import Rows, pairwise


@dataclass(frozen=True)
class Scale:
    """One variance for all rows, or one for each level of a column; times a power of a covariate.

    name: of the standard deviation; labels: of the levels, None for a common scale; power: whether the standard
    deviation is proportional to x^δ for a positive covariate x.
    """

    name: str
    labels: tuple[str, ...] | None = None
    dim: str | None = None
    power: bool = False
    unit: str = ""

    @property
    def levels(self) -> int:
        return 1 if self.labels is None else len(self.labels)

    def parameters(self) -> tuple[Parameter, ...]:
        sd = Parameter(self.name, "sd", self.labels, Positive(), self.dim, self.unit)
        return (sd, Parameter(f"power_{self.name}", "power", domain=Real())) if self.power else (sd,)

    def variance(self, v, rows: Rows):
        """Variances of the rows before the power: (levels,) -> (P, m), or a number where all are equal."""
        return v[0] if self.labels is None else v[rows.level]

    def outer(self, v, rows: Rows, xp):
        """sd_j sd_k before the power: (levels,) -> (P, m, m), or a number where all are equal."""
        if self.labels is None:
            return v[0]
        sd = xp.sqrt(v)[rows.level]
        i, j = pairwise(rows.level)
        same = (i == j).astype(float)
        return v[rows.level][..., :, None] * same + sd[..., :, None] * sd[..., None, :] * (1 - same)

    def multiplier(self, δ, rows: Rows, xp):
        """The factor (x_j x_k)^δ: (P, m, m)."""
        i, j = pairwise(rows.log_covariate)
        return xp.exp(δ * (i + j))


def weight_factor(rows: Rows):
    """1/√(w_j w_k) for known precision weights: (P, m, m)."""
    assert rows.weight is not None
    root = 1 / np.sqrt(rows.weight)
    return root[..., :, None] * root[..., None, :]
