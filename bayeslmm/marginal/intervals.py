"""Confidence intervals of coefficients and variance parameters: Wald, profile likelihood, bootstrap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from ..errors import InferenceError
from ..kernel.blocks import compress
from ..kernel.information import covariance_of_parameters, estimated_parameters
from ..parameters import Interval, Positive
from .bootstrap import bootstrap, check_level
from .profile import Profile, coefficient_limit, parameter_limit

if TYPE_CHECKING:
    from ..results import Fit

METHODS = ("wald", "profile", "bootstrap")


def confint(
    fit: Fit, method: str, level: float, *, df: str | None, information: str, options: dict[str, Any]
) -> pd.DataFrame:
    """estimate, lower, upper: coefficients first, then variance parameters on the natural scale.

    Raises InferenceError for an unknown method or level.
    """
    check_level(level)
    if method not in METHODS:
        raise InferenceError(f"method={method!r}: intervals are by {', '.join(METHODS)}.")
    if method != "bootstrap" and options:
        raise InferenceError(f"{', '.join(options)} belongs to method='bootstrap', not to {method!r}.")
    if method == "bootstrap":
        return bootstrap(
            fit, **{"n": 1000, "seed": None, "workers": 1, "progress": False, **options}
        ).confint(level)
    if method == "wald":
        table = pd.concat([fit.summary(df, level=level)[["estimate", "lower", "upper"]],
                           wald_parameters(fit, level, information)])  # fmt: skip
    else:
        table = profile_intervals(fit, level)
    table.index.name = "parameter"
    table.attrs = {"method": method, "level": level}
    return table


def wald_parameters(fit: Fit, level: float, information: str) -> pd.DataFrame:
    """Wald intervals on the scale where the likelihood is nearly quadratic.

    log for standard deviations and ranges, Fisher's z (for bounds a, b: the logit of (r - a)/(b - a)) for
    correlations; as it is for powers and where variances may be negative. On the boundary there is no
    interval: nan.
    """
    covariance, found = fit.model.covariance, fit.estimate
    blocks = found.blocks
    keep = estimated_parameters(covariance, found.θ / blocks.unit, "drop")
    W = covariance_of_parameters(found.evaluation, information, keep, reml=fit.method == "REML")
    W = W * np.outer(blocks.unit[keep], blocks.unit[keep])
    x = covariance.natural_from_linear(found.θ)
    se = np.full(len(x), np.nan)
    plain = np.concatenate([np.full(s.size, s.signed) for s in covariance.structures])
    usable = np.isfinite(x) & np.isin(np.arange(len(x)), keep)
    if usable.any():
        safe = np.where(np.isfinite(x), x, 0.0)
        J = covariance.derivatives("linear_from_natural", safe)[1][np.ix_(keep, keep)]
        J = np.where(np.outer(plain[keep], plain[keep]), np.eye(len(keep)), J)
        inverse = np.linalg.pinv(J)
        se[keep] = np.sqrt(np.diag(inverse @ W @ inverse.T))
    values = np.where(plain, found.θ, x)
    half = float(stats.norm.ppf((1 + level) / 2)) * se
    domains = [p.domain for s in covariance.structures for p in s.parameters for _ in range(len(p))]
    limits = [
        (v - h, v + h) if signed else _limits(domain, v, h)
        for domain, v, h, signed in zip(domains, values, half, plain, strict=True)
    ]
    return pd.DataFrame(
        {"estimate": fit.parameters, "lower": [a for a, _ in limits], "upper": [b for _, b in limits]},
        index=fit.parameters.index,
    )


def _limits(domain, x: float, half: float) -> tuple[float, float]:
    if isinstance(domain, Positive):
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return x * np.exp(-half / x), x * np.exp(half / x)
    if isinstance(domain, Interval):
        a, b = domain.lower, domain.upper
        if not (a < x < b and np.isfinite(half)):
            return np.nan, np.nan
        z, step = np.log((x - a) / (b - x)), half * (b - a) / ((x - a) * (b - x))
        return tuple(a + (b - a) / (1 + np.exp(-(z + s))) for s in (-step, step))
    return x - half, x + half


def profile_intervals(fit: Fit, level: float) -> pd.DataFrame:
    """Profile intervals: variance parameters by the fit's own likelihood, coefficients by ML (REML says
    nothing of them).
    """
    ml = fit if fit.method == "ML" else fit.model.fit("ML")
    rows = []
    blocks = ml.estimate.blocks
    back = np.linalg.inv(blocks.basis)
    shared = _profile(ml, level)
    for k, b in enumerate(fit.estimate.beta):
        limits = [
            ml.estimate.blocks.center[k] + blocks.y_scale * coefficient_limit(shared, back[k], s)
            for s in (-1, 1)
        ]
        rows.append([b, *limits])
    shared = _profile(fit, level)
    covariance, unit = fit.model.covariance, fit.estimate.blocks.unit
    for k, value in enumerate(fit.parameters):
        if np.isfinite(value):
            limits = [
                covariance.natural_from_linear(parameter_limit(shared, k, s) * unit)[k] for s in (-1, 1)
            ]
            rows.append([value, *limits])
        else:
            rows.append([value, np.nan, np.nan])
    names = [*fit.model.design.coefs, *fit.parameters.index]
    return pd.DataFrame(rows, index=names, columns=["estimate", "lower", "upper"])


def _profile(fit: Fit, level: float) -> Profile:
    found = fit.estimate
    lean = compress(found.blocks)
    θ = found.θ / found.blocks.unit
    return Profile.of(lean, fit.model.covariance, θ, fit.loglik, level=level, reml=fit.method == "REML")
