"""How much of the variance the model explains: R² and intraclass correlations, of a fit or of every draw.

    σ²_f = variance over the rows of Xβ        σ²_g = mean over the rows of z'Gz       σ²_e = mean over the rows of R_ii

    R² marginal = σ²_f / σ²    R² conditional = (σ²_f + Σ σ²_g) / σ²    icc_g = σ²_g / (Σ σ²_g + σ²_e)

with σ² = σ²_f + Σ σ²_g + σ²_e. For a random intercept alone, icc is the correlation of two rows of one subject.

Source: Nakagawa and Schielzeth (2013), Methods in Ecology and Evolution 4, 133-142; Johnson (2014), the same 5, 944-946.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from .draws import fixed_draws, linear_draws, posterior_group
from .kernel.many import matrices_of_G, residual_matrices
from .manyvalues import Many

if TYPE_CHECKING:
    from .model import LMM
    from .results import Fit


def explained_variance(model: LMM, posterior: xr.DataTree) -> xr.Dataset:
    """R² and intraclass correlations of every draw: r2_marginal, r2_conditional and icc_<group>, (chain, draw) each.

    posterior: what `model.sample()` returned. The variance of a serial process counts as error, an offset as
    neither; `az.summary` takes the result as it is.

    Raises
    ------
    InferenceError
        The posterior is of another model.
    """
    draws = posterior_group(posterior)
    β = fixed_draws(model, draws)
    shares = variance_shares(model, β.reshape(β.shape[0] * β.shape[1], β.shape[2]), linear_draws(model, draws))
    variables = {name: (("chain", "draw"), a.reshape(β.shape[:2])) for name, a in shares.items()}
    return xr.Dataset(variables, coords={d: draws.coords[d] for d in ("chain", "draw") if d in draws.coords})


def explained_of_fit(fit: Fit) -> pd.Series:
    """The same at the estimates of a fit."""
    shares = variance_shares(fit.model, fit.beta.to_numpy()[None], fit.estimate.θ[None])
    return pd.Series({name: float(a[0]) for name, a in shares.items()}, name="explained variance")


def variance_shares(model: LMM, β: np.ndarray, θ: np.ndarray) -> dict[str, np.ndarray]:
    """R² and intraclass correlations (S,) at coefficients β (S, p) and linear coordinates θ (S, K)."""
    design, x = model.design, Many(np.ascontiguousarray(θ.T))
    X = design.X - design.X.mean(axis=0)
    fixed = np.einsum("sp,pq,sq->s", β, X.T @ X / (len(X) - 1), β)
    G = matrices_of_G(model.covariance, x, len(θ))
    groups = {t.group: np.einsum("ij,ijs->s", t.Z.T @ t.Z / len(X), g) for t, g in zip(design.terms, G, strict=True)}
    between = sum(groups.values(), np.zeros(len(θ)))
    within = _mean_error_variance(model, x, len(θ))
    total = fixed + between + within
    return {
        "r2_marginal": fixed / total,
        "r2_conditional": (fixed + between) / total,
        **{f"icc_{name}": own / (between + within) for name, own in groups.items()},
    }


def _mean_error_variance(model: LMM, x: Many, draws: int) -> np.ndarray:
    """Mean over the rows of R_ii (S,): one evaluation for every kind of row."""
    n = len(model.design.y)
    constants = [a for r in model.residual.rows for a in (r.position, r.level, r.log_covariate, r.weight) if a is not None]
    kinds = np.column_stack([np.zeros(n), *(np.asarray(a, float) for a in constants)])
    _, first, count = np.unique(kinds, axis=0, return_index=True, return_counts=True)
    rows = tuple(r.take(first[:, None]) for r in model.residual.rows)
    parts = residual_matrices(model.covariance, x, rows, slice(None), draws)
    return sum(count @ R[:, 0, 0, :] for R in parts) / n
