"""The tables of a comparison: the closed-form fit and one or more posteriors under the same row labels.

Columns have two levels: which reading (REML or ML, then each posterior) and which quantity.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

from .draws import effect_draws, fixed_draws, parameter_draws, population_draws, posterior_group
from .errors import InferenceError
from .kernel.information import covariance_of_parameters, estimated_parameters

if TYPE_CHECKING:
    from .results import Fit

Posteriors = dict[str, xr.DataTree]


def fixed_table(fit: Fit, posteriors: Posteriors, level: float, df: str | None) -> pd.DataFrame:
    """One row a coefficient: estimate, se, df, lower, upper beside mean, sd, lower, upper."""
    closed = fit.summary(df, level=level)
    parts = {fit.method: closed[["estimate", "se", "df", "lower", "upper"]]}
    for name, tree in posteriors.items():
        draws = fixed_draws(fit.model, posterior_group(tree))
        parts[name] = _posterior_columns(draws, closed.index, level)
    table = pd.concat(parts, axis=1, names=["reading", "quantity"])
    table.attrs = {"df": closed.attrs["df"], "level": level}
    return table


def variance_table(fit: Fit, posteriors: Posteriors, level: float) -> pd.DataFrame:
    """One row a variance parameter: estimate, se, lower, upper beside mean, median, sd, lower, upper."""
    index = pd.Index(fit.parameters.index, name="parameter")
    parts = {fit.method: natural_intervals(fit, level)}
    for name, tree in posteriors.items():
        found = parameter_draws(fit.model, posterior_group(tree))
        draws = np.stack([found[p] for p in index], axis=-1)
        parts[name] = _posterior_columns(draws, index, level, median=True)
    table = pd.concat(parts, axis=1, names=["reading", "quantity"])
    table.attrs = {"level": level}
    return table


def subject_table(fit: Fit, posteriors: Posteriors, group: str) -> pd.DataFrame:
    """One row a (level, effect): the plug-in EBLUP beside the mean and sd of w over the posterior.

    difference is the plug-in minus the average: what taking the variance parameters for known does to a
    subject.
    """
    w = fit.w[group]
    rows = pd.MultiIndex.from_product([w.coords[d].values for d in w.dims], names=[group, "effect"])
    parts = {fit.method: pd.DataFrame({"eblup": w.values.ravel()}, index=rows)}
    for name, tree in posteriors.items():
        draws = effect_draws(fit.model, posterior_group(tree), group)
        mean = draws.mean(axis=(0, 1)).ravel()
        sd = draws.std(axis=(0, 1), ddof=1).ravel()
        columns = {"mean": mean, "sd": sd, "difference": w.values.ravel() - mean}
        parts[name] = pd.DataFrame(columns, index=rows)
    return pd.concat(parts, axis=1, names=["reading", "quantity"])


def diagnostics_table(fit: Fit, posteriors: Posteriors) -> pd.DataFrame:
    """One row a posterior: chains, draws, the worst R-hat and effective sample sizes, divergences, k̂, seconds.

    The worst is taken over β, the variance parameters and every random effect. R-hat needs two chains and is
    nan with one; divergences are nan where a sampler knows none, khat where there are no importance weights.
    """
    rows = {name: _diagnose(fit, tree) for name, tree in posteriors.items()}
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index.name = "posterior"
    return table


def natural_intervals(fit: Fit, level: float) -> pd.DataFrame:
    """Standard deviations, correlations and ranges with se and Wald interval.

    The se is the delta method on the inverse expected information of (variances, covariances, ranges). The
    interval is symmetric for the logarithm of a standard deviation or range and for Fisher's z of a
    correlation, the scales that nlme takes. Parameters on a boundary, and all of them where the information
    is singular, have neither.
    """
    estimate = fit.parameters.to_numpy(float)
    se = _natural_se(fit, estimate)
    half = stats.norm.ppf((1 + level) / 2) * se
    roles = [p.role for p in fit.model.covariance.parameters for _ in range(len(p))]
    lower, upper = estimate - half, estimate + half
    signed = np.array([n.startswith(("var_", "cov_")) for n in fit.parameters.index])
    logged = np.isin(roles, ["sd", "range"]) & ~signed
    correlation = (np.array(roles) == "correlation") & ~signed
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = half / estimate
        lower = np.where(logged, estimate * np.exp(-ratio), lower)
        upper = np.where(logged, estimate * np.exp(ratio), upper)
        z, dz = np.arctanh(estimate), half / (1 - estimate**2)
        lower = np.where(correlation, np.tanh(z - dz), lower)
        upper = np.where(correlation, np.tanh(z + dz), upper)
    columns = {"estimate": estimate, "se": se, "lower": lower, "upper": upper}
    return pd.DataFrame(columns, index=pd.Index(fit.parameters.index, name="parameter"))


def _natural_se(fit: Fit, natural: np.ndarray) -> np.ndarray:
    """Delta method from linear coordinates, in which the information is known, to natural ones."""
    covariance, found = fit.model.covariance, fit.estimate
    se = np.full(len(natural), np.nan)
    keep = estimated_parameters(covariance, found.θ / found.blocks.unit, "drop")
    if any(s.signed for s in covariance.structures) or not np.isfinite(natural[keep]).all():
        return se
    try:
        W = covariance_of_parameters(found.evaluation, "expected", keep, reml=fit.method == "REML")
    except InferenceError:
        return se
    unit = found.blocks.unit[keep]
    _, jacobian, _ = covariance.derivatives("linear_from_natural", np.nan_to_num(natural))
    inverse = np.linalg.inv(jacobian[np.ix_(keep, keep)])
    se[keep] = np.sqrt(np.diag(inverse @ (W * np.outer(unit, unit)) @ inverse.T))
    return se


def _posterior_columns(
    draws: np.ndarray, index: pd.Index, level: float, *, median: bool = False
) -> pd.DataFrame:
    """mean, sd and equal-tailed interval of draws (chain, draw, row)."""
    flat = draws.reshape(draws.shape[0] * draws.shape[1], draws.shape[2])
    tail = (1 - level) / 2
    columns = {"mean": flat.mean(axis=0)}
    if median:
        columns["median"] = np.median(flat, axis=0)
    columns["sd"] = flat.std(axis=0, ddof=1)
    columns["lower"], columns["upper"] = np.quantile(flat, [tail, 1 - tail], axis=0)
    return pd.DataFrame(columns, index=index)


def _diagnose(fit: Fit, tree: xr.DataTree) -> dict[str, float]:
    import arviz as az

    posterior = posterior_group(tree)
    checked = population_draws(fit.model, posterior)
    for term in fit.model.design.terms:
        w = effect_draws(fit.model, posterior, term.group)
        dims = ("chain", "draw", f"level_{term.group}", f"effect_{term.group}")
        checked[f"w_{term.group}"] = xr.DataArray(w, dims=dims)
    single = checked.sizes["chain"] < 2
    whole = xr.DataTree.from_dict({"posterior": checked})
    with np.errstate(invalid="ignore", divide="ignore"):  # draws that never change have no R-hat
        rhat = np.nan if single else _worst(az.rhat(whole), np.max)
        bulk = _worst(az.ess(whole, method="bulk"), np.min)
        tail = _worst(az.ess(whole, method="tail"), np.min)
    return {
        "chains": checked.sizes["chain"],
        "draws": checked.sizes["draw"],
        "rhat": rhat,
        "ess_bulk": bulk,
        "ess_tail": tail,
        "divergences": _divergences(tree),
        "khat": float(posterior.attrs.get("khat", np.nan)),
        "seconds": float(posterior.attrs.get("sampling_time", np.nan)),
    }


def _worst(found: xr.DataTree, pick) -> float:
    values = np.concatenate([np.ravel(v.to_numpy()) for v in found.data_vars.values()])
    values = values[np.isfinite(values)]
    return float(pick(values)) if values.size else float("nan")


def _divergences(tree: xr.DataTree) -> float:
    if not isinstance(tree, xr.DataTree) or "sample_stats" not in tree.children:
        return np.nan
    found = tree["sample_stats"].to_dataset()
    return float(found["diverging"].to_numpy().sum()) if "diverging" in found else np.nan
