"""The whole covariance of a model: one G for each grouping factor, one R that is a sum of components.

The vector of parameters is the concatenation over structures: the blocks of the grouping factors in the order of
the formula, then the components of the residual.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from .. import jets
from ..parameters import Parameter
from .correlation import Rows
from .structure import Structure


@dataclass(frozen=True)
class RandomTerm:
    """The covariance G of the q effects of one grouping factor, block diagonal over its bars.

    blocks: (structure, columns of Z that it covers).
    """

    group: str
    effects: tuple[str, ...]
    blocks: tuple[tuple[Structure, tuple[int, ...]], ...]

    @cached_property
    def size(self) -> int:
        return sum(s.size for s, _ in self.blocks)

    def matrix(self, θ, xp=np):
        """G (q, q) at the linear coordinates of this term."""
        q, at = len(self.effects), 0
        G = 0.0
        for structure, columns in self.blocks:
            place = np.full(q, -1)
            place[list(columns)] = np.arange(len(columns))
            inside = (place[:, None] >= 0) & (place[None] >= 0)
            block = structure.matrix(θ[at : at + structure.size], term_rows(len(columns)), xp)
            G = G + block[np.where(inside, place[:, None], 0), np.where(inside, place[None], 0)] * inside.astype(float)
            at += structure.size
        return G


@cache
def term_rows(q: int) -> Rows:
    """The q effects of a grouping factor as rows of a structure."""
    return Rows(position=np.arange(q), level=np.arange(q))


@dataclass(frozen=True)
class Covariance:
    """Every structure of a model and the layout of their parameters."""

    random: tuple[RandomTerm, ...]
    residual: tuple[Structure, ...]

    @cached_property
    def structures(self) -> tuple[Structure, ...]:
        return tuple(s for term in self.random for s, _ in term.blocks) + self.residual

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """Where each structure's parameters stand."""
        ends = np.cumsum([s.size for s in self.structures])
        return tuple(slice(int(e) - s.size, int(e)) for e, s in zip(ends, self.structures, strict=True))

    @cached_property
    def size(self) -> int:
        return sum(s.size for s in self.structures)

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        return tuple(p for s in self.structures for p in s.parameters)

    @property
    def names(self) -> list[str]:
        """One name for each entry of the parameter vector, on the natural scale."""
        return [name for p in self.parameters for name in p.full_names()]

    def term_slices(self) -> list[slice]:
        """Where the parameters of each grouping factor stand."""
        ends = np.cumsum([t.size for t in self.random], dtype=int)
        return [slice(int(e) - t.size, int(e)) for e, t in zip(ends, self.random, strict=True)]

    def G(self, θ: np.ndarray) -> list[np.ndarray]:
        """The q x q matrix of each grouping factor at linear coordinates θ."""
        return [t.matrix(θ[s]) for t, s in zip(self.random, self.term_slices(), strict=True)]

    def R(self, θ: np.ndarray, rows: tuple[Rows, ...]) -> np.ndarray:
        """The residual covariance (P, m, m) at linear coordinates θ, for the rows of each component."""
        parts = zip(self.residual, self.residual_slices(), rows, strict=True)
        return sum(s.matrix(θ[k], r) for s, k, r in parts)

    def residual_slices(self) -> tuple[slice, ...]:
        return self.slices[len(self.structures) - len(self.residual) :]

    # --- coordinates of the whole vector ------------------------------------------------------------------

    def _each(self, method: str, x) -> np.ndarray:
        x = np.asarray(x, float)
        parts = [getattr(s, method)(x[k]) for s, k in zip(self.structures, self.slices, strict=True)]
        return np.concatenate(parts) if parts else x

    def linear_from_natural(self, x) -> np.ndarray:
        return self._each("linear_from_natural", x)

    def natural_from_linear(self, θ) -> np.ndarray:
        return self._each("natural_from_linear", θ)

    def working_from_linear(self, θ) -> np.ndarray:
        return self._each("working_from_linear", θ)

    def linear_from_working(self, w) -> np.ndarray:
        return self._each("linear_from_working", w)

    @cached_property
    def scales_with_variance(self) -> np.ndarray:
        return np.concatenate([s.scales_with_variance for s in self.structures])

    def derivatives(self, method: str, x) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A change of coordinates with its Jacobian (K, K) [out, in] and second derivatives (K, K, K) [out, in, in]."""
        K = self.size
        value, first, second = np.empty(K), np.zeros((K, K)), np.zeros((K, K, K))
        for s, k in zip(self.structures, self.slices, strict=True):
            v, d, h = jets.derivatives(getattr(s, method)(jets.variables(x[k]), jets), s.size)
            value[k], first[k, k] = v, d.T
            if h is not None:
                second[k, k, k] = np.moveaxis(h, -1, 0)
        return value, first, second
