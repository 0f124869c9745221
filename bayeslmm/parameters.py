"""Parameters of a covariance: what each is called, where it may lie, and how an optimiser sees it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np


class Domain(ABC):
    """An interval of the real line with a smooth map from the whole line onto it."""

    @abstractmethod
    def from_working(self, w, xp):
        """The value at the unconstrained coordinate w."""

    @abstractmethod
    def to_working(self, x: float) -> float:
        """An unconstrained coordinate of the value x."""

    @abstractmethod
    def contains(self, x: float) -> bool:
        """Whether x is an admissible value."""


@dataclass(frozen=True)
class Positive(Domain):
    """(0, ∞), seen as log x: ranges, and standard deviations that cannot be zero."""

    def from_working(self, w, xp):
        return xp.exp(w)

    def to_working(self, x):
        return float(np.log(x))

    def contains(self, x):
        return bool(x > 0)


@dataclass(frozen=True)
class Real(Domain):
    """The whole line, as it is."""

    def from_working(self, w, xp):
        return w

    def to_working(self, x):
        return float(x)

    def contains(self, x):
        return bool(np.isfinite(x))


@dataclass(frozen=True)
class Interval(Domain):
    """[lower, upper], seen through a sine, so that both ends are reached at a finite coordinate."""

    lower: float
    upper: float

    def from_working(self, w, xp):
        return (self.lower + self.upper) / 2 + (self.upper - self.lower) / 2 * xp.sin(w)

    def to_working(self, x):
        unit = (2 * x - self.lower - self.upper) / (self.upper - self.lower)
        return float(np.arcsin(np.clip(unit, -1, 1)))

    def contains(self, x):
        return bool(self.lower <= x <= self.upper)


@dataclass(frozen=True)
class Parameter:
    """One named quantity on the natural scale: a number (`labels is None`) or a vector with one label an entry.

    `role` is "sd", "correlation", "range" or "power"; `dim` names the dimension that the labels run along.
    """

    name: str
    role: str
    labels: tuple[str, ...] | None = None
    domain: Domain = field(default_factory=Positive)
    dim: str | None = None
    unit: str = ""

    def __len__(self) -> int:
        return 1 if self.labels is None else len(self.labels)

    def full_names(self) -> list[str]:
        """Names of the entries: "sigma", or "sd_Subject[Intercept]", "sd_Subject[Days]"."""
        return [self.name] if self.labels is None else [f"{self.name}[{x}]" for x in self.labels]
