"""Residuals of four kinds and their correlation over lags.

    marginal       y - Xβ̂                     what the random effects, the serial process and the error leave
    conditional    y - Xβ̂ - Zŵ                lme4's residuals; nlme's at the innermost level
    pearson        (y - Xβ̂ - Zŵ) / √R_jj      nlme's "pearson"
    standardized   L⁻¹(y - Xβ̂), V = LL'       uncorrelated with variance 1 under the model, but for β̂

L is the Cholesky factor of each block of V with its rows in the order of time, so that an entry is what a
measurement adds to the earlier ones of its subject.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..covariance.correlation import Rows
from ..errors import InferenceError
from ..kernel.padded import groups, make_batch
from ..kernel.stacked import Stacked, observed_only
from .prediction import target_rows

if TYPE_CHECKING:
    from ..results import Fit

KINDS = ("marginal", "conditional", "standardized", "pearson")
_DENSE = 4000  # rows up to which a block of V is factored whole


def residuals(fit: Fit, kind: str = "conditional") -> pd.Series:
    """The residuals (n,) of one kind, in the order of the data.

    Raises InferenceError for another kind, and for standardised residuals of crossed effects in large data.
    """
    if kind not in KINDS:
        raise InferenceError(f"kind={kind!r}: residuals are {', '.join(KINDS)}.")
    design = fit.model.design
    out = design.y - design.offset - design.X @ fit.beta.values
    if kind == "standardized":
        out = standardized(fit, out)
    elif kind != "marginal":
        for term in design.terms:
            out = out - np.einsum("nq,nq->n", term.Z, fit.w[term.group].values[term.codes])
        if kind == "pearson":
            out = out / np.sqrt(residual_variance(fit))
    return pd.Series(out, index=pd.Index(design.rows), name=kind)


def residual_variance(fit: Fit) -> np.ndarray:
    """The diagonal of R (n,)."""
    covariance, θ = fit.model.covariance, fit.estimate.θ
    total = np.zeros(len(fit.model.design.y))
    parts = zip(covariance.residual, covariance.residual_slices(), fit.model.residual.rows, strict=True)
    for part, k, constants in parts:
        total = total + part.matrix(θ[k], target_rows(constants, 0)).reshape(-1)
    return total


def standardized(fit: Fit, r: np.ndarray) -> np.ndarray:
    """L⁻¹r (n,) for the whole V = LL', rows in the order of time within their block."""
    rows = observed_only(fit.model)
    if rows.crossed:
        every = tuple(range(len(rows.Z)))
        rows = replace(rows, block=np.zeros(len(r), int), within=every, crossed=())
    largest = int(np.bincount(rows.block).max())
    if largest > _DENSE:
        raise InferenceError(
            f"Standardised residuals need the factor of V, which here has a block of {largest} rows (the "
            f"limit is {_DENSE}): take kind='conditional' or 'pearson'."
        )
    order = time_order(fit, rows)
    rows = _reordered(rows, order)
    out = np.empty(len(r))
    for group in groups(rows, every=True):
        batch = make_batch(rows, group, fit.model.covariance, fit.estimate.θ)
        V = batch.V()
        real = group.observed >= 0
        white = np.linalg.solve(np.linalg.cholesky(V), np.where(real, r[order][group.observed], 0.0)[..., None])
        out[order[group.observed[real]]] = white[..., 0][real]
    return out


def time_order(fit: Fit, rows: Stacked) -> np.ndarray:
    """Rows sorted by block, subject, and time or visit; by their order in the data where neither is known."""
    constants = fit.model.residual.rows[0]
    for r in fit.model.residual.rows:
        constants = r if r.time is not None else constants
    place = constants.position if constants.time is None else constants.time
    subject = rows.block if rows.subject is None else rows.subject
    assert place is not None
    return np.lexsort((place, subject, rows.block))


def _reordered(rows: Stacked, order: np.ndarray) -> Stacked:
    pick = lambda a: None if a is None else a[order]  # noqa: E731
    constants = tuple(
        Rows(pick(r.position), pick(r.time), pick(r.level), pick(r.log_covariate), weight=pick(r.weight))
        for r in rows.rows
    )
    return replace(rows, X=rows.X[order], y=rows.y[order], offset=rows.offset[order], rows=constants,
                   Z=tuple(z[order] for z in rows.Z), codes=tuple(c[order] for c in rows.codes),
                   subject=pick(rows.subject), block=rows.block[order])  # fmt: skip


def autocorrelation(fit: Fit, kind: str = "standardized", max_lag: int | None = None) -> pd.DataFrame:
    """Correlation of residuals that are `lag` measurements apart in their subject, in the order of time.

    r(l) = Σ e_j e_{j+l} / pairs ÷ Σ e² / n, as nlme's ACF. Index lag from 0; columns autocorrelation, pairs
    and bound, 1.96/√pairs, which standardised residuals of a true model stay within 19 times of 20.

    Raises InferenceError where no subject has two rows, or for a lag below 1.
    """
    e = residuals(fit, kind).to_numpy()
    rows = observed_only(fit.model)
    order = time_order(fit, rows)
    subject = (rows.block if rows.subject is None else rows.subject)[order]
    e = e[order]
    longest = int(np.bincount(subject).max()) - 1
    if longest < 1:
        raise InferenceError("No subject has two rows, so that residuals have no lags.")
    if max_lag is not None and max_lag < 1:
        raise InferenceError(f"max_lag={max_lag!r}: the largest lag is at least 1.")
    lags = range(min(longest, max_lag or longest) + 1)
    variance = np.mean(e**2)
    found: list[dict[str, Any]] = []
    for lag in lags:
        together = subject[lag:] == subject[: len(subject) - lag]
        pairs = int(together.sum())
        product = np.mean((e[lag:] * e[: len(e) - lag])[together])
        found.append({"autocorrelation": product / variance, "pairs": pairs, "bound": 1.96 / np.sqrt(pairs)})
    return pd.DataFrame(found, index=pd.Index(lags, name="lag"))
