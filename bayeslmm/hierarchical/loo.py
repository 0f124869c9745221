"""Leave-one-out cross-validation at three levels, and what they answer.

    observation              one more row of a known subject; from the terms log p(y_i | β, w, θ)
    observation-integrated   the same quantity, with w and β integrated out: fewer rows are influential
    subject                  a new subject: all its rows at once, w and β integrated out

The sum of conditional terms over the rows of a subject is none of these: w has seen the rows that it
predicts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from scipy.special import logsumexp

from ..draws import linear_draws, parameter_draws, posterior_group
from ..errors import InferenceError, SamplingError
from .collapsed.deletion import Deletion
from .collapsed.mode import modes
from .collapsed.search import search
from .collapsed.target import Evaluated, Target
from .collapsed.weights import smooth_tail
from .conditional import means
from .defaults import Priors
from .groups import unit as unit_labels
from .overrides import resolve_priors
from .rows import leave_one_out, unit_of_rows

if TYPE_CHECKING:
    from ..model import LMM
    from .collapsed.coordinates import Coordinates
    from .left_out import LeftOut

UNITS = ("observation", "observation-integrated", "subject")
GOOD_K = 0.7
_DRAWS = 4000  # of each exact refit


def loo(
    model: LMM,
    posterior: xr.DataTree,
    unit: str = "observation",
    *,
    subject: str | None = None,
    priors: Any = None,
    refit: bool = True,
    random_seed: int = 0,
) -> LeftOut:
    """Expected log predictive density of what was left out, as ArviZ's ELPDData.

    unit: "observation", "observation-integrated" or "subject"; subject: the grouping factor whose levels
    are left out, by default the subject of the residual, else the first in the formula. priors: those of
    the posterior, needed where they are not the default.

    refit: whether units with Pareto k̂ above 0.7 are left out by a posterior without them: their pareto_k is
    then nan, their elpd_i exact, and `exact` names them. For "observation" there is no refit; where it flags
    rows, "observation-integrated" estimates the same with few. p counts what the terms are not already free
    of: β, w and θ for "observation", θ alone for the other two.

    Raises InferenceError for an unknown unit, and for priors that are not those of the posterior; SamplingError
    where a unit has to be left out by a posterior without it that cannot be drawn.
    """
    if unit not in UNITS:
        raise InferenceError(f"unit={unit!r}: leave out one of {', '.join(map(repr, UNITS))}.")
    draws = posterior_group(posterior)
    n = len(model.design.y)
    if unit == "observation":
        terms = leave_one_out(model, linear_draws(model, draws), model.design.y - means(model, draws))
        return _elpd(model, unit, terms, _weights(terms), {}, ("obs", np.arange(n)))
    chosen = _same_priors(model, posterior, priors)
    rows = np.arange(n)
    codes, dim, labels = _subjects(model, subject) if unit == "subject" else (rows, "obs", rows)
    deletion = Deletion.of(model, chosen, codes)
    terms = deletion.log_density(_evaluated(model, deletion.target, draws))
    found = _weights(terms)
    exact: dict[int, float] = {}
    if refit:
        flagged = [int(k) for k in np.flatnonzero(found.khat > GOOD_K)]
        exact = refitted(model, deletion, flagged, random_seed, names=labels) if flagged else {}
    return _elpd(model, unit, terms, found, exact, (dim, labels))


def refitted(
    model: LMM, deletion: Deletion, units: list[int], seed: int = 0, names: np.ndarray | None = None
) -> dict[int, float]:
    """log p(y_k | y_-k) = log p(y) - log p(y_-k) of some units, each from a posterior without it.

    Raises SamplingError, with the name of the unit, where a posterior without one cannot be drawn.
    """
    target, summits = modes(deletion.target, model)
    whole = search(target, summits, _DRAWS, np.random.default_rng(seed)).log_evidence
    found = {}
    for k in units:
        left: Any = Without(target, deletion, k)
        try:
            found[k] = whole - search(left, summits, _DRAWS, np.random.default_rng([seed, k])).log_evidence
        except SamplingError as error:
            raise SamplingError(
                f"The posterior without {k if names is None else names[k]} cannot be drawn, and its Pareto k̂ is above "
                f"{GOOD_K}. Use tighter priors or a simpler covariance, or refit=False for the estimate with this k̂."
            ) from error
    return found


@dataclass(frozen=True)
class Without:
    """The posterior of θ without unit k: that of all data divided by p(y_k | y_-k, θ)."""

    target: Target
    deletion: Deletion
    unit: int

    @property
    def coordinates(self) -> Coordinates:
        """Those of the whole posterior."""
        return self.target.coordinates

    def one(self, u: np.ndarray, *, jacobian: bool = True):
        """Log density and derivatives of the whole posterior: its ridges are where to look for those without a unit."""
        return self.target.one(u, jacobian=jacobian)

    def many(self, u: np.ndarray) -> Evaluated:
        """The log posterior at draws u (D, K)."""
        found = self.target.many(u)
        inside = np.flatnonzero(np.isfinite(found.value))
        left = np.full(len(u), -np.inf)
        only = self.deletion.only(self.unit)
        own = only.log_density(found.take(inside))[:, self.unit]
        left[inside] = np.where(np.isfinite(own), found.likelihood[inside] - own, -np.inf)
        return replace(found, likelihood=left)


# --- from terms to an estimate ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Smoothed:
    """elpd (units,) by importance sampling from the whole posterior, and k̂ (units,)."""

    elpd: np.ndarray
    khat: np.ndarray


def _weights(terms: np.ndarray) -> Smoothed:
    """PSIS: weights 1 / p(y_s | ..., θ), smoothed; draws at which V is numerically singular have none."""
    elpd, khat = np.empty(terms.shape[1]), np.empty(terms.shape[1])
    for k, column in enumerate(terms.T):
        own = column[np.isfinite(column)]
        weight, khat[k] = smooth_tail(-own)
        elpd[k] = logsumexp(weight + own) - logsumexp(weight)
    return Smoothed(elpd, khat)


def _elpd(model: LMM, unit: str, terms, found: Smoothed, exact: dict[int, float], units: tuple) -> LeftOut:
    """terms (draws, units); exact: elpd of some units by refits; units: (dimension, labels)."""
    from .left_out import LeftOut, checksum

    elpd, khat = found.elpd.copy(), found.khat.copy()
    for k, value in exact.items():
        elpd[k], khat[k] = value, np.nan
    dim, labels = units
    n = len(elpd)
    good = min(1 - 1 / np.log10(len(terms)), GOOD_K)
    full = logsumexp(terms, axis=0) - np.log(len(terms))
    return LeftOut(
        elpd=float(elpd.sum()),
        se=float(np.sqrt(n * elpd.var())),
        p=float((full - elpd).sum()),
        n_samples=len(terms),
        n_data_points=n,
        scale="log",
        warning=bool((khat > good).any()),
        good_k=good,
        elpd_i=xr.DataArray(elpd, dims=dim, coords={dim: labels}, name="elpd_i"),
        pareto_k=xr.DataArray(khat, dims=dim, coords={dim: labels}, name="pareto_k"),
        unit=unit,
        model=str(model),
        checksum=checksum(model),
        exact=tuple(np.asarray(labels)[list(exact)].tolist()),
    )


# --- what the draws and the units are ---------------------------------------------------------------------


def _evaluated(model: LMM, target: Target, draws: xr.Dataset) -> Evaluated:
    """The draws of θ, with what the closed forms need."""
    found = parameter_draws(model, draws)
    natural = np.stack([found[name].ravel() for name in model.covariance.names], axis=-1)
    θ = linear_draws(model, draws)
    return target.at(natural, θ)


def _same_priors(model: LMM, posterior: xr.DataTree, priors: Any) -> Priors:
    chosen = resolve_priors(model, priors)
    said = posterior.attrs.get("priors")
    if said is not None and said != str(chosen):
        raise InferenceError(
            "The posterior was drawn under other priors than these, and β is integrated out under its prior: "
            "pass the priors of sample() as priors=."
        )
    return chosen


def _subjects(model: LMM, subject: str | None) -> tuple[np.ndarray, str, np.ndarray]:
    """(codes (n,), dimension, labels) of the subjects to leave out."""
    terms = {t.group: t for t in model.design.terms}
    name = model.residual.subject_name
    if subject is None:
        subject = name if name is not None else next(iter(terms), None)
    if subject is None:
        raise InferenceError(
            "The model has no subjects to leave out, neither random effects nor a residual within subjects: leave out "
            "an 'observation'."
        )
    if subject == name and name not in terms:
        dim, labels = unit_labels(model)
        return unit_of_rows(model), dim, np.asarray(labels)
    if subject not in terms:
        known = ", ".join(dict.fromkeys([*terms, *([name] if name is not None else [])])) or "none"
        raise InferenceError(f"subject={subject!r} is no grouping factor of this model; there are {known}.")
    term = terms[subject]
    return term.codes, subject, np.asarray(term.levels, dtype=object)
