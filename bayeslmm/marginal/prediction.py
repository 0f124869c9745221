"""Prediction of profiles: μ̂(t) + Û + Ŵ(t) for known and new subjects, with every part of its standard error.

    Ŷ(t) = x'β̂ + Ω̂(t),     Ω̂ = Σ(t, t_i)V_i⁻¹(y_i - X_iβ̂)                       (lecture 7, prediction)
    Var[Ŷ(t) - Y(t)] = d'Φd + Σ(t, t) - Σ(t, t_i)V_i⁻¹Σ(t_i, t) [+ τ²],     d = x - X_i'V_i⁻¹Σ(t_i, t)

The serial process belongs to the subject's mean, the measurement error ω only to a response. The variance
falls exactly into

    se² = se_beta² + se_w² + se_serial² + 2 cov_w_serial + se_error² [+ var_theta]

d'Φd is what estimating β adds, se_w² and se_serial² are the conditional variances of U and W given the
subject's data (before any data: z'Gz and σ²), cov_w_serial their conditional covariance (negative: the data
know their sum better than either).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from ..covariance.newrows import bind_new_rows
from ..errors import DataError, InferenceError
from ..kernel.conditional import Conditional, condition
from ..kernel.stacked import Stacked, stack_fit, stack_new
from ..newdata import NewRows, apply_design
from ..table import as_frame
from .prediction_df import Uncertainty, uncertainty

if TYPE_CHECKING:
    from ..results import Fit

_ROUNDING = 1e-12  # a conditional variance below this share of the prior one is zero


@dataclass(frozen=True)
class Options:
    """What is asked of a prediction, checked."""

    level: str
    what: str
    se: bool
    interval: float | None
    df: str | None
    information: str | None = None

    def __post_init__(self) -> None:
        if self.level not in ("subject", "population"):
            raise InferenceError(f"level={self.level!r}: a prediction is for a 'subject' or for the 'population'.")
        if self.what not in ("mean", "response"):
            raise InferenceError(
                f"what={self.what!r}: predict the 'mean' (the profile without measurement error) or a "
                "'response' (a new measurement)."
            )
        if self.interval is not None and not 0 < self.interval < 1:
            raise InferenceError(f"interval={self.interval!r}: a level between 0 and 1, such as 0.9.")
        if not self.se and (self.interval is not None or self.df is not None):
            raise InferenceError("interval= and df= need standard errors: leave out se=False.")


def predict(fit: Fit, newdata: Any, condition_on: Any, options: Options) -> pd.DataFrame:
    """The table of `Fit.predict`."""
    if condition_on is not None and (options.level == "population" or newdata is None):
        why = (
            "a prediction for the population does not depend on a subject's measurements: take level='subject'"
            if options.level == "population"
            else "newdata= must say at which rows to predict"
        )
        raise InferenceError(f"condition_on= gives measurements to predict from, but {why}.")
    model, design = fit.model, fit.model.design
    index: Any = pd.Index(design.rows) if newdata is None else _index(newdata)
    if options.level == "subject":
        rows = stack_fit(model) if newdata is None else _stack(fit, newdata, condition_on)
        found = condition(rows, model.covariance, fit.estimate.θ, fit.beta.values)
    else:
        rows = stack_fit(model) if newdata is None else _population_rows(fit, newdata, options.what)
        found = _before_data(fit, rows, options.what)
    error = _error_variance(fit, rows) if options.what == "response" else np.zeros(len(found.u))
    return _table(fit, rows, found, error, options, index)


def _index(newdata: Any) -> pd.Index:
    empty = newdata is not None and hasattr(newdata, "__len__") and not isinstance(newdata, Mapping)
    if empty and len(newdata) == 0:
        raise DataError("The new data have no rows: there is nothing to predict. Was a filter too strict?")
    return as_frame(newdata).index


def _stack(fit: Fit, newdata: Any, condition_on: Any) -> Stacked:
    targets = _new_rows(fit, newdata)
    given = None
    if condition_on is not None:
        given = apply_design(fit.model.design, condition_on, need_response=True)
    return stack_new(fit.model, given, targets)


def _new_rows(fit: Fit, newdata: Any) -> NewRows:
    frame = as_frame(newdata)
    for term in fit.model.design.terms:
        for column in term.columns:
            if column not in frame.columns:
                raise DataError(
                    f"The new data have no column {column!r}, which says whose profile to predict: add it "
                    "(a new label for a new subject), or take level='population'."
                )
    return apply_design(fit.model.design, frame)


def _population_rows(fit: Fit, newdata: Any, what: str) -> Stacked:
    """Targets whose group does not matter: each row is a new subject."""
    design = fit.model.design
    frame = as_frame(newdata)
    residual = fit.model.residual
    n = len(frame)
    if what == "mean":
        x = apply_design(design, frame, need_groups=False)
        empty = tuple(np.zeros((n, t.Z.shape[1])) for t in design.terms)
        return _targets_only(x.X, x.offset, empty, residual.rows)
    named = [] if residual.subject is None else [residual.subject_name]
    for column in [c for t in design.terms for c in t.columns] + named:
        if column in design.frame and column not in frame:
            frame[column] = design.frame[column].iloc[0]
    x = apply_design(design, frame)
    each = np.arange(n)
    rows = bind_new_rows(design, residual, x.frame, each, np.zeros(n, int))
    return _targets_only(x.X, x.offset, x.Z, rows)


def _targets_only(X, offset, Z, rows) -> Stacked:
    n = len(X)
    each = np.arange(n)
    return Stacked(X, np.zeros(0), offset, Z, tuple(each for _ in Z), tuple(n for _ in Z), rows, each, each,
                   tuple(range(len(Z))), ())  # fmt: skip


def _before_data(fit: Fit, rows: Stacked, what: str) -> Conditional:
    """Targets of subjects of whom nothing is known; the mean of the population has no variance but β's."""
    X = rows.X[rows.observed :]
    zero = np.zeros(len(X))
    if what == "mean":
        return Conditional(zero, zero, X, zero, zero, zero, zero)
    covariance, θ = fit.model.covariance, fit.estimate.θ
    Z = [z[rows.observed :] for z in rows.Z]
    var_u = zero + sum(np.einsum("ta,ab,tb->t", z, g, z) for z, g in zip(Z, covariance.G(θ), strict=True))
    var_w = _own_variance(fit, rows, diagonal=False)
    return Conditional(zero, zero, X, var_u, var_w, zero, var_u + var_w)


