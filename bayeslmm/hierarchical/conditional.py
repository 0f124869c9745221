"""The distribution of y given β, w and θ, evaluated over draws in plain arrays: densities and replications.

PyMC would compile a function for each of these; over draws, NumPy is done before that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from scipy.sparse import csr_array

from ..draws import effect_draws, fixed_draws, linear_draws
from . import rows

if TYPE_CHECKING:
    from ..design import Term
    from ..model import LMM

_NUMBERS = 100_000  # in one array of a chunk: it stays close to the processor


def means(model: LMM, draws: xr.Dataset) -> np.ndarray:
    """E[y | β, w] = Xβ + Zw + offset of each draw (S, n)."""
    design, S = model.design, _count(draws)
    out = np.empty((S, len(design.y)))
    out[:] = design.offset
    beta = _flat(fixed_draws(model, draws)) if design.coefs else np.zeros((S, 0))
    effects = [_flat(effect_draws(model, draws, term.group)).reshape(S, -1) for term in design.terms]
    Z = [_sparse(term) for term in design.terms]
    step = max(1, _NUMBERS // len(design.y))
    for k in range(0, S, step):
        some = slice(k, k + step)
        out[some] += beta[some] @ design.X.T
        for own, w in zip(Z, effects, strict=True):
            out[some] += (own @ w[some].T).T
    return out


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


def _sparse(term: Term) -> csr_array:
    """Z (n, N q), q effects of each of N levels."""
    n, q = term.Z.shape
    columns = term.codes[:, None] * q + np.arange(q)
    return csr_array((term.Z.ravel(), columns.ravel(), np.arange(n + 1) * q), shape=(n, len(term.levels) * q))


def _flat(a: np.ndarray) -> np.ndarray:
    """(chain, draw, ...) -> (S, ...)."""
    return a.reshape(-1, *a.shape[2:])


def _count(draws: xr.Dataset) -> int:
    return draws.sizes["chain"] * draws.sizes["draw"]
