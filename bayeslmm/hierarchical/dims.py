"""Names of dimensions and their coordinates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pymc as pm


@dataclass(frozen=True)
class Dims:
    """Adds coordinates to a PyMC model; a name that is taken with other labels gets a suffix."""

    model: pm.Model
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def of(self, name: str, labels: Iterable[str]) -> str:
        """A dimension with these labels, called `name` if that is free."""
        wanted = tuple(labels)
        while self.labels.get(name, wanted) != wanted:
            name += "_level"
        if name not in self.labels:
            self.labels[name] = wanted
            self.model.add_coord(name, wanted)
        return name

    def square(self, name: str, labels: Iterable[str]) -> tuple[str, str]:
        """Two dimensions for a matrix: `name` and `name_`."""
        first = self.of(name, labels)
        return first, self.of(f"{first}_", labels)
