"""What every prior can do: a log density written once, a way into PyMC, random draws.

A family has `logp(x, xp)` in arithmetic and `xp.log/exp/sqrt` only, so that `xp` may be numpy,
`bayeslmm.jets` or `pytensor.tensor`. Densities refer to the natural scale of the parameter (a standard
deviation, a correlation, a range), whatever the scale that a sampler moves on. Parameters of a family may be
arrays: then x is an array of the same shape, one density an entry.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from ..errors import SamplingError


@dataclass(frozen=True)
class Prior(ABC):
    """Base of every prior.

    support: "real", "positive", "interval" or "correlation" (a matrix); proper: whether it integrates to one.
    """

    support: ClassVar[str] = "positive"
    proper: ClassVar[bool] = True

    @abstractmethod
    def logp(self, x: Any, xp: Any) -> Any:
        """Log density at x inside the support, entry by entry."""

    @abstractmethod
    def sample(self, rng: np.random.Generator, size: Any = None) -> Any:
        """Independent draws."""

    @abstractmethod
    def to_pymc(self, name: str, **kwargs: Any) -> Any:
        """Create the random variable in the model on the context stack; kwargs go to PyMC (dims, shape)."""

    @abstractmethod
    def dist(self, **kwargs: Any) -> Any:
        """The same as an unregistered PyMC variable."""

    def __repr__(self) -> str:
        plain = [_number(getattr(self, f.name)) for f in fields(self) if not f.kw_only]
        named = [f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if f.kw_only]
        return f"{type(self).__name__}({', '.join(plain + named)})"

    def _require_positive(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not np.all(np.asarray(value, float) > 0):
                raise SamplingError(f"{type(self).__name__}: {name} = {value} must be positive.")


class Family(Prior):
    """A prior that is a distribution of PyMC by name."""

    @abstractmethod
    def pymc(self) -> tuple[str, dict[str, Any]]:
        """Name and parameters of the distribution of PyMC."""

    def to_pymc(self, name: str, **kwargs: Any) -> Any:
        """See `Prior`."""
        import pymc as pm

        family, parameters = self.pymc()
        return getattr(pm, family)(name, **_floats(parameters), **kwargs)

    def dist(self, **kwargs: Any) -> Any:
        """See `Prior`."""
        import pymc as pm

        family, parameters = self.pymc()
        return getattr(pm, family).dist(**_floats(parameters), **kwargs)


def _floats(parameters: dict[str, Any]) -> dict[str, np.ndarray]:
    # PyTensor takes the logarithm of a small whole number in single precision.
    return {k: np.asarray(v, float) for k, v in parameters.items()}


def _number(x: Any) -> str:
    return f"{x:.4g}" if np.ndim(x) == 0 else f"[{', '.join(f'{v:.4g}' for v in np.ravel(x))}]"


@dataclass(frozen=True, repr=False)
class Uniform(Family):
    """Equal density between lower and upper."""

    lower: float
    upper: float
    support = "interval"

    def __post_init__(self) -> None:
        if not np.all(np.asarray(self.lower) < np.asarray(self.upper)):
            raise SamplingError(f"Uniform: lower = {self.lower} must lie below upper = {self.upper}.")

    def logp(self, x, xp):
        return 0 * x - np.log(np.asarray(self.upper) - self.lower)

    def sample(self, rng, size=None):
        return rng.uniform(self.lower, self.upper, size)

    def pymc(self):
        return "Uniform", {"lower": self.lower, "upper": self.upper}


@dataclass(frozen=True, repr=False)
class Flat(Family):
    """Density 1 everywhere that the parameter may lie: improper where that is not an interval."""

    positive: bool = False  # the parameter is: half the line
    support = "real"
    proper = False

    def logp(self, x, xp):
        return 0 * x

    def sample(self, rng, size=None):
        raise SamplingError("A flat prior is improper: nothing can be drawn from it.")

    def pymc(self):
        return "HalfFlat" if self.positive else "Flat", {}

    def __repr__(self) -> str:
        return "Flat()"
