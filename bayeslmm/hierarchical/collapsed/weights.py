"""Importance weights: Pareto smoothing and its k̂, effective sample size, evidence, resampling.

Source: Vehtari, Simpson, Gelman, Yao and Gabry (2024), Pareto smoothed importance sampling, JMLR 25; Zhang
and Stephens (2009), A new and efficient estimation method for the generalized Pareto distribution,
Technometrics 51.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp


@dataclass(frozen=True)
class Weights:
    """Normalised weights (D,) with their largest smoothed, k̂, 1/Σw², and the log of the mean weight with its
    standard error."""

    normal: np.ndarray
    khat: float
    ess: float
    log_mean: float
    error: float


def weigh(log_ratio: np.ndarray) -> Weights:
    """The weights of log ratios target / proposal (D,); -inf is a draw outside the support."""
    D = len(log_ratio)
    log_mean = float(logsumexp(log_ratio) - np.log(D))
    raw = np.exp(log_ratio - log_mean) / D
    error = float(np.sqrt(max(D * np.sum(raw**2) - 1, 0) / D))
    smooth, khat = smooth_tail(log_ratio)
    normal = np.exp(smooth - logsumexp(smooth))
    return Weights(normal, khat, 1 / float(np.sum(normal**2)), log_mean, error)


def smooth_tail(log_ratio: np.ndarray) -> tuple[np.ndarray, float]:
    """Log weights whose upper tail is replaced by the quantiles of a fitted Pareto distribution, and its
    shape k̂.
    """
    D = len(log_ratio)
    x = log_ratio - log_ratio.max()
    size = int(min(0.2 * D, 3 * np.sqrt(D)))
    if size < 5:
        return x, np.inf
    order = np.argsort(x, kind="stable")
    tail, cutoff = order[-size:], max(x[order[-size - 1]], np.log(np.finfo(float).tiny))
    excess = np.exp(x[tail]) - np.exp(cutoff)
    if np.ptp(x[tail]) < 1e-12:  # equal weights
        return x, -np.inf
    k, σ = fit_pareto(np.maximum(excess, 0))
    if not np.isfinite(k):
        return x, k
    p = (np.arange(size) + 0.5) / size
    quantile = -σ * np.log1p(-p) if abs(k) < 1e-12 else σ * np.expm1(-k * np.log1p(-p)) / k
    out = x.copy()
    out[tail] = np.minimum(np.log(quantile + np.exp(cutoff)), 0.0)
    return out, k


def fit_pareto(x: np.ndarray) -> tuple[float, float]:
    """Shape k and scale σ of the generalised Pareto distribution of sorted excesses x >= 0 (Zhang and
    Stephens), the shape drawn towards 0.5 by a prior worth ten observations."""
    n = len(x)
    quarter = x[int(n / 4 + 0.5) - 1]
    if not quarter > 0:
        return np.inf, np.nan
    m = 30 + int(np.sqrt(n))
    θ = (1 - np.sqrt(m / (np.arange(1, m + 1) - 0.5))) / (3 * quarter) + 1 / x[-1]
    k = np.log1p(-θ[:, None] * x).mean(axis=1)
    with np.errstate(all="ignore"):
        profile = n * (np.log(-θ / k) - k - 1)
        weight = 1 / np.exp(profile - profile[:, None]).sum(axis=1)
    weight = np.where(weight > 10 * np.finfo(float).eps, weight, 0.0)
    at = float(np.sum(θ * weight) / weight.sum())
    shape = float(np.log1p(-at * x).mean())
    return (n * shape + 5) / (n + 10), -shape / at


def resample(weight: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of `draws` equal-weight draws in random order: each drawn ⌊n w⌋ or ⌈n w⌉ times (systematic)."""
    edges = np.cumsum(weight)
    order = rng.permutation(len(weight))
    edges = np.cumsum(weight[order])
    found = np.searchsorted(edges / edges[-1], (np.arange(draws) + rng.uniform()) / draws)
    return rng.permutation(order[np.minimum(found, len(order) - 1)])
