"""The hyperparameters of the hierarchical model: one slot for each random variable that has a prior.

A structure's natural parameters are (sd, power, κ). Here they are seen as slots: vectors of standard
deviations and ranges as they are; a free correlation as one matrix; a correlation that is built from freely
varying coordinates (Toeplitz: its partial autocorrelations) as those.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..covariance.correlation import Correlation, Unstructured
from ..covariance.structure import Structure
from ..parameters import Domain, Parameter

if TYPE_CHECKING:
    from ..model import LMM


@dataclass(frozen=True)
class Slot:
    """One random variable: a number (labels None), a vector, or a correlation matrix over `labels`.

    role: "sd", "power", "range", "correlation", "matrix" (free correlation) or "partial" (coordinates of
    `shown`).
    """

    name: str
    role: str
    labels: tuple[str, ...] | None
    domain: Domain
    dim: str | None
    shown: str | None = None

    @property
    def entries(self) -> tuple[str, ...]:
        """The names that priors are given to: one for each number, one for a whole matrix."""
        if self.labels is None or self.role == "matrix":
            return (self.name,)
        return tuple(f"{self.name}[{x}]" for x in self.labels)


@dataclass(frozen=True)
class Place:
    """A slot and the structure it belongs to, the `index`-th of the model.

    term: index of the grouping factor, with the columns of its Z; None in the residual, whose component is
    `part`.
    """

    slot: Slot
    structure: Structure
    index: int
    term: int | None = None
    columns: tuple[int, ...] = ()
    part: int | None = None


def places(model: LMM) -> tuple[Place, ...]:
    """All slots of a model, grouping factors first, then the residual."""
    found: list[Place] = []
    index = 0
    for i, term in enumerate(model.covariance.random):
        for structure, columns in term.blocks:
            whole = len(columns) == len(term.effects)
            found += [
                Place(_of_effects(model, i, whole, s), structure, index, i, columns)
                for s in _slots(structure)
            ]
            index += 1
    for k, structure in enumerate(model.residual.parts):
        found += [Place(slot, structure, index + k, part=k) for slot in _slots(structure)]
    return tuple(found)


def effect_dim(model: LMM, term: int) -> str:
    """`effect` where all grouping factors have the same effects, else `effect_<group>`."""
    terms = model.design.terms
    return "effect" if len({t.effects for t in terms}) == 1 else f"effect_{terms[term].group}"


def _of_effects(model: LMM, term: int, whole: bool, slot: Slot) -> Slot:
    """The slot with the dimension of its grouping factor, or its own for some of the effects."""
    if slot.dim != "effect":
        return slot
    part_of_matrix = slot.role == "matrix" and not whole
    own = f"effect_{slot.name.removeprefix('corr_')}" if part_of_matrix else effect_dim(model, term)
    return replace(slot, dim=own)


def _slots(structure: Structure) -> tuple[Slot, ...]:
    """The slots of one structure, in the order of its natural parameters."""
    scale = tuple(Slot(p.name, p.role, p.labels, p.domain, p.dim) for p in structure.scale.parameters())
    κ = structure.parameters[len(scale) :]
    return scale + tuple(_correlation_slot(structure, p) for p in κ)


def _correlation_slot(structure: Structure, p: Parameter) -> Slot:
    correlation = structure.correlation
    if isinstance(correlation, Unstructured):
        dim = correlation.column or structure.scale.dim
        return Slot(p.name, "matrix", structure.positions, p.domain, dim)
    if type(correlation).from_unit is not Correlation.from_unit:
        return Slot(f"partial_{p.name}", "partial", p.labels, p.domain, p.dim or f"{p.name}_lag", p.name)
    return Slot(p.name, p.role, p.labels, p.domain, p.dim or (f"{p.name}_of" if p.labels else None))
