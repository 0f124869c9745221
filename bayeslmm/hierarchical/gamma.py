"""Gamma and inverse gamma priors, on a standard deviation or on its square."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from scipy.special import gammaln

from ..errors import SamplingError
from .prior import Family


@dataclass(frozen=True, repr=False)
class OnScale(Family):
    """A positive family placed on the standard deviation (on="sd") or on the variance (on="variance")."""

    _: KW_ONLY
    on: str = "sd"

    def __post_init__(self) -> None:
        self._require_positive("shape")
        if self.on not in ("sd", "variance"):
            raise SamplingError(f"{type(self).__name__}: on={self.on!r} must be 'sd' or 'variance'.")

    @abstractmethod
    def _density(self, v: Any, xp: Any) -> Any:
        """Log density of the quantity that the family describes."""

    @abstractmethod
    def _draw(self, rng: np.random.Generator, size: Any) -> Any:
        """Draws of that quantity."""

    def logp(self, x, xp):
        """Log density of the standard deviation x; with v = x², p(x) = p(v) 2x."""
        if self.on == "sd":
            return self._density(x, xp)
        return self._density(x * x, xp) + (xp.log(x) + np.log(2))

    def sample(self, rng, size=None):
        draws = self._draw(rng, size)
        return draws if self.on == "sd" else np.sqrt(draws)

    def to_pymc(self, name, **kwargs):
        """As for every prior; on the variance too the variable is the standard deviation."""
        if self.on == "sd":
            return super().to_pymc(name, **kwargs)
        import pymc as pm
        import pytensor.tensor as pt

        return pm.CustomDist(
            name,
            dist=lambda size: self.dist(size=size),
            logp=lambda x: self.logp(x, pt),
            transform=pm.distributions.transforms.log,
            signature="->()",
            class_name=f"{type(self).__name__}OnVariance",
            **kwargs,
        )

    def dist(self, **kwargs):
        import pytensor.tensor as pt

        inner = super().dist(**kwargs)
        return inner if self.on == "sd" else pt.sqrt(inner)


@dataclass(frozen=True, repr=False)
class Gamma(OnScale):
    """Gamma with shape and rate: mean shape/rate."""

    shape: float
    rate: float

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_positive("rate")

    def _density(self, v, xp):
        constant = self.shape * np.log(self.rate) - gammaln(self.shape)
        return (self.shape - 1) * xp.log(v) - self.rate * v + constant

    def _draw(self, rng, size):
        return rng.gamma(self.shape, 1 / np.asarray(self.rate), size)

    def pymc(self):
        return "Gamma", {"alpha": self.shape, "beta": self.rate}


@dataclass(frozen=True, repr=False)
class InverseGamma(OnScale):
    """Inverse gamma with shape and scale: mean scale/(shape - 1)."""

    shape: float
    scale: float

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_positive("scale")

    def _density(self, v, xp):
        constant = self.shape * np.log(self.scale) - gammaln(self.shape)
        return constant - (self.shape + 1) * xp.log(v) - self.scale / v

    def _draw(self, rng, size):
        return np.asarray(self.scale) / rng.gamma(self.shape, 1.0, size)

    def pymc(self):
        return "InverseGamma", {"alpha": self.shape, "beta": self.scale}
