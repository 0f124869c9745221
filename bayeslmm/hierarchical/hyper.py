"""Variance parameters as random variables: from priors to the vector that a covariance structure reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from ..covariance.structure import Structure
from .algebra import times_transpose
from .defaults import Priors
from .dims import Dims
from .lkj import LKJ
from .slots import Slot, places
from .vectors import joint

if TYPE_CHECKING:
    from ..model import LMM


@dataclass(frozen=True)
class Hyper:
    """The parameters of one structure in a PyMC model.

    linear (K,): its linear coordinates; sd (levels,): its standard deviations; chol: the Cholesky factor of
    a free correlation matrix, None for other correlations.
    """

    structure: Structure
    linear: Any
    sd: Any
    chol: Any | None


def declare(model: LMM, priors: Priors, dims: Dims) -> list[Hyper]:
    """Create the random variables of all structures in the model on the context stack."""
    found = places(model)
    numbers: dict[str, Any] = {}
    for name in dict.fromkeys(place.slot.name for place in found):
        # Bars of one grouping factor share the name of their standard deviations: one variable for all.
        same = [place.slot for place in found if place.slot.name == name]
        labels = None if same[0].labels is None else tuple(x for slot in same for x in slot.labels or ())
        numbers |= _variable(replace(same[0], labels=labels), priors, dims)
    owners = {place.index: place.structure for place in found}
    return [
        _assemble(structure, [p.slot for p in found if p.index == k], numbers, dims)
        for k, structure in owners.items()
    ]


def _variable(slot: Slot, priors: Priors, dims: Dims) -> dict[str, Any]:
    """Create one random variable; its numbers (of a matrix: its factor) by the names of their priors."""
    own = [priors[entry] for entry in slot.entries]
    if slot.role == "matrix":
        assert isinstance(own[0], LKJ)
        assert slot.labels is not None
        square = dims.square(slot.dim or slot.name, slot.labels)
        return {slot.name: own[0].to_pymc(slot.name, q=len(slot.labels), dims=square)}
    if slot.labels is None:
        return {slot.name: own[0].to_pymc(slot.name)}
    dim = dims.of(slot.dim or f"{slot.name}_of", slot.labels)
    variable = joint(own).to_pymc(slot.name, dims=dim)
    return {entry: variable[i] for i, entry in enumerate(slot.entries)}


def _assemble(structure: Structure, slots: list[Slot], numbers: dict[str, Any], dims: Dims) -> Hyper:
    natural: list[Any] = []
    chol = None
    for slot in slots:
        own = [numbers[entry] for entry in slot.entries]
        if slot.role == "matrix":
            chol = own[0]
            C = times_transpose(chol, chol)
            own = [C[i, j] for i, j in zip(*np.tril_indices(len(slot.labels or ()), -1), strict=True)]
        elif slot.role == "partial":
            κ = structure.correlation.from_unit(own, pt)
            assert slot.shown is not None
            assert slot.labels is not None
            pm.Deterministic(slot.shown, κ, dims=dims.of(slot.dim or f"{slot.shown}_of", slot.labels))
            own = [κ[i] for i in range(len(own))]
        natural += own
    x = pt.stack(natural)
    return Hyper(structure, structure.linear_from_natural(x, pt), x[: structure.scale.levels], chol)
