"""Û and Ŵ at target rows for many (y, β, θ) on the same rows: what does not depend on them is arranged once.

    Ω̂(t) = k'V₁⁻¹(y - Xβ - U₂b̂) + u'b̂,     b̂ = (G₂⁻¹ + U₂'V₁⁻¹U₂)⁻¹U₂'V₁⁻¹(y - Xβ)

as in `conditional.py`, without variances.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from ..covariance.assembly import Covariance
from .conditional import block_diagonal, crossed_columns, padded_rows, reduce
from .padded import Group, groups, local_Z, make_batch
from .stacked import Stacked
from .woodbury import inner_inverse


@dataclass(frozen=True)
class Arranged:
    """A group of blocks: its rows, Z by level, and the crossed columns (B m, u) of its observed rows."""

    group: Group
    local: tuple[np.ndarray, np.ndarray, list[int]]
    crossed: sparse.csr_array | None


@dataclass(frozen=True)
class Predictor:
    """Stacked rows, arranged once."""

    rows: Stacked
    parts: tuple[Arranged, ...]
    crossed: sparse.csr_array | None

    @staticmethod
    def of(rows: Stacked) -> Predictor:
        U = crossed_columns(rows)
        parts = []
        for group in groups(rows):
            own = None if U is None else padded_rows(U, group.observed)
            parts.append(Arranged(group, local_Z(rows, group), own))
        return Predictor(rows, tuple(parts), U)

    def means(
        self, covariance: Covariance, θ: np.ndarray, beta: np.ndarray, y: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Û and Ŵ (T,) of the targets given observations y (observed,) without their offset."""
        rows, n = self.rows, self.rows.observed
        r = y - rows.X[:n] @ beta
        batches = [make_batch(rows, x.group, covariance, θ, x.local) for x in self.parts]
        u, w = np.zeros(len(rows.X) - n), np.zeros(len(rows.X) - n)
        if self.crossed is not None:
            b̂ = self._crossed_effects(covariance, θ, [b.V() for b in batches], r)
            r = r - self.crossed[:n] @ b̂
            u += self.crossed[n:] @ b̂
        reducible = all(p.diagonal for p in covariance.residual)
        for x, b in zip(self.parts, batches, strict=True):
            inside = x.group.targets >= 0
            at = x.group.targets[inside] - n
            data = _padded(r, x.group.observed)[..., None]
            if reducible:
                b, data, _, _ = reduce(b, data, None)
            α = np.linalg.solve(b.V(), data)
            u[at] += (b.Zt @ (b.G @ (np.swapaxes(b.Zo, 1, 2) @ α)))[..., 0][inside]
            w[at] += (b.cross @ α)[..., 0][inside]
        return u, w

    def _crossed_effects(self, covariance: Covariance, θ, V: list[np.ndarray], r: np.ndarray) -> np.ndarray:
        G = covariance.G(θ)
        widths = tuple(self.rows.levels[i] * len(G[i]) for i in self.rows.crossed)
        S, right = sparse.csr_array((sum(widths), sum(widths))), np.zeros(sum(widths))
        for x, v in zip(self.parts, V, strict=True):
            if x.crossed is None or not v.size:
                continue
            Li = np.linalg.inv(np.linalg.cholesky(v))
            white = block_diagonal(Li) @ x.crossed
            S = S + white.T @ white
            right += white.T @ (Li @ _padded(r, x.group.observed)[..., None]).ravel()
        found = inner_inverse(S.toarray(), [G[i] for i in self.rows.crossed], widths)
        assert found is not None
        return found[0] @ right


def _padded(r: np.ndarray, index: np.ndarray) -> np.ndarray:
    return np.where(index >= 0, r[np.maximum(index, 0)], 0.0)
