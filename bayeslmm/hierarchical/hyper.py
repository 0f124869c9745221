"""Variance parameters as random variables: from priors to the vector that a covariance structure reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from ..covariance.structure import Structure
from .algebra import gram, matvec, scale_rows
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
    variables: dict[str, _Variable] = {}
    for name in dict.fromkeys(place.slot.name for place in found):
        # Bars of one grouping factor share the name of their standard deviations: one variable for all.
        same = [place.slot for place in found if place.slot.name == name]
        labels = None if same[0].labels is None else tuple(x for slot in same for x in slot.labels or ())
        variables[name] = _variable(replace(same[0], labels=labels), priors, dims)
    owners = {place.index: place.structure for place in found}
    return [
        _assemble(structure, [p.slot for p in found if p.index == k], variables, dims)
        for k, structure in owners.items()
    ]


@dataclass(frozen=True)
class _Variable:
    """A random variable: a number, a vector with the names of its entries, or the factor of a matrix."""

    value: Any
    entries: tuple[str, ...] | None = None

    def of(self, slot: Slot) -> Any:
        """The vector of a slot."""
        if self.entries is None:
            return self.value[None]
        if self.entries == slot.entries:
            return self.value
        return self.value[[self.entries.index(entry) for entry in slot.entries]]


def _variable(slot: Slot, priors: Priors, dims: Dims) -> _Variable:
    """Create one random variable."""
    own = [priors[entry] for entry in slot.entries]
    if slot.role == "matrix":
        assert isinstance(own[0], LKJ)
        assert slot.labels is not None
        square = dims.square(slot.dim or slot.name, slot.labels)
        return _Variable(own[0].to_pymc(slot.name, q=len(slot.labels), dims=square))
    if slot.labels is None:
        return _Variable(own[0].to_pymc(slot.name))
    dim = dims.of(slot.dim or f"{slot.name}_of", slot.labels)
    return _Variable(joint(own).to_pymc(slot.name, dims=dim), slot.entries)


def _assemble(structure: Structure, slots: list[Slot], variables: dict[str, _Variable], dims: Dims) -> Hyper:
    natural: list[Any] = []
    chol = None
    for slot in slots:
        variable = variables[slot.name]
        if slot.role == "matrix":
            chol = variable.value
            i, j = np.tril_indices(len(slot.labels or ()), -1)
            natural.append((chol[i] * chol[j]).sum(axis=1))
        elif slot.role == "partial":
            assert slot.shown is not None
            assert slot.labels is not None
            unit = variable.of(slot)
            κ = structure.correlation.from_unit([unit[i] for i in range(len(slot.labels))], pt)
            pm.Deterministic(slot.shown, κ, dims=dims.of(slot.dim or f"{slot.shown}_of", slot.labels))
            natural.append(κ)
        else:
            natural.append(variable.of(slot))
    sd = natural[0]
    if chol is not None and structure.free:
        return Hyper(structure, _covariances(scale_rows(sd, chol)), sd, chol)
    x = sd if len(natural) == 1 else pt.concatenate(natural)
    return Hyper(structure, structure.linear_from_natural(x, pt), sd, chol)


def _covariances(Λ: Any) -> Any:
    """Variances and covariances of ΛΛ' in the order of linear coordinates."""
    q = Λ.type.shape[0]
    i, j = np.tril_indices(q, -1)
    return matvec(np.eye(q * q)[[*np.arange(q) * (q + 1), *i * q + j]], gram(Λ).ravel())
