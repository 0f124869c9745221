"""Default priors, scaled from the data, and how users change them by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..parameters import Interval, Positive
from .centring import centring
from .priors import LKJ, Flat, HalfT, LogNormal, Normal, Prior, Uniform
from .slots import Place, places

if TYPE_CHECKING:
    from ..model import LMM

WIDE = 10.0  # prior sd of a coefficient, in sd(y) for one sd of its column
TAIL = 2.3263478740408408  # 98 % of a normal lie within this many sds


@dataclass(frozen=True)
class Priors(Mapping[str, Prior]):
    """The prior of every number of a model, by name; print it to read it.

    entries: (name, prior), such as ("beta[Days]", Normal(0, 196)), ("sd_Subject[Intercept]", HalfT(3, 56)),
    ("corr_Subject", LKJ(2)). The prior of the intercept is that of the mean at the centre of the other
    columns.
    """

    entries: tuple[tuple[str, Prior], ...]
    centred: bool = True

    def __getitem__(self, name: str) -> Prior:
        return dict(self.entries)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(name for name, _ in self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def proper(self) -> bool:
        """Whether every prior integrates to one."""
        return all(p.proper for _, p in self.entries)

    def improper(self) -> tuple[str, ...]:
        """The names of those that do not."""
        return tuple(name for name, p in self.entries if not p.proper)

    def __str__(self) -> str:
        wide = max(len(name) for name in self)
        lines = [f"{name:<{wide}}  {prior!r}" for name, prior in self.entries]
        if self.centred and "beta[Intercept]" in self:
            lines.append("beta[Intercept] is meant at the means of the other columns of X.")
        return "\n".join(lines)


# --- the defaults
# ---------------------------------------------------------------------------------------------


def default_priors(model: LMM) -> Priors:
    """Wide priors in the units of the data.

    With sd(y) the standard deviation of the response:

    - beta_j ~ Normal(0, 10 sd(y) / sd(x_j)); the intercept, meant at the means of the other columns, is
      ~ Normal(mean(y), 10 sd(y)). Without an intercept, prior means are the coefficients that fit mean(y)
      best.
    - each sd of a random effect ~ half-t(3, sd(y) / rms(z_j)), with rms(z_j) = 1 for an intercept.
    - sigma, sigma_serial ~ half-t(3, sd(y)); with known weights times the root of their mean.
    - free correlations ~ LKJ(2); rho ~ Uniform on its domain; Toeplitz: partial autocorrelations ~
    Uniform(-1, 1).
    - range ~ LogNormal with 98 % between a quarter of the typical gap of a subject's rows and twice the
      typical span of a subject: below, the process is measurement error; above, a random intercept.
    - power ~ Normal(0, 1).
    """
    own = [(name, _default(model, place, i)) for place in places(model) for i, name in _numbered(place)]
    return Priors((*_beta_defaults(model), *own))


def _numbered(place: Place):
    return enumerate(place.slot.entries)


def spread(model: LMM) -> float:
    """sd(y), offset removed."""
    return float(np.std(model.design.y - model.design.offset, ddof=1))


def _beta_defaults(model: LMM) -> list[tuple[str, Prior]]:
    centre, design = centring(model.design), model.design
    sd = [WIDE * spread(model) / s for s in centre.scale]
    return [(f"beta[{c}]", Normal(m, s)) for c, m, s in zip(design.coefs, centre.location, sd, strict=True)]


def _default(model: LMM, place: Place, i: int) -> Prior:
    """The prior of the i-th entry of a slot."""
    role = place.slot.role
    if role == "sd":
        return HalfT(3.0, spread(model) * _sd_factor(model, place, i))
    if role == "matrix":
        return LKJ(2.0)
    if isinstance(place.slot.domain, Interval):
        return Uniform(place.slot.domain.lower, place.slot.domain.upper)
    if role == "range":
        return _range_prior(model, place)
    return LogNormal(0.0, 1.0) if isinstance(place.slot.domain, Positive) else Normal(0.0, 1.0)


def _sd_factor(model: LMM, place: Place, i: int) -> float:
    if place.term is None:
        assert place.part is not None
        weight = model.residual.rows[place.part].weight
        return 1.0 if weight is None else float(np.sqrt(np.mean(weight)))
    Z = model.design.terms[place.term].Z[:, list(place.columns)]
    if place.structure.scale.labels is not None:
        Z = Z[:, [i]]
    rms = float(np.sqrt(np.mean(Z**2)))
    return 1 / rms if rms > 0 else 1.0


def _range_prior(model: LMM, place: Place) -> LogNormal:
    assert place.part is not None
    assert model.residual.subject is not None
    time = model.residual.rows[place.part].time
    assert time is not None
    gap, span = typical_times(time, model.residual.subject)
    low, high = np.log(gap / 4), np.log(2 * span)
    return LogNormal(float(low + high) / 2, float(high - low) / (2 * TAIL))


def typical_times(time: np.ndarray, subject: np.ndarray) -> tuple[float, float]:
    """Median gap between successive rows of a subject, and median span of a subject."""
    order = np.lexsort((time, subject))
    gaps = np.diff(time[order])[np.diff(subject[order]) == 0]
    gaps = gaps[gaps > 0]
    first, last = (np.full(subject.max() + 1, s * np.inf) for s in (1, -1))
    np.minimum.at(first, subject, time)
    np.maximum.at(last, subject, time)
    spans = (last - first)[last > first]
    if not gaps.size:
        return 1.0, 1.0
    return float(np.median(gaps)), max(float(np.median(spans)), float(np.median(gaps)))


def reml_priors(model: LMM) -> Priors:
    """Flat priors, under which the posterior of the variance parameters is the restricted likelihood.

    Flat on β, on standard deviations, on ranges and powers, and on correlation matrices (LKJ(1)): the
    posterior density with respect to these natural parameters is proportional to exp(ℓ_REML), so that its
    mode is the REML estimate (Harville 1974). Toeplitz correlations are flat in their partial
    autocorrelations.
    """
    beta = [(f"beta[{c}]", Flat()) for c in model.design.coefs]
    own = [(name, _flat(place)) for place in places(model) for _, name in _numbered(place)]
    return Priors((*beta, *own))


def _flat(place: Place) -> Prior:
    domain = place.slot.domain
    if place.slot.role == "matrix":
        return LKJ(1.0)
    if isinstance(domain, Interval):
        return Uniform(domain.lower, domain.upper)
    return Flat(isinstance(domain, Positive))
