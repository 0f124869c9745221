"""The distribution of y given β, w and θ, evaluated over draws in plain arrays: densities and replications.

PyMC would compile a function for each of these; over draws, NumPy is done before that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from .. import manyvalues
from ..draws import effect_draws, fixed_draws, parameter_draws
from ..manyvalues import Many
from . import rows

if TYPE_CHECKING:
    from ..model import LMM

_CACHE = 100_000  # numbers of a chunk that stay close to the processor


def means(model: LMM, draws: xr.Dataset) -> np.ndarray:
    """E[y | β, w] = Xβ + Zw + offset of each draw (S, n)."""
    design = model.design
    out = np.broadcast_to(design.offset, (_count(draws), len(design.y))).copy()
    if design.coefs:
        out += _flat(fixed_draws(model, draws)) @ design.X.T
    for term in design.terms:
        w = _flat(effect_draws(model, draws, term.group))
        for j, z in enumerate(term.Z.T):
            own, one = np.ascontiguousarray(w[..., j]), bool((z == 1).all())
            step = max(1, _CACHE // len(z))
            for k in range(0, len(out), step):
                here = own[k : k + step, term.codes]
                out[k : k + step] += here if one else here * z
    return out


def linear_draws(model: LMM, draws: xr.Dataset) -> np.ndarray:
    """Linear coordinates θ of each draw (S, K)."""
    found = parameter_draws(model, draws)
    natural = np.stack([found[name].ravel() for name in model.covariance.names], axis=-1)
    parts = zip(model.covariance.structures, model.covariance.slices, strict=True)
    linear = [s.linear_from_natural(Many(natural[:, k].T), manyvalues).a for s, k in parts]
    return np.concatenate(linear).T


def log_likelihood(model: LMM, draws: xr.Dataset, mean: np.ndarray | None = None) -> np.ndarray:
    """log p(y | β, w, θ) of each draw: by row where rows are independent (S, n), else by subject (S, N).

    mean (S, n): `means` of the same draws, where they are known.
    """
    mean = means(model, draws) if mean is None else mean
    return rows.log_likelihood(model, linear_draws(model, draws), model.design.y - mean)


def replicate(
    model: LMM, draws: xr.Dataset, rng: np.random.Generator, mean: np.ndarray | None = None
) -> np.ndarray:
    """One new y for the same rows and the same w from each draw (S, n); mean as in `log_likelihood`."""
    mean = means(model, draws) if mean is None else mean
    return rows.replicate(model, linear_draws(model, draws), mean, rng)


def _flat(a: np.ndarray) -> np.ndarray:
    """(chain, draw, ...) -> (S, ...)."""
    return a.reshape(-1, *a.shape[2:])


def _count(draws: xr.Dataset) -> int:
    return draws.sizes["chain"] * draws.sizes["draw"]
