"""Families of priors for coefficients, standard deviations and ranges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from ..errors import SamplingError
from .gamma import Gamma, InverseGamma
from .lkj import LKJ
from .prior import Family, Flat, Prior, Uniform

LOG_2PI = float(np.log(2 * np.pi))

__all__ = [
    "LKJ", "PC", "Exp", "Flat", "Gamma", "HalfCauchy", "HalfNormal", "HalfT", "InverseGamma", "LogNormal",
    "Normal", "Prior", "StudentT", "Uniform",
]  # fmt: skip


@dataclass(frozen=True, repr=False)
class Normal(Family):
    """Normal with mean mu and standard deviation sigma."""

    mu: float
    sigma: float
    support = "real"

    def __post_init__(self) -> None:
        self._require_positive("sigma")

    def logp(self, x, xp):
        z = (x - self.mu) / self.sigma
        return -0.5 * z * z - (np.log(self.sigma) + 0.5 * LOG_2PI)

    def sample(self, rng, size=None):
        return rng.normal(self.mu, self.sigma, size)

    def pymc(self):
        return "Normal", {"mu": self.mu, "sigma": self.sigma}


@dataclass(frozen=True, repr=False)
class StudentT(Family):
    """Student t with nu degrees of freedom, location mu and scale sigma."""

    nu: float
    mu: float
    sigma: float
    support = "real"

    def __post_init__(self) -> None:
        self._require_positive("nu", "sigma")

    def logp(self, x, xp):
        z = (x - self.mu) / self.sigma
        return -0.5 * (self.nu + 1) * xp.log(1 + z * z / self.nu) - _t_constant(self.nu, self.sigma)

    def sample(self, rng, size=None):
        return self.mu + self.sigma * rng.standard_t(self.nu, size)

    def pymc(self):
        return "StudentT", {"nu": self.nu, "mu": self.mu, "sigma": self.sigma}


def _t_constant(nu, scale):
    """log of √(νπ) s Γ(ν/2) / Γ((ν+1)/2)."""
    return gammaln(nu / 2) - gammaln((nu + 1) / 2) + 0.5 * np.log(nu * np.pi) + np.log(scale)


@dataclass(frozen=True, repr=False)
class HalfT(Family):
    """Student t folded at zero; with nu = 3 the default of brms for standard deviations."""

    nu: float
    scale: float

    def __post_init__(self) -> None:
        self._require_positive("nu", "scale")

    def logp(self, x, xp):
        z = x / self.scale
        tail = 0.5 * (self.nu + 1) * xp.log(1 + z * z / self.nu)
        return np.log(2) - tail - _t_constant(self.nu, self.scale)

    def sample(self, rng, size=None):
        return np.abs(self.scale * rng.standard_t(self.nu, size))

    def pymc(self):
        return "HalfStudentT", {"nu": self.nu, "sigma": self.scale}


@dataclass(frozen=True, repr=False)
class HalfNormal(Family):
    """Normal folded at zero; `scale` is the standard deviation before folding."""

    scale: float

    def __post_init__(self) -> None:
        self._require_positive("scale")

    def logp(self, x, xp):
        z = x / self.scale
        return -0.5 * z * z - (np.log(self.scale) + 0.5 * np.log(np.pi / 2))

    def sample(self, rng, size=None):
        return np.abs(rng.normal(0, self.scale, size))

    def pymc(self):
        return "HalfNormal", {"sigma": self.scale}


@dataclass(frozen=True, repr=False)
class HalfCauchy(Family):
    """Cauchy folded at zero: the half-t with one degree of freedom."""

    scale: float

    def __post_init__(self) -> None:
        self._require_positive("scale")

    def logp(self, x, xp):
        z = x / self.scale
        return np.log(2 / np.pi) - np.log(self.scale) - xp.log(1 + z * z)

    def sample(self, rng, size=None):
        return np.abs(self.scale * rng.standard_cauchy(size))

    def pymc(self):
        return "HalfCauchy", {"beta": self.scale}


@dataclass(frozen=True, repr=False)
class Exp(Family):
    """Exponential with a rate: mean 1/rate."""

    rate: float

    def __post_init__(self) -> None:
        self._require_positive("rate")

    def logp(self, x, xp):
        return np.log(self.rate) - self.rate * x

    def sample(self, rng, size=None):
        return rng.exponential(1 / np.asarray(self.rate), size)

    def pymc(self):
        return "Exponential", {"lam": self.rate}


@dataclass(frozen=True, repr=False)
class PC(Family):
    """Penalised complexity: exponential on a standard deviation, with P(sd > upper) = alpha.

    Source: Simpson et al. (2017), Statistical Science 32, 1-28, section 3.3.
    """

    upper: float
    alpha: float = 0.05

    def __post_init__(self) -> None:
        self._require_positive("upper", "alpha")
        if not np.all(np.asarray(self.alpha) < 1):
            raise SamplingError(f"PC: alpha = {self.alpha} is the probability P(sd > upper), below 1.")

    def _exp(self) -> Exp:
        return Exp(-np.log(self.alpha) / self.upper)

    def logp(self, x, xp):
        return self._exp().logp(x, xp)

    def sample(self, rng, size=None):
        return self._exp().sample(rng, size)

    def pymc(self):
        return self._exp().pymc()


@dataclass(frozen=True, repr=False)
class LogNormal(Family):
    """log x ~ Normal(mu, sigma); the default for ranges."""

    mu: float
    sigma: float

    def __post_init__(self) -> None:
        self._require_positive("sigma")

    def logp(self, x, xp):
        u = xp.log(x)
        return Normal(self.mu, self.sigma).logp(u, xp) - u

    def sample(self, rng, size=None):
        return rng.lognormal(self.mu, self.sigma, size)

    def pymc(self):
        return "LogNormal", {"mu": self.mu, "sigma": self.sigma}
