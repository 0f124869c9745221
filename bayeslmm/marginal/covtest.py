"""Wald tests of variance parameters (SAS: covtest), and where they mean nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

from ..covariance.structure import Structure
from ..kernel.information import covariance_of_parameters, estimated_parameters
from ..kernel.optimise import ZERO

if TYPE_CHECKING:
    from ..results import Fit

BOUNDARY = (
    "The estimate is on the boundary 0: no normal approximation, no standard error. Compare the models "
    "with and without it by lrt."
)
VARIANCE = (
    "Hierarchical reading: 0 is the edge of the parameter space, the normal approximation fails for H0 "
    "and p is only a guide; use lrt. Marginal reading: a component may be negative, and z tests that it is 0."
)
NEGATIVE = (
    "Negative: a covariance V that no random effects have; the test has a marginal and no hierarchical "
    "meaning."
)
COVARIANCE = (
    "If one of the variances is 0, so is the covariance: then the hypothesis is theirs, on the boundary."
)


def covariance_of_variances(fit: Fit, information: str) -> pd.DataFrame:
    """Asymptotic covariance of the variance parameters on SAS's scale (asycov): variances, covariances, the
    rest as it is.

    Parameters on the boundary are left out. Raises InferenceError where the information is not positive
    definite.
    """
    found = fit.estimate
    keep = estimated_parameters(fit.model.covariance, found.θ / found.blocks.unit, "drop")
    W = covariance_of_parameters(found.evaluation, information, keep, reml=fit.method == "REML")
    unit = found.blocks.unit[keep]
    names = [linear_names(fit)[k] for k in keep]
    return pd.DataFrame(W * np.outer(unit, unit), index=names, columns=names)


def linear_names(fit: Fit) -> list[str]:
    """sd_Subject[Days] -> var_Subject[Days], corr_Subject[..] -> cov_Subject[..], sigma -> sigma²; ranges
    keep their name.
    """
    names: list[str] = []
    for structure in fit.model.covariance.structures:
        for p in structure.parameters:
            own = p.full_names()
            if p.role == "sd":
                own = [
                    n.replace("sd_", "var_", 1) if n.startswith("sd_") else n.replace("sigma", "sigma²", 1)
                    for n in own
                ]
            elif structure.linear and p.role == "correlation":
                own = [_covariance_name(n) for n in own]
            names += own
    return names


def _covariance_name(name: str) -> str:
    for prefix in ("corr", "rho"):
        if name.startswith(prefix):
            return "cov" + name.removeprefix(prefix)
    return name


def covtest(fit: Fit, information: str) -> pd.DataFrame:
    """estimate, se, statistic (z), p, lower, upper and a note for every variance parameter.

    Variances are tested one-sided, as in SAS; covariances, correlations and ranges two-sided.
    """
    W = covariance_of_variances(fit, information)
    names, roles = linear_names(fit), _roles(fit)
    unit = fit.estimate.blocks.unit
    rows = {}
    for name, role, value, size in zip(names, roles, fit.estimate.θ, unit, strict=True):
        se = float(np.sqrt(W.loc[name, name])) if name in W.index else np.nan
        z = value / se if role != "range" else np.nan
        tail = stats.norm.sf(z) if role == "variance" else 2 * stats.norm.sf(abs(z))
        half = stats.norm.ppf(0.975) * se
        rows[name] = {"estimate": value, "se": se, "statistic": z, "p": float(tail), "lower": value - half,
                      "upper": value + half, "note": _note(role, value / size, se)}  # fmt: skip
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index.name = "parameter"
    table.attrs = {"information": information, "scale": "variances and covariances"}
    return table


def _roles(fit: Fit) -> list[str]:
    return [r for s in fit.model.covariance.structures for r in _structure_roles(s)]


def _structure_roles(structure: Structure) -> list[str]:
    out = []
    for p in structure.parameters:
        role = (
            "variance"
            if p.role == "sd"
            else "covariance"
            if p.role == "correlation" and structure.free
            else p.role
        )
        out += [role] * len(p)
    if structure.diagonal and structure.scale.name.startswith("sigma"):
        out = ["error" if r == "variance" else r for r in out]
    return out


def _note(role: str, standard: float, se: float) -> str:
    if role in ("variance", "error") and standard < -ZERO:
        return NEGATIVE
    if not np.isfinite(se):
        return BOUNDARY
    return {"variance": VARIANCE, "covariance": COVARIANCE}.get(role, "")