def _error_variance(fit: Fit, rows: Stacked) -> np.ndarray:
    return _own_variance(fit, rows, diagonal=True)


def _own_variance(fit: Fit, rows: Stacked, *, diagonal: bool) -> np.ndarray:
    """Variance of the measurement error (`diagonal`), or of the serial components, at each target."""
    covariance, θ = fit.model.covariance, fit.estimate.θ
    total = np.zeros(len(rows.X) - rows.observed)
    for part, k, constants in zip(covariance.residual, covariance.residual_slices(), rows.rows, strict=True):
        if part.diagonal is diagonal:
            total = total + part.matrix(θ[k], target_rows(constants, rows.observed)).reshape(-1)
    return total


def target_rows(constants, observed: int):
    """The constants of the targets, each a pattern of one row."""
    pick = lambda a: None if a is None else a[observed:, None]  # noqa: E731
    return replace(
        constants, position=pick(constants.position), time=pick(constants.time), level=pick(constants.level),
        log_covariate=pick(constants.log_covariate), same=None, weight=pick(constants.weight),
    )  # fmt: skip


def _table(fit: Fit, rows: Stacked, found: Conditional, error, options: Options, index) -> pd.DataFrame:
    fixed = rows.X[rows.observed :] @ fit.beta.values + rows.offset[rows.observed :]
    columns = {"prediction": fixed + found.u + found.w, "fixed": fixed, "random": found.u, "serial": found.w}
    if options.se:
        more = uncertainty(fit, rows, found, options)
        columns |= _errors(found, error, more)
        columns |= _limits(columns["prediction"], columns["se"], more, options)
    table = pd.DataFrame(columns, index=index)
    table.attrs = {
        "level": options.level,
        "what": options.what,
        "df": options.df,
        "interval": options.interval,
    }
    return table


def _errors(found: Conditional, error: np.ndarray, more: Uncertainty) -> dict[str, np.ndarray]:
    beta = np.einsum("ta,ab,tb->t", found.d, more.Φ, found.d)
    known = found.var_u + found.var_w + 2 * found.cov_uw
    known = np.where(known > _ROUNDING * found.prior, known, 0.0)
    scale = np.einsum("ta,ab,tb->t", more.x, more.Φ, more.x) + found.prior
    beta = np.where(beta > _ROUNDING * scale, beta, 0.0)
    total = beta + known + error + (0.0 if more.var_theta is None else more.var_theta)
    root = lambda v: np.sqrt(np.where(v > _ROUNDING * found.prior, v, 0.0))  # noqa: E731
    out = {
        "se": np.sqrt(total),
        "se_beta": np.sqrt(beta),
        "se_w": root(found.var_u),
        "se_serial": root(found.var_w),
        "cov_w_serial": found.cov_uw,
        "se_error": np.sqrt(error),
    }
    return out if more.var_theta is None else out | {"var_theta": more.var_theta}


def _limits(prediction, se, more: Uncertainty, options: Options) -> dict[str, np.ndarray]:
    out = {} if options.df is None else {"df": more.df}
    if options.interval is None:
        return out
    tail = (1 + options.interval) / 2
    ν = more.df
    quantile = np.where(np.isfinite(ν), stats.t.ppf(tail, np.where(np.isfinite(ν), ν, 1.0)), stats.norm.ppf(tail))
    return out | {"lower": prediction - quantile * se, "upper": prediction + quantile * se}
