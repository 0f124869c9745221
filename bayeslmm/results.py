"""The marginal fit with its labels: what `model.fit()` returns. The work is done in `marginal/`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from .errors import DataError, InferenceError
from .marginal.bootstrap import Bootstrap, bootstrap, simulated
from .marginal.covariances import subject_covariance
from .marginal.criteria import criteria
from .marginal.estimate import Convergence, Estimate, estimate
from .marginal.inference import anova, coefficient_table, test_hypothesis
from .marginal.sandwich import RobustFit, robust

if TYPE_CHECKING:
    from .model import LMM


@dataclass(frozen=True, eq=False, repr=False)
class Fit:
    """A linear mixed model fitted by REML or ML.

    loglik: the (restricted) log-likelihood; beta (coef) and cov_beta (coef, coef_); parameters: standard deviations,
    correlations and ranges by name; G and w: for each grouping factor the covariance of its effects and their EBLUPs
    (level, effect); sigma: the residual standard deviation, or one for each level; convergence: how the fit ended.
    """

    model: LMM
    method: str
    loglik: float
    beta: xr.DataArray
    cov_beta: xr.DataArray
    parameters: pd.Series
    G: dict[str, xr.DataArray]
    w: dict[str, xr.DataArray]
    sigma: float | xr.DataArray
    convergence: Convergence
    estimate: Estimate

    @classmethod
    def of(cls, model: LMM, *, reml: bool, start: Mapping[str, float] | None = None) -> Fit:
        """Fit a model."""
        return label(model, estimate(model.design, model.covariance, model.residual, reml=reml, start=start))

    def summary(self, df: str | None = None, *, level: float = 0.95, information: str | None = None,
                singular: str = "drop") -> pd.DataFrame:  # fmt: skip
        """One row a coefficient: estimate, se, df, statistic (t), p, lower, upper.

        df: "kenward-roger" (default for REML), "kenward-roger-linear", "satterthwaite" (default for ML), "containment",
        "between-within", "residual" or "asymptotic". information: of the variance parameters, "expected" (default for
        Kenward-Roger) or "observed" (default for Satterthwaite; SAS uses it for both).
        """
        return coefficient_table(self, df, level=level, information=information, singular=singular)

    def test(self, hypothesis: Any, df: str | None = None, *, information: str | None = None,
             singular: str = "drop") -> pd.Series:  # fmt: skip
        """F test of "Days = 0, Intercept = 250", of a term by its name, or of Lβ = 0 for a matrix L.

        Returns statistic, ndf, ddf, scale (λ of Kenward-Roger), p, method. Raises InferenceError for a hypothesis that
        this model has no coefficients for.
        """
        return test_hypothesis(self, hypothesis, df, information=information, singular=singular)

    def anova(self, type: int = 3, df: str | None = None, *, information: str | None = None) -> pd.DataFrame:
        """F tests of the terms of the fixed part: type 1 (in order), 2 (each after those that do not contain it) or 3."""
        return anova(self, type, df, information=information)

    def robust(self, kind: str = "CR2", cluster: str | None = None) -> RobustFit:
        """The fit with sandwich standard errors and Satterthwaite df: "CR0", "CR1", "CR1S", "CR1p", "CR2" or "CR3".

        cluster: a column whose levels are independent; the coarsest grouping factor (or the residual's subject) by
        default. Raises InferenceError where the model says that clusters are correlated.
        """
        return robust(self, kind, cluster)

    def criteria(self, convention: str = "lecture") -> pd.Series:
        """AIC, BIC, HQIC, CAIC, AICc and the conditional AIC as the "lecture", "lme4", "nlme" or "sas" count them.

        The lecture's are on the log-likelihood scale (larger is better), the others on that of -2 log-likelihood.
        """
        return criteria(self, convention)

    def simulate(self, n: int = 1, *, seed: Any = None) -> pd.DataFrame:
        """n responses drawn from the fitted model (new random effects, new errors), one a column."""
        return simulated(self, n, seed)

    def bootstrap(self, n: int = 1000, *, seed: Any = None, workers: int = 1, progress: bool = False) -> Bootstrap:
        """The parametric bootstrap: n refits to draws from the fit, with their draws, intervals and standard errors.

        workers: processes that share the refits (the draws are the same for any number). progress: show a bar.
        """
        return bootstrap(self, n, seed=seed, workers=workers, progress=progress)

    def V(self, subject: Any) -> xr.DataArray:
        """The marginal covariance Z G Z' + R of one subject's rows, in the order of the data."""
        return self._matrix(subject, marginal=True)

    def R(self, subject: Any) -> xr.DataArray:
        """The residual covariance of one subject's rows, in the order of the data."""
        return self._matrix(subject, marginal=False)

    def _matrix(self, subject: Any, *, marginal: bool) -> xr.DataArray:
        rows = subject_rows(self.model, subject)
        values = subject_covariance(self.model.design, self.model.covariance, self.model.residual, self.estimate.θ,
                                    rows, marginal=marginal)  # fmt: skip
        labels = self.model.design.rows[rows]
        return xr.DataArray(values, dims=("obs", "obs_"), coords={"obs": labels, "obs_": labels},
                            name="V" if marginal else "R")  # fmt: skip

    def __repr__(self) -> str:
        from .printing import fit_text

        return fit_text(self)


def label(model: LMM, found: Estimate) -> Fit:
    """Put names on the arrays of an estimate."""
    design, covariance = model.design, model.covariance
    coefs = list(design.coefs)
    natural = covariance.natural_from_linear(found.θ)
    G = {
        t.group: xr.DataArray(g, dims=("effect", "effect_"), name=f"G_{t.group}",
                              coords={"effect": list(t.effects), "effect_": list(t.effects)})
        for t, g in zip(design.terms, covariance.G(found.θ), strict=True)
    }  # fmt: skip
    w = {
        t.group: xr.DataArray(x, dims=(t.group, "effect"), name=f"w_{t.group}",
                              coords={t.group: t.levels, "effect": list(t.effects)})
        for t, x in zip(design.terms, found.w, strict=True)
    }  # fmt: skip
    return Fit(
        model=model,
        method=found.method,
        loglik=found.loglik,
        beta=xr.DataArray(found.beta, dims="coef", coords={"coef": coefs}, name="beta"),
        cov_beta=xr.DataArray(found.cov_beta, dims=("coef", "coef_"), coords={"coef": coefs, "coef_": coefs}, name="cov_beta"),
        parameters=pd.Series(natural, index=_parameter_names(model), name="estimate"),
        G=G,
        w=w,
        sigma=_sigma(model, natural),
        convergence=found.convergence,
        estimate=found,
    )


def _parameter_names(model: LMM) -> list[str]:
    """Natural names; where variances may be negative they stand in the place of standard deviations."""
    names = []
    for structure in model.covariance.structures:
        own = [n for p in structure.parameters for n in p.full_names()]
        if structure.signed:
            own = [n.replace("sd_", "var_", 1).replace("corr_", "cov_", 1) for n in own]
        names += own
    return names


def _sigma(model: LMM, natural: np.ndarray) -> float | xr.DataArray:
    """The sd of the independent error where there is one, else of the only component."""
    parts = list(zip(model.residual.parts, model.covariance.residual_slices(), strict=True))
    part, k = next((x for x in parts if x[0].diagonal), parts[0])
    values = natural[k][: part.scale.levels]
    if part.scale.labels is None:
        return float(values[0])
    dim = part.scale.dim or "level"
    return xr.DataArray(values, dims=dim, coords={dim: list(part.scale.labels)}, name=part.scale.name)


def subject_rows(model: LMM, subject: Any) -> np.ndarray:
    """Rows of a subject: a level of the residual's subject or of a grouping factor.

    Raises DataError for an unknown subject, and where several grouping factors have a level of that name.
    """
    design = model.design
    wanted = str(subject)
    if model.residual.subject_name and model.residual.subject_name in design.frame:
        values = design.frame[model.residual.subject_name].astype(str).to_numpy()
        if (values == wanted).any():
            return np.flatnonzero(values == wanted)
    found = [t for t in design.terms if wanted in set(t.levels.tolist())]
    if len(found) > 1:
        found = [t for t in found if t.group == model.residual.subject_name] or found[:1]
    if not found:
        groups = ", ".join(f"{t.group} ({t.levels[0]}, {t.levels[1]}, ...)" for t in design.terms)
        if not design.terms and not model.residual.subject_name:
            raise InferenceError("The model has no grouping factor, so there are no subjects.")
        raise DataError(f"No subject {wanted!r} in this fit; the grouping factors are {groups or model.residual.subject_name}.")
    term = found[0]
    return np.flatnonzero(term.codes == list(term.levels).index(wanted))
