"""The groups that turn draws into a complete result: densities, predictions, data, facts."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from .conditional import log_likelihood, means, replicate
from .defaults import Priors
from .log_prior import log_prior
from .naming import response_name
from .prior_draws import prior_draws
from .rows import unit_of_rows
from .slots import effect_dim

if TYPE_CHECKING:
    from ..model import LMM

LARGEST = 20_000_000  # numbers in one group: larger ones are left out, and the attributes say so


def complete(
    model: LMM, priors: Priors, sampled: dict[str, xr.Dataset], facts: dict[str, Any], draws: int
) -> xr.DataTree:
    """A tree of all groups from those that a sampler has made: posterior and sample_stats.

    facts: sampler, seconds, seed; draws: of the prior. Improper priors have no prior draws. What needs w is left
    out where the posterior does not hold it.
    """
    posterior = sampled["posterior"]
    rng = np.random.default_rng(facts["seed"])
    left_out = []
    groups: dict[str, xr.Dataset] = {"log_prior": log_prior(model, priors, posterior)}
    size = posterior.sizes["chain"] * posterior.sizes["draw"] * len(model.design.y)
    whole = all(f"w_{t.group}" in posterior for t in model.design.terms)
    if whole and size <= LARGEST:
        mean = means(model, posterior)
        groups["log_likelihood"] = _log_likelihood(model, posterior, mean)
        groups["posterior_predictive"] = _predictive(model, posterior, rng, mean)
    else:
        left_out += ["log_likelihood", "posterior_predictive"]
    if priors.proper and draws and draws * len(model.design.y) <= LARGEST:
        groups["prior"] = prior_draws(model, priors, posterior, draws, rng)
    else:
        left_out += ["prior"]
    if whole and "prior" in groups:
        groups["prior_predictive"] = _predictive(model, groups["prior"], rng)
    else:
        left_out += ["prior_predictive"]
    groups |= {"observed_data": _observed(model), "constant_data": _constants(model)}
    attributes = _attributes(model, priors, facts, left_out)
    return _assemble(sampled | groups, attributes)


def _assemble(found: dict[str, xr.Dataset], attributes: dict[str, Any]) -> xr.DataTree:
    found["posterior"] = found["posterior"].assign_attrs(attributes)
    order = ["posterior", "sample_stats", "log_likelihood", "log_prior", "posterior_predictive", "prior",
             "prior_predictive", "observed_data", "constant_data"]  # fmt: skip
    names = [n for n in order if n in found] + [n for n in found if n not in order]
    out = xr.DataTree.from_dict({f"/{name}": found[name] for name in names})
    out.attrs.update(attributes)
    return out


def _attributes(model: LMM, priors: Priors, facts: dict[str, Any], left_out: list[str]) -> dict[str, Any]:
    """Plain text and numbers, which every file format can hold."""
    own = {
        "inference_library": "bayeslmm",
        "inference_library_version": _version(),
        "sampler": facts["sampler"],
        "sampling_time": float(facts["seconds"]),
        "random_seed": int(facts["seed"]),
        "formula": model.formula.text,
        "residual": str(model.residual.spec),
        "priors": str(priors),
    }
    return own | ({"left_out": ", ".join(left_out)} if left_out else {})


def _version() -> str:
    try:
        return version("bayeslmm")
    except PackageNotFoundError:
        return "unknown"


# --- densities and predictions
# --------------------------------------------------------------------------------


def _sample_coords(draws: xr.Dataset) -> dict[str, Any]:
    return {d: draws.coords[d] for d in ("chain", "draw")}


def _log_likelihood(model: LMM, draws: xr.Dataset, mean: np.ndarray) -> xr.Dataset:
    dim, labels = unit(model)
    return _array(model, draws, log_likelihood(model, draws, mean), dim, labels)


def unit(model: LMM) -> tuple[str, np.ndarray]:
    """What a pointwise log-likelihood is about: rows (obs), or the subjects of a correlated residual."""
    name, n = model.residual.subject_name, len(model.design.y)
    if name is None:
        return "obs", np.arange(n)
    for term in model.design.terms:
        if term.group == name:
            return name, term.levels.astype(object)
    first = pd.Series(np.arange(n)).groupby(unit_of_rows(model)).first().to_numpy()
    labels = model.design.frame[name].iloc[first]
    return name, np.array([str(x) for x in labels], dtype=object)


def _predictive(
    model: LMM, draws: xr.Dataset, rng: np.random.Generator, mean: np.ndarray | None = None
) -> xr.Dataset:
    return _array(model, draws, replicate(model, draws, rng, mean), "obs", np.arange(len(model.design.y)))


def _array(model: LMM, draws: xr.Dataset, values: np.ndarray, dim: str, labels: Any) -> xr.Dataset:
    """One array named as the response, (S, k) -> (chain, draw, dim)."""
    shape = (draws.sizes["chain"], draws.sizes["draw"], -1)
    variable = (("chain", "draw", dim), values.reshape(shape))
    return xr.Dataset({response_name(model): variable}, coords={**_sample_coords(draws), dim: labels})


# --- data
# -----------------------------------------------------------------------------------------------------


def _observed(model: LMM) -> xr.Dataset:
    y = model.design.y
    return xr.Dataset({response_name(model): ("obs", y)}, coords={"obs": np.arange(len(y))})


def _constants(model: LMM) -> xr.Dataset:
    """X, Z and the level of each row in each grouping factor, offset and weights."""
    design = model.design
    n = len(design.y)
    variables: dict[str, Any] = {
        "X": (("obs", "coef"), design.X),
        "offset": ("obs", design.offset),
        "weights": ("obs", design.weights),
    }
    coords: dict[str, Any] = {"obs": np.arange(n), "coef": np.array(design.coefs, dtype=object)}
    for i, term in enumerate(design.terms):
        dim = effect_dim(model, i)
        variables[f"Z_{term.group}"] = (("obs", dim), term.Z)
        variables[f"level_{term.group}"] = ("obs", term.levels[term.codes].astype(object))
        coords[dim] = np.array(term.effects, dtype=object)
    return xr.Dataset(variables, coords=coords)
