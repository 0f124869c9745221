"""Draws of a posterior under the names of a fit: which array holds what, checked against the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from . import manyvalues
from .errors import InferenceError
from .manyvalues import Many
from .parameters import Parameter

if TYPE_CHECKING:
    from .model import LMM

_SAMPLE = ("chain", "draw")


def posterior_group(tree: xr.DataTree) -> xr.Dataset:
    """The posterior group of a result, with dimensions chain and draw.

    Raises InferenceError for anything that is not a DataTree (or Dataset) of draws.
    """
    if isinstance(tree, xr.DataTree) and "posterior" in tree.children:
        found = tree["posterior"].to_dataset()
    elif isinstance(tree, xr.DataTree | xr.Dataset):
        found = tree.to_dataset() if isinstance(tree, xr.DataTree) else tree
    else:
        raise InferenceError(
            f"A posterior is what model.sample() returns, an xarray.DataTree with a group 'posterior', not "
            f"{type(tree).__name__}."
        )
    missing = [d for d in _SAMPLE if d not in found.dims]
    if missing:
        raise InferenceError(
            f"This result has no draws: the dimension {' and '.join(missing)} is missing from its group "
            "'posterior'."
        )
    return found


def fixed_draws(model: LMM, posterior: xr.Dataset) -> np.ndarray:
    """Draws of β (chain, draw, p) in the order of the model's coefficients; p = 0 without fixed effects."""
    if not model.design.coefs and "beta" not in posterior:
        return np.zeros((*(posterior.sizes[d] for d in _SAMPLE), 0))
    beta = _variable(posterior, "beta", "the fixed effects")
    return _ordered(beta, {0: list(model.design.coefs)}, "coefficients")


def effect_draws(model: LMM, posterior: xr.Dataset, group: str) -> np.ndarray:
    """Draws of the random effects of a grouping factor (chain, draw, N, q), in the order of the design."""
    term = next(t for t in model.design.terms if t.group == group)
    if f"w_{group}" not in posterior and all(p.name in posterior for p in model.covariance.parameters):
        raise InferenceError(
            f"The posterior does not hold the random effects of {group}, as after sample(effects=False) and for very "
            "large models: sample with effects=True, or draw them by bl.random_effect_draws(model, posterior)."
        )
    w = _variable(posterior, f"w_{group}", f"the random effects of {group}")
    return _ordered(w, {0: term.levels.tolist(), 1: list(term.effects)}, f"levels and effects of {group}")


def parameter_draws(model: LMM, posterior: xr.Dataset) -> dict[str, np.ndarray]:
    """Draws (chain, draw) of each variance parameter, under the names of `fit.parameters`."""
    out: dict[str, np.ndarray] = {}
    for parameter in model.covariance.parameters:
        draws = _variable(posterior, parameter.name, "a variance parameter of this model")
        for name, label in zip(parameter.full_names(), parameter.labels or (None,), strict=True):
            out[name] = _entry(draws, parameter, label)
    return out


def linear_draws(model: LMM, draws: xr.Dataset) -> np.ndarray:
    """Linear coordinates θ of each draw (S, K)."""
    found = parameter_draws(model, draws)
    natural = np.stack([found[name].ravel() for name in model.covariance.names], axis=-1)
    parts = zip(model.covariance.structures, model.covariance.slices, strict=True)
    linear = [s.linear_from_natural(Many(natural[:, k].T), manyvalues).a for s, k in parts]
    return np.concatenate(linear).T


def population_draws(model: LMM, posterior: xr.Dataset) -> xr.Dataset:
    """β and the variance parameters, one scalar variable each, for ArviZ's diagnostics and plots."""
    beta = fixed_draws(model, posterior)
    named = {f"beta[{c}]": beta[..., i] for i, c in enumerate(model.design.coefs)}
    named |= parameter_draws(model, posterior)
    coords = {d: np.arange(s) for d, s in zip(_SAMPLE, beta.shape, strict=False)}
    return xr.Dataset({k: (_SAMPLE, v) for k, v in named.items()}, coords=coords)


# --- one array ----------------------------------------------------------------------------------------------


def _variable(posterior: xr.Dataset, name: str, meaning: str) -> xr.DataArray:
    if name not in posterior:
        raise InferenceError(
            f"The posterior has no {name!r} ({meaning}), only {_some(list(map(str, posterior.data_vars)))}: "
            "it is of another model. Compare a fit with draws of the same LMM."
        )
    return posterior[name].transpose(*_SAMPLE, ...)


def _ordered(draws: xr.DataArray, wanted: dict[int, list[str]], what: str) -> np.ndarray:
    """The draws with the axes after chain and draw in the order of the wanted labels."""
    for axis, labels in wanted.items():
        if draws.ndim != 2 + len(wanted):
            raise InferenceError(
                f"The draws of {draws.name!r} have dimensions {draws.dims}; not those of the model."
            )
        dim = draws.dims[2 + axis]
        found = [str(x) for x in draws.coords[dim].values] if dim in draws.coords else list(labels)
        if found == labels:
            continue
        place = {x: i for i, x in enumerate(found)}
        if sorted(found) != sorted(labels):
            only_fit, only_posterior = sorted(set(labels) - set(found)), sorted(set(found) - set(labels))
            raise InferenceError(
                f"The {what} of the posterior are not those of the fit: {_some(only_fit)} only in the fit, "
                f"{_some(only_posterior)} only in the posterior. Both must come from the same LMM."
            )
        draws = draws.isel({dim: [place[x] for x in labels]})
    return draws.values


def _some(labels: list[str]) -> str:
    return (", ".join(labels[:8]) + (", ..." if len(labels) > 8 else "")) or "none"


def _entry(draws: xr.DataArray, parameter: Parameter, label: str | None) -> np.ndarray:
    """Draws (chain, draw) of one entry of a parameter: a scalar, an element of a vector or of a matrix."""
    dims = draws.dims[2:]
    labels = [[str(x) for x in draws.coords[d].values] if d in draws.coords else [] for d in dims]
    values = draws.values
    if not dims:
        return values
    if label is None:
        if np.ptp(values, axis=-1).max() == 0:
            return values[..., 0]
    elif len(dims) == 1 and label in labels[0]:
        return values[..., labels[0].index(label)]
    elif len(dims) == 2:
        pairs = {f"{a}, {b}": (i, j) for i, a in enumerate(labels[0]) for j, b in enumerate(labels[1])}
        if label in pairs:
            i, j = pairs[label]
            return values[..., i, j]
    raise InferenceError(
        f"The draws of {parameter.name!r} have labels {labels}, among which there is no "
        f"{label!r}: the posterior is of another model than the fit."
    )
