"""Information criteria as the lecture, lme4, nlme and SAS count them, and tables that compare models by them.

With log-likelihood ℓ, k parameters and 𝒩 observations the penalties on the log-likelihood scale are

    AIC  k        BIC  ½ k log 𝒩        HQIC  k log log 𝒩        CAIC  ½ k (log 𝒩 + 1)        AICc  k 𝒩/(𝒩 -
    k - 1)

| convention | reported        | k               | 𝒩 by ML    | 𝒩 by REML |
|------------|-----------------|-----------------|------------|-----------|
| lecture    | ℓ - penalty     | p + q           | n          | n - p     |
| lme4       | -2ℓ + 2 penalty | p + q           | n          | n         |
| nlme       | -2ℓ + 2 penalty | p + q           | n          | n - p     |
| SAS        | -2ℓ + 2 penalty | p + q, REML: q  | N subjects | N subjects|

p coefficients, q variance parameters, n rows. SAS leaves variance parameters at zero out of q, counts n
(REML: n - p) in AICc, and also elsewhere where no factor contains all others. lme4 and nlme print AIC and
BIC only; the other criteria follow the same counts. The larger is better for the lecture's convention, the
smaller for the others.

cAIC is the conditional AIC of Vaida and Blanchard (2005), section 3, for prediction of the same subjects: the
log-likelihood of y given the EBLUPs, with penalty ρ + q_R for the effective degrees of freedom ρ = ∂ŷ/∂y at
fixed variances and the q_R parameters of R. It leaves out the correction of Greven and Kneib (2010) for an
estimated G and therefore leans to the larger model where a variance is near zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..covariance.binding import nested
from ..errors import InferenceError
from ..kernel.information import estimated_parameters
from ..kernel.likelihood import LOG_2PI
from ..kernel.moments import moments

if TYPE_CHECKING:
    from ..results import Fit

CONVENTIONS = ("lecture", "lme4", "nlme", "sas")


@dataclass(frozen=True)
class Count:
    """What a convention counts: k parameters, 𝒩 observations in BIC, HQIC and CAIC, and those in AICc."""

    parameters: int
    observations: int
    small_sample: int


def criteria(fit: Fit, convention: str) -> pd.Series:
    """AIC, BIC, HQIC, CAIC, AICc and cAIC of a fit; attrs hold what was counted and which direction is
    better.

    Raises InferenceError for an unknown convention.
    """
    count = counted(fit, convention)
    k, N, n = count.parameters, count.observations, count.small_sample
    with np.errstate(invalid="ignore", divide="ignore"):
        penalty = {
            "AIC": float(k),
            "BIC": 0.5 * k * np.log(N),
            "HQIC": k * np.log(np.log(N)),
            "CAIC": 0.5 * k * (np.log(N) + 1),
            "AICc": k * n / (n - k - 1) if n > k + 1 else np.inf,
        }
    value = {name: fit.loglik - x for name, x in penalty.items()}
    conditional, effective = conditional_loglik(fit)
    value["cAIC"] = conditional - effective - sum(s.size for s in fit.model.covariance.residual)
    scale = 1.0 if convention == "lecture" else -2.0
    out = pd.Series({name: scale * x for name, x in value.items()}, name=convention)
    out.attrs = {
        "parameters": k,
        "observations": N,
        "effective_parameters": effective,
        "better": "larger" if convention == "lecture" else "smaller",
    }
    return out


def counted(fit: Fit, convention: str) -> Count:
    """k and 𝒩 of a convention (see the table above)."""
    if convention not in CONVENTIONS:
        raise InferenceError(f"convention={convention!r}: there are {', '.join(CONVENTIONS)}.")
    n, p = fit.model.design.X.shape
    reml = fit.method == "REML"
    q = fit.model.covariance.size
    if convention == "lme4":
        return Count(p + q, n, n)
    free = n - p if reml else n
    if convention != "sas":
        return Count(p + q, free, free)
    found = fit.estimate
    q = len(estimated_parameters(fit.model.covariance, found.θ / found.blocks.unit, "drop"))
    return Count(q if reml else p + q, _subjects(fit) or free, free)


def _subjects(fit: Fit) -> int | None:
    """The number of levels of the factor that contains all others; None where there is none."""
    residual = fit.model.residual
    units = [t.codes for t in fit.model.design.terms]
    if residual.subject is not None:
        units.append(residual.subject)
    coarsest = (codes for codes in units if all(nested(other, codes) for other in units))
    codes = next(coarsest, None)
    return None if codes is None else len(np.unique(codes))


def conditional_loglik(fit: Fit) -> tuple[float, float]:
    """(log p(y | β̂, ŵ), ρ): with α = V⁻¹(y - Xβ̂) the residual is Rα, and ρ = n - tr RP (P = V⁻¹ -
    V⁻¹XΦX'V⁻¹).

    R is homogeneous in its variances v, so that R = Σ v_j ∂R/∂v_j and both follow from the moments of the
    fit.
    """
    found, covariance = fit.estimate, fit.model.covariance
    blocks, m = found.blocks, found.evaluation.moments
    θ = found.θ / blocks.unit
    a = np.append(-found.evaluation.beta, 1.0)
    p = blocks.p
    rss = trace = 0.0
    for j in np.flatnonzero(covariance.scales_with_variance):
        if j >= covariance.residual_slices()[0].start:
            rss += θ[j] * (a @ m.Mj[j] @ a)
            trace += θ[j] * (m.tj[j] - np.sum(found.evaluation.A_inverse * m.Mj[j, :p, :p]))
    without = θ.copy()
    without[: covariance.residual_slices()[0].start] = 0.0
    at = moments(blocks, covariance, without, order=0)
    if at is None:
        return np.nan, blocks.n - trace
    logdet = at.logdet - blocks.log_weights + 2 * blocks.n * np.log(blocks.y_scale)
    return -0.5 * (blocks.n * LOG_2PI + logdet + rss), blocks.n - trace


# --- several models ---------------------------------------------------------------------------------------


def compare_models(*fits: Fit, convention: str = "lecture", **named: Fit) -> pd.DataFrame:
    """One row a model, best AIC first: parameters, loglik, the criteria, and delta, the distance in AIC
    from the best.

    Name the models by keyword, ``compare_models(intercept=fit1, slope=fit2)``; unnamed ones go by their
    formula.

    Raises InferenceError where log-likelihoods are not comparable: other rows or another response, REML
    beside ML, or REML with different fixed effects.
    """
    models = {**{f"{i}: {f.model}": f for i, f in enumerate(fits, 1)}, **named}
    if len(models) < 2:
        raise InferenceError("compare_models needs at least two fits.")
    first = next(iter(models.values()))
    for fit in models.values():
        require_comparable(first, fit)
    rows = {}
    for name, fit in models.items():
        values = criteria(fit, convention)
        rows[name] = {
            "method": fit.method,
            "parameters": values.attrs["parameters"],
            "loglik": fit.loglik,
            **values,
            "converged": bool(fit.convergence),
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    larger = convention == "lecture"
    table.insert(
        len(table.columns) - 1, "delta", (table["AIC"] - table["AIC"].agg("max" if larger else "min")).abs()
    )
    table = table.sort_values("AIC", ascending=not larger)
    table.index.name = "model"
    table.attrs = {"convention": convention, "better": "larger" if larger else "smaller"}
    return table


def require_comparable(a: Fit, b: Fit) -> None:
    """Refuse two fits whose log-likelihoods are of different things."""
    one, other = a.model.design, b.model.design
    same_data(one, other)
    if a.method != b.method:
        raise InferenceError(
            f"{a.model.formula.text} is fitted by {a.method} and {b.model.formula.text} by {b.method}: "
            "these are likelihoods of different data (REML leaves p directions of y out). Fit all by one "
            "method."
        )
    same_X = one.X.shape == other.X.shape and np.array_equal(one.X, other.X)
    if a.method == "REML" and not same_X:
        raise InferenceError(
            "The fixed effects differ: "
            f"{', '.join(one.coefs)} against {', '.join(other.coefs)}. The restricted likelihood is that "
            "of the residuals of one X, and another X (or another coding of it) makes it the likelihood "
            "of other data. Fit by ML to compare: model.fit(method='ML')."
        )


def same_data(one, other) -> None:
    """Refuse designs with different rows, responses, offsets' totals or weights."""
    if len(one.y) != len(other.y):
        raise InferenceError(
            f"The models use {len(one.y)} and {len(other.y)} rows, so their likelihoods are of different "
            "data. A column of one may have missing values: drop those rows before fitting both."
        )
    if one.response != other.response:
        raise InferenceError(
            f"The responses are {one.response} and {other.response}: densities on different scales are not "
            "comparable."
        )
    if not np.array_equal(one.y, other.y) or not np.array_equal(one.rows, other.rows):
        raise InferenceError(
            "The models were fitted to different values of the response or rows: use one table."
        )
    if not np.array_equal(one.weights, other.weights):
        raise InferenceError("The models have different weights, and with them different data: use the same.")
