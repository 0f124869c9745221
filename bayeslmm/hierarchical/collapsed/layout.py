"""Draws as labelled arrays: the variables, dimensions and coordinates that PyMC gives for the same model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ... import manyvalues
from ...manyvalues import Many
from ..dims import Dims
from ..slots import effect_dim
from .coordinates import Coordinates, shown

if TYPE_CHECKING:
    from ...model import LMM

SAMPLE = ("chain", "draw")


@dataclass(frozen=True)
class Coords:
    """Where `Dims` writes the labels of its dimensions."""

    coords: dict[str, Any] = field(default_factory=dict)

    def add_coord(self, name: str, labels: Any) -> None:
        """One more dimension."""
        self.coords[name] = list(labels)


@dataclass(frozen=True)
class Shape:
    """chains x draws, in which N draws are shown."""

    chains: int
    draws: int

    def of(self, a: np.ndarray) -> np.ndarray:
        """(N, ...) -> (chains, draws, ...)."""
        return a.reshape(self.chains, self.draws, *a.shape[1:])


def posterior(
    model: LMM,
    coordinates: Coordinates,
    u: np.ndarray,
    beta: np.ndarray,
    w: list[np.ndarray] | None,
    shape: Shape,
) -> xr.Dataset:
    """The group `posterior` of draws u (N, K), beta (N, p) and w (N, levels, q), which may be left out."""
    store = Coords()
    dims = Dims(store)
    found: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    if model.design.coefs:
        found["beta"] = ((dims.of("coef", model.design.coefs),), beta)
    found |= hyperparameters(coordinates, u, dims)
    for i, term in enumerate(model.design.terms if w is not None else ()):
        own = (dims.of(term.group, term.levels.tolist()), dims.of(effect_dim(model, i), term.effects))
        assert w is not None
        found[f"w_{term.group}"] = (own, w[i])
    arrays = {name: ((*SAMPLE, *d), shape.of(a)) for name, (d, a) in found.items()}
    sample = {"chain": np.arange(shape.chains), "draw": np.arange(shape.draws)}
    return xr.Dataset(arrays, coords={**sample, **store.coords})


def hyperparameters(coordinates: Coordinates, u: np.ndarray, dims: Dims) -> dict:
    """Every variance parameter as (dimensions, (N, ...))."""
    unbent, _ = coordinates.unbend(Many(np.ascontiguousarray(u.T)), manyvalues)
    found: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    N = len(u)
    for name in dict.fromkeys(part.slot.name for part in coordinates.parts):
        same = [part for part in coordinates.parts if part.slot.name == name]
        slot = same[0].slot
        numbers = [part.numbers(unbent[part.at], manyvalues) for part in same]
        if slot.role == "matrix":
            square = dims.square(slot.dim or name, slot.labels or ())
            found[name] = (square, _matrices(_rows(numbers[0], N), len(slot.labels or ())))
            continue
        if slot.labels is None:
            found[name] = ((), _rows(numbers[0], N)[:, 0])
            continue
        labels = tuple(x for part in same for x in part.slot.labels or ())
        own = (dims.of(slot.dim or f"{name}_of", labels),)
        found[name] = (own, _rows([x for some in numbers for x in some], N))
        if slot.shown is not None:
            found[slot.shown] = (own, _rows(shown(same[0], numbers[0], manyvalues), N))
    return found


def _rows(numbers: list[Any], N: int) -> np.ndarray:
    """Numbers as columns (N, k)."""
    return np.stack([np.broadcast_to(x.a if isinstance(x, Many) else x, (N,)) for x in numbers], axis=1)


def _matrices(r: np.ndarray, q: int) -> np.ndarray:
    C = np.broadcast_to(np.eye(q), (len(r), q, q)).copy()
    i, j = np.tril_indices(q, -1)
    C[:, i, j] = C[:, j, i] = r
    return C

