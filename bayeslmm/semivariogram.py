"""The sample variogram of residuals, beside what a fitted model says it should be.

For two measurements j, k of a subject, u = |t_j - t_k| apart, with residuals r = y - Xβ̂,

    γ(u) = ½ E (r_j - r_k)² = τ² + σ²(1 - ρ(u)),     Var r_j = ν² + σ² + τ²

under a random intercept of variance ν², a serial process σ²ρ(u) and measurement error τ² (Diggle, Heagerty,
Liang and Zeger 2002, section 5.2). The curve begins at τ², rises by σ², and what is left up to the total
variance is ν². For any other model the same three parts are averages of ½(V_jj + V_kk - 2V_jk) over the
pairs of a bin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .encoding import fit_encoding
from .errors import DataError, InferenceError
from .formula import parse
from .grouping import group_labels
from .kernel.padded import take_rows
from .marginal.residuals import residual_variance, residuals
from .results import Fit
from .table import as_frame, complete_rows, kind, require_columns

_DISTINCT = 20  # up to so many different lags each is a bin of its own
_BINS = 12


@dataclass(frozen=True, eq=False, repr=False)
class Variogram:
    """table: one row a bin: lag (mean), gamma, pairs, and for a fit the model's error, serial, random and
    their sum, model; total_variance: mean r², model_variance: the mean diagonal of V, or None; lag, value:
    every pair.
    """

    table: pd.DataFrame
    total_variance: float
    model_variance: float | None
    lag: np.ndarray
    value: np.ndarray
    time: str
    response: str
    units: dict[str, str]

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """See `bayeslmm.diagnostic_plots.plot_variogram`."""
        from .diagnostic_plots import plot_variogram

        return plot_variogram(self, ax, **options)

    def __repr__(self) -> str:
        model = "" if self.model_variance is None else f", the model's {self.model_variance:.4g}"
        return f"Variogram: total variance {self.total_variance:.4g}{model}\n{self.table.to_string()}"


@dataclass(frozen=True)
class _Pairs:
    """Rows j and k of every pair within a subject, and the time between them."""

    j: np.ndarray
    k: np.ndarray
    lag: np.ndarray


def variogram(
    source: Any,
    formula: str | None = None,
    *,
    time: str | None = None,
    subject: str | None = None,
    bins: int | Sequence[float] | None = None,
    max_lag: float | None = None,
) -> Variogram:
    """The sample variogram of a fit's marginal residuals, or of least squares residuals of a formula on a
    table.

    source: a fit, or a table with `formula`, such as "y ~ t"; time: the column of times, by default that of
    the fit's residual or of its random effects; subject: the column of subjects, by default the fit's.
    bins: their number (equally filled) or their edges; by default each lag where there are few, else 12.
    max_lag: the longest lag.

    Raises
    ------
    InferenceError, DataError
        time or subject is not known or not a column of numbers; no subject has two rows.
    """
    if isinstance(source, Fit):
        if formula is not None:
            raise InferenceError("variogram() of a fit takes its residuals: leave out the formula.")
        fit, frame = source, source.model.design.frame
        r, response = residuals(fit, "marginal").to_numpy(), fit.model.design.response
        total = float(np.mean(r**2))
        name = _time_of(fit) if time is None else time
        codes = _subject_of(fit) if subject is None else _codes(frame, subject)
    else:
        if formula is None or time is None or subject is None:
            raise InferenceError('variogram() of a table needs a formula, time= and subject=, as in "y ~ t".')
        frame, r, response, total = _least_squares(source, formula, time, subject)
        fit, name, codes = None, time, _codes(frame, subject)
    t = _times(frame, name)
    pairs = _pairs(codes, t, max_lag)
    value = 0.5 * (r[pairs.j] - r[pairs.k]) ** 2
    bin_ = _bin(pairs.lag, bins)
    columns = {"lag": pairs.lag, "gamma": value}
    if fit is not None:
        columns |= _decomposition(fit, pairs)
    table = pd.DataFrame(columns).groupby(bin_).mean().rename_axis("bin").reset_index(drop=True)
    table.insert(2, "pairs", np.unique(bin_, return_counts=True)[1])
    if fit is not None:
        table["model"] = table[["error", "serial", "random"]].sum(axis=1)
    units = dict(frame.attrs.get("units", {}))
    model = None if fit is None else float(np.mean(_diagonal(fit)))
    return Variogram(table, total, model, pairs.lag, value, name, response, units)


# --- what to take -----------------------------------------------------------------------------------------


def _least_squares(source: Any, formula: str, time: str, subject: str):
    """(kept rows, residuals, response, their variance) of a regression that knows no subjects."""
    parsed = parse(formula)
    frame, _ = complete_rows(as_frame(source), [*parsed.columns, time, subject])
    X = fit_encoding(parsed.fixed, frame)[0]
    y = fit_encoding(f"0 + {parsed.response}", frame)[0][:, 0]
    r = y - X @ np.linalg.lstsq(X, y, rcond=None)[0]
    return frame, r, parsed.response, float(r @ r / (len(y) - X.shape[1]))


def _codes(frame: pd.DataFrame, subject: str) -> np.ndarray:
    require_columns(frame, [subject])
    return pd.factorize(group_labels(frame, (subject,)))[0]


def _subject_of(fit: Fit) -> np.ndarray:
    if fit.model.residual.subject is not None:
        return fit.model.residual.subject
    if len(fit.model.design.terms) != 1:
        raise InferenceError("Which column says who was measured? Name it, as in variogram(fit, subject='id').")
    return fit.model.design.terms[0].codes


def _time_of(fit: Fit) -> str:
    """The time or visit column of the residual, else the numeric effect of the random effects or the fixed
    part.
    """
    frame = fit.model.design.frame
    named = [p.column for p in fit.model.residual.spec if p.column]
    named += [e for t in fit.model.design.terms for e in t.effects]
    named += [*fit.model.design.coefs]
    found = [c for c in named if c in frame and kind(frame[c]) == "number"]
    if not found:
        raise InferenceError(
            "The model names no numeric time: say which column it is, as in variogram(fit, time='day')."
        )
    return found[0]


def _times(frame: pd.DataFrame, name: str) -> np.ndarray:
    require_columns(frame, [name])
    if kind(frame[name]) != "number":
        raise DataError(f"time={name!r} is not a column of numbers: a lag is a difference of times.")
    return frame[name].to_numpy(float)


# --- pairs and bins ---------------------------------------------------------------------------------------


def _pairs(codes: np.ndarray, t: np.ndarray, max_lag: float | None) -> _Pairs:
    order = np.lexsort((t, codes))
    sorted_codes = codes[order]
    j, k = [], []
    for step in range(1, int(np.bincount(codes).max(initial=1))):
        at = np.flatnonzero(sorted_codes[step:] == sorted_codes[:-step])
        j.append(order[at])
        k.append(order[at + step])
    if not j or not any(len(x) for x in j):
        raise InferenceError("No subject was measured twice: a variogram compares measurements of one subject.")
    first, second = np.concatenate(j), np.concatenate(k)
    lag = np.abs(t[second] - t[first])
    near = lag <= (np.inf if max_lag is None else max_lag)
    if not near.any():
        raise InferenceError(f"max_lag={max_lag!r}: no two measurements of a subject are so close.")
    return _Pairs(first[near], second[near], lag[near])


def _bin(lag: np.ndarray, bins: int | Sequence[float] | None) -> np.ndarray:
    """The bin of each pair, counted from 0 without gaps."""
    distinct = np.unique(lag)
    if isinstance(bins, Sequence | np.ndarray):
        edges = np.unique(np.asarray(bins, float))
    elif bins is None and len(distinct) <= _DISTINCT:
        edges = distinct
    else:
        number = _BINS if bins is None else bins
        if number < 1:
            raise InferenceError(f"bins={bins!r}: at least one bin.")
        edges = np.unique(np.quantile(lag, np.arange(number) / number))
    return np.unique(np.searchsorted(edges, lag, side="right"), return_inverse=True)[1]


# --- what the model says ----------------------------------------------------------------------------------


def _decomposition(fit: Fit, pairs: _Pairs) -> dict[str, np.ndarray]:
    """½(V_jj + V_kk - 2V_jk) of each pair: its measurement error, its serial process, its random effects."""
    covariance, θ = fit.model.covariance, fit.estimate.θ
    both = np.column_stack([pairs.j, pairs.k])
    out = {name: np.zeros(len(both)) for name in ("error", "serial", "random")}
    parts = zip(covariance.residual, covariance.residual_slices(), fit.model.residual.rows, strict=True)
    for part, k, rows in parts:
        subject = None if part.diagonal else fit.model.residual.subject
        name = "error" if part.diagonal else "serial"
        out[name] += _half_difference(part.matrix(θ[k], take_rows(rows, both, subject)))
    for term, G in zip(fit.model.design.terms, covariance.G(θ), strict=True):
        z, level = term.Z[both], term.codes[both]
        V = (z @ G @ np.swapaxes(z, 1, 2)) * (level[:, :, None] == level[:, None, :])
        out["random"] += _half_difference(V)
    return out


def _half_difference(V: np.ndarray) -> np.ndarray:
    return 0.5 * (V[..., 0, 0] + V[..., 1, 1] - 2 * V[..., 0, 1])


def _diagonal(fit: Fit) -> np.ndarray:
    """The diagonal of V (n,)."""
    total = residual_variance(fit)
    for term, G in zip(fit.model.design.terms, fit.model.covariance.G(fit.estimate.θ), strict=True):
        total = total + np.einsum("na,ab,nb->n", term.Z, G, term.Z)
    return total
