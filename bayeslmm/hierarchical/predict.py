"""Posterior prediction: draws of Xβ, U, W and ω of any rows, each on its own.

A draw of (β, θ) from the posterior leaves a normal distribution of U = z'w and W given the data. A joint
draw of it, for all rows at once, needs no covariance matrix of the targets (Matheron's rule): draw w*, W*,
ω* from their prior at observed rows and targets alike, and add what the data say about the difference,

    Ω = Ω* + Σ(t, t_i)V_i⁻¹(y_i - X_iβ - y_i*),     y_i* = Z_iw* + W_i* + ω_i*

A new subject without measurements keeps its own w* ~ N(0, G).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from ..covariance.structure import semidefinite_cholesky
from ..draws import fixed_draws, parameter_draws, posterior_group
from ..errors import DataError, SamplingError
from ..kernel.conditional_means import Predictor
from ..kernel.padded import groups, take_rows
from ..kernel.stacked import Stacked, stack_fit, stack_new
from ..newdata import apply_design
from ..table import as_frame
from .naming import response_name

if TYPE_CHECKING:
    from ..covariance.assembly import Covariance
    from ..model import LMM

_JITTER = 1e-12  # of the variance: rows at one place make the covariance of W singular


def posterior_predict(
    model: LMM,
    posterior: Any,
    newdata: Any = None,
    *,
    condition_on: Any = None,
    draws: int | None = None,
    random_seed: Any = None,
) -> xr.DataTree:
    """Draws of the profile and of new measurements at the rows of newdata (the model's own rows for None).

    posterior: what `model.sample()` returned; condition_on: further measurements, of new subjects or known
    ones (the posterior of β and θ stays as it is); draws: so many in all, evenly taken; by default all.

    Returns a DataTree whose group "predictions" has, by (chain, draw, obs): fixed = offset + Xβ; random =
    U; serial = W; error = ω; mean = fixed + random + serial, the subject's profile; and the response, mean
    + error: a new measurement. Subjects are compared as text; each new one draws its own w from N(0, G).

    Raises
    ------
    DataError
        The rows do not fit the model, as in `fit.predict`.
    SamplingError, InferenceError
        draws is not a number of draws there are; the posterior is of another model.
    """
    found = posterior_group(posterior)
    beta = fixed_draws(model, found)
    named = parameter_draws(model, found)
    natural = np.stack([named[name] for name in model.covariance.names], axis=-1)
    kept = _thin(beta.shape[1], beta.shape[0], draws)
    beta, natural = beta[:, kept], natural[:, kept]
    rows, labels = _rows(model, newdata, condition_on)
    rng = np.random.default_rng(random_seed)
    predictor = Predictor.of(rows)
    x = rows.X[rows.observed :]
    shape = (*beta.shape[:2], len(x))
    parts = {name: np.empty(shape) for name in ("random", "serial", "error")}
    for at in np.ndindex(*beta.shape[:2]):
        θ = model.covariance.linear_from_natural(natural[at])
        for name, values in zip(parts, _one(predictor, model.covariance, θ, beta[at], rng), strict=True):
            parts[name][at] = values
    parts = {"fixed": rows.offset[rows.observed :] + beta @ x.T, **parts}
    parts["mean"] = parts["fixed"] + parts["random"] + parts["serial"]
    parts[response_name(model)] = parts["mean"] + parts["error"]
    coords = {"chain": found["chain"].values, "draw": found["draw"].values[kept], "obs": labels}
    made = xr.Dataset({k: (("chain", "draw", "obs"), v) for k, v in parts.items()}, coords=coords)
    return xr.DataTree.from_dict({"predictions": made})


def _thin(length: int, chains: int, draws: int | None) -> np.ndarray:
    """Which draws of each chain to use."""
    if draws is None:
        return np.arange(length)
    if not 1 <= draws <= length * chains:
        raise SamplingError(f"draws={draws!r}: the posterior has {length * chains} draws; take from 1 to all of them.")
    return np.unique(np.linspace(0, length - 1, -(-draws // chains)).round().astype(int))


def _rows(model: LMM, newdata: Any, condition_on: Any) -> tuple[Stacked, np.ndarray]:
    if newdata is None:
        if condition_on is not None:
            raise DataError("condition_on= gives measurements to predict from: say at which rows, with newdata=.")
        return stack_fit(model), np.asarray(model.design.rows)
    frame = as_frame(newdata)
    given = None if condition_on is None else apply_design(model.design, condition_on, need_response=True)
    index = frame.index if not isinstance(frame.index, pd.MultiIndex) else pd.RangeIndex(len(frame))
    return stack_new(model, given, apply_design(model.design, frame)), index.to_numpy()


def _one(predictor: Predictor, covariance: Covariance, θ: np.ndarray, beta: np.ndarray, rng: np.random.Generator):
    """One joint draw of U, W and ω of the targets."""
    rows = predictor.rows
    n = rows.observed
    U = np.zeros(len(rows.X))
    for Z, codes, levels, G in zip(rows.Z, rows.codes, rows.levels, covariance.G(θ), strict=True):
        w = rng.normal(size=(levels, len(G))) @ semidefinite_cholesky(G).T
        U += np.einsum("nq,nq->n", Z, w[codes])
    W, ω = np.zeros(len(rows.X)), np.zeros(len(rows.X))
    for part, k, constants in zip(covariance.residual, covariance.residual_slices(), rows.rows, strict=True):
        if part.diagonal:
            each = take_rows(constants, np.arange(len(rows.X))[:, None], None)
            ω += np.sqrt(part.matrix(θ[k], each).reshape(-1)) * rng.normal(size=len(rows.X))
        else:
            for index, root in _roots(rows, part, θ[k], constants):
                values = (root @ rng.normal(size=(*index.shape, 1)))[..., 0]
                W[index[index >= 0]] += values[index >= 0]
    u, w = predictor.means(covariance, θ, beta, rows.y - (U + W + ω)[:n])
    return U[n:] + u, W[n:] + w, ω[n:]


def _roots(rows: Stacked, part, θ: np.ndarray, constants) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows (B, m) of the subjects and a factor of their serial covariance."""
    assert rows.subject is not None
    for group in groups(replace(rows, block=rows.subject), every=True):
        index = np.concatenate([group.observed, group.targets], axis=1)
        filled = np.where(index >= 0, index, index.max(axis=1, keepdims=True))
        real = (index >= 0).astype(float)
        Σ = part.matrix(θ, take_rows(constants, filled, None)) * real[:, :, None] * real[:, None, :]
        size = np.einsum("bmm->bm", Σ).max(axis=1)
        Σ = Σ + (_JITTER * size[:, None] + 1 - real)[..., None] * np.eye(Σ.shape[-1])
        yield index, np.linalg.cholesky(Σ)
