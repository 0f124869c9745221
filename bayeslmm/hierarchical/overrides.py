"""Priors that users give, checked against the parameters that a model has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from ..errors import SamplingError
from ..parameters import Domain, Interval, Positive, Real
from .defaults import Priors, default_priors, reml_priors
from .priors import LKJ, Flat, Prior, Uniform
from .slots import places

if TYPE_CHECKING:
    from ..model import LMM


def resolve_priors(model: LMM, priors: Any = None) -> Priors:
    """The priors of every number of a model: defaults, changed by name.

    priors: None; a dict name -> prior, where a name is a coefficient ("Days"), a parameter ("sd_Subject",
    "beta": all its entries) or one entry ("sd_Subject[Days]"); a whole `Priors`; or "reml" (`reml_priors`).

    Raises SamplingError for an unknown name, or a prior that does not live where the parameter does.
    """
    if priors is None:
        return default_priors(model)
    if isinstance(priors, str):
        if priors != "reml":
            raise SamplingError(f"priors={priors!r}: the only named priors are 'reml'.")
        return reml_priors(model)
    if not isinstance(priors, Mapping):
        raise SamplingError(
            f"priors= takes a dict name -> prior, Priors or 'reml', not {type(priors).__name__}."
        )
    base = default_priors(model)
    if isinstance(priors, Priors) and tuple(priors) != tuple(base):
        extra = sorted(set(priors) ^ set(base))
        raise SamplingError(f"These priors belong to another model: they differ in {', '.join(extra)}.")
    return _changed(model, base, dict(priors))


def _changed(model: LMM, base: Priors, given: dict[str, Any]) -> Priors:
    domains = _domains(model)
    chosen = dict(base.entries)
    names = _names(model, base)
    # A general name first, so that {"beta": ..., "Days": ...} means all, but Days.
    for name in sorted(given, key=lambda n: -len(names.get(n, ()))):
        if name not in names:
            raise SamplingError(_unknown(name, names))
        for entry in names[name]:
            chosen[entry] = _fitting(entry, given[name], domains[entry])
    return replace(base, entries=tuple(chosen.items()))


def _names(model: LMM, base: Priors) -> dict[str, tuple[str, ...]]:
    """What users may write -> the entries that it means."""
    found: dict[str, tuple[str, ...]] = {entry: (entry,) for entry in base}
    for slot in (place.slot for place in places(model)):
        found[slot.name] = tuple(dict.fromkeys((*found.get(slot.name, ()), *slot.entries)))
    for coef in model.design.coefs:
        found.setdefault(coef, (f"beta[{coef}]",))
    found["beta"] = tuple(f"beta[{coef}]" for coef in model.design.coefs)
    return found


def _domains(model: LMM) -> dict[str, Domain | None]:
    """The domain of each entry; None for a correlation matrix."""
    domains: dict[str, Domain | None] = {f"beta[{coef}]": Real() for coef in model.design.coefs}
    for place in places(model):
        inside = None if place.slot.role == "matrix" else place.slot.domain
        domains |= dict.fromkeys(place.slot.entries, inside)
    return domains


def _unknown(name: str, names: Mapping[str, tuple[str, ...]]) -> str:
    close = get_close_matches(str(name), names)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    short = [
        n for n in names if "[" not in n or n not in [e for v in names.values() if len(v) > 1 for e in v]
    ]
    return f"priors: this model has no parameter {name!r}.{hint} Its names are {', '.join(short)}."


def _fitting(entry: str, prior: Any, domain: Domain | None) -> Prior:
    """The prior, once it is known to live where the parameter does."""
    if not isinstance(prior, Prior):
        raise SamplingError(
            f"The prior of {entry} is {prior!r}; it must be one of ours, such as HalfNormal(50)."
        )
    if isinstance(domain, Interval):
        prior = Uniform(domain.lower, domain.upper) if isinstance(prior, Flat) else prior
        if isinstance(prior, Uniform) and prior.lower >= domain.lower and prior.upper <= domain.upper:
            return prior
        where = f"a Uniform inside [{domain.lower:.4g}, {domain.upper:.4g}]"
    elif domain is None:
        prior = LKJ(1.0) if isinstance(prior, Flat) else prior
        if isinstance(prior, LKJ):
            return prior
        where = "LKJ(eta), a prior of correlation matrices"
    elif isinstance(domain, Positive):
        prior = Flat(positive=True) if isinstance(prior, Flat) else prior
        if isinstance(prior, Flat) or prior.support == "positive":
            return prior
        if isinstance(prior, Uniform) and prior.lower >= 0:
            return prior
        where = "positive, such as HalfNormal(50)"
    else:
        if prior.support == "real":
            return prior
        where = "on the whole line, such as Normal(0, 10)"
    raise SamplingError(f"{prior!r} does not fit {entry}: its prior must be {where}.")
