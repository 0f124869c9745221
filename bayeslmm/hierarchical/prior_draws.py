"""Draws from the prior, under the names of the posterior."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ..draws import linear_draws
from ..kernel.many import matrices_of_G
from ..kernel.symmetric import root
from ..manyvalues import Many
from .centring import centring
from .defaults import Priors
from .lkj import LKJ
from .slots import places

if TYPE_CHECKING:
    from ..model import LMM


def prior_draws(
    model: LMM, priors: Priors, layout: xr.Dataset, draws: int, rng: np.random.Generator
) -> xr.Dataset:
    """One chain of independent draws of β, θ and w, with the dimensions and coordinates of `layout`.

    Raises SamplingError for improper priors.
    """
    numbers = _coefficients(model, priors, draws, rng) | _parameters(model, priors, draws, rng)
    found = _labelled(numbers, layout, draws)
    return found.merge(_labelled(_effects(model, linear_draws(model, found), rng), layout, draws))


def _labelled(numbers: dict[str, np.ndarray], layout: xr.Dataset, draws: int) -> xr.Dataset:
    """Arrays (draws, ...) with the dimensions that the variables of the same names have in `layout`."""
    known = {name: x[None] for name, x in numbers.items() if name in layout}
    shared = {name: (("chain", "draw", *layout[name].dims[2:]), x) for name, x in known.items()}
    dims = {d for own, _ in shared.values() for d in own[2:]}
    coords = {d: layout.coords[d] for d in dims if d in layout.coords}
    return xr.Dataset(shared, coords={**coords, "chain": [0], "draw": np.arange(draws)})


def _effects(model: LMM, θ: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """w ~ N(0, G) for each draw of θ."""
    found = {}
    G = matrices_of_G(model.covariance, Many(np.ascontiguousarray(θ.T)), len(θ))
    for term, own in zip(model.design.terms, G, strict=True):
        z = rng.standard_normal((len(θ), len(term.levels), len(term.effects)))
        found[f"w_{term.group}"] = z @ root(own).T
    return found


def _coefficients(model: LMM, priors: Priors, draws: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    if not model.design.coefs:
        return {}
    own = [priors[f"beta[{c}]"].sample(rng, draws) for c in model.design.coefs]
    return {"beta": np.linalg.solve(centring(model.design).A, np.array(own)).T}


def _parameters(model: LMM, priors: Priors, draws: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draws of every slot (draws, entries); matrices (draws, q, q)."""
    found: dict[str, list[np.ndarray]] = {}
    whole: dict[str, np.ndarray] = {}
    for place in places(model):
        slot = place.slot
        if slot.role == "matrix":
            whole[slot.name] = _matrices(priors[slot.name], len(slot.labels or ()), draws, rng)
            continue
        own = [priors[entry].sample(rng, draws) for entry in slot.entries]
        if slot.labels is None:
            whole[slot.name] = own[0]
            continue
        found.setdefault(slot.name, []).extend(own)
        if slot.shown is not None:
            unit = np.stack(own, axis=-1)
            whole[slot.shown] = np.array([place.structure.correlation.from_unit(u, np) for u in unit])
    return whole | {name: np.stack(own, axis=-1) for name, own in found.items()}


def _matrices(prior: Any, q: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    assert isinstance(prior, LKJ)
    C = np.broadcast_to(np.eye(q), (draws, q, q)).copy()
    i, j = np.tril_indices(q, -1)
    C[:, i, j] = C[:, j, i] = prior.sample(rng, draws, q)
    return C
