"""Prior densities of posterior draws, for the sensitivity of conclusions to the priors.

Only β and the hyperparameters are counted: the distribution of w is part of the model, and scaling it with
the priors would raise false alarms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from ..draws import fixed_draws
from .centring import centring
from .defaults import Priors
from .slots import Place, places

if TYPE_CHECKING:
    from ..model import LMM

_SAMPLE = ("chain", "draw")


def log_prior(model: LMM, priors: Priors, draws: xr.Dataset) -> xr.Dataset:
    """log p of β and of each hyperparameter, one variable (chain, draw) for each."""
    found: dict[str, np.ndarray] = {}
    coefs = model.design.coefs
    if coefs:
        γ = fixed_draws(model, draws) @ centring(model.design).A.T
        found["beta"] = sum(priors[f"beta[{c}]"].logp(γ[..., j], np) for j, c in enumerate(coefs))
    for place in places(model):
        found[place.slot.name] = found.get(place.slot.name, 0.0) + _density(place, priors, draws)
    coords = {d: draws.coords[d] for d in _SAMPLE}
    return xr.Dataset({name: (_SAMPLE, x) for name, x in found.items()}, coords=coords)


def _density(place: Place, priors: Priors, draws: xr.Dataset) -> np.ndarray:
    """The log prior density of a slot, summed over its entries (chain, draw)."""
    slot = place.slot
    x = draws[slot.name].transpose(*_SAMPLE, ...)
    if slot.labels is None:
        return priors[slot.name].logp(x.values, np)
    if slot.role == "matrix":
        pairs = x.values[(..., *np.tril_indices(len(slot.labels), -1))]
        return priors[slot.name].logp(np.moveaxis(pairs, -1, 0), np)
    labels = [str(v) for v in x.coords[x.dims[2]].values]
    columns = [labels.index(label) for label in slot.labels]
    return sum(priors[e].logp(x.values[..., j], np) for e, j in zip(slot.entries, columns, strict=True))
