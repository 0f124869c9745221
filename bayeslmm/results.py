"""The marginal fit with its labels: what `model.fit()` returns. The work is done in `marginal/`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from .errors import DataError, InferenceError
from .explained import explained_of_fit
from .kernel.estimate import Convergence, Estimate, estimate
from .marginal.bootstrap import Bootstrap, bootstrap, simulated
from .marginal.covariances import subject_covariance
from .marginal.covtest import covtest
from .marginal.criteria import criteria
from .marginal.inference import anova, coefficient_table, test_hypothesis
from .marginal.influence import Influence, influence
from .marginal.intervals import confint
from .marginal.means import marginal_means, pairwise_contrasts
from .marginal.prediction import Options, predict
from .marginal.random_effects import RandomEffects, random_effects
from .marginal.residuals import autocorrelation, residuals
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

    def means(self, of: str | Sequence[str], *, at: Mapping[str, Any] | None = None, df: str | None = None,
              level: float = 0.95, information: str | None = None) -> pd.DataFrame:  # fmt: skip
        """Estimated marginal means of the levels of `of`, the other factors averaged with equal weights.

        at: values of numeric columns, else their means. Columns as in `summary`.
        """
        return marginal_means(self, of, at=at, df=df, level=level, information=information)

    def contrasts(self, of: str, *, by: str | Sequence[str] | None = None, at: Mapping[str, Any] | None = None,
                  df: str | None = None, level: float = 0.95, information: str | None = None) -> pd.DataFrame:  # fmt: skip
        """Differences of marginal means, each later level minus each earlier one, within the levels of `by`."""
        return pairwise_contrasts(self, of, by=by, at=at, df=df, level=level, information=information)

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

    def explained_variance(self) -> pd.Series:
        """R² marginal and conditional, and the intraclass correlation of each grouping factor, at the estimates."""
        return explained_of_fit(self)

    def predict(self, newdata: Any = None, *, level: str = "subject", what: str = "mean", se: bool = True,
                interval: float | None = None, df: str | None = None, condition_on: Any = None,
                information: str | None = None) -> pd.DataFrame:  # fmt: skip
        """Profiles μ̂(t) + Û + Ŵ(t) at the rows of newdata (the fit's own rows for None), indexed like them.

        Columns: prediction = fixed + random + serial; se with its parts, se² = se_beta² + se_w² + se_serial² +
        2 cov_w_serial + se_error² [+ var_theta]; df, lower, upper where asked for.

        level: "subject", given the subject's measurements in the fit and those in `condition_on` (a table with the
        response; β̂ stays as fitted), or with its prior w ~ N(0, G) where there are none; "population" for Xβ̂, whose
        se is that of Xβ̂ (what="mean") or of a new subject's measurement around it (what="response"). Subjects are
        compared as text: 308 is "308". what: "mean" is the profile with its serial process and without measurement
        error, "response" a new measurement, with an error of its own; where the model has no measurement error
        (`Unstructured` alone) both interpolate the data, and a new row at an observed place has se 0. Known weights
        count as 1 in new rows.
        interval: a level such as 0.9, with normal quantiles or, for a df method, those of t. df: as in `summary`;
        "satterthwaite" for the whole prediction variance; "kenward-roger" also adds var_theta, what estimating the
        variance parameters costs (Kackar and Harville 1984; Prasad and Rao 1990). information: as in `summary`.
        """
        return predict(self, newdata, condition_on, Options(level, what, se, interval, df, information))

    def random_effects(self) -> RandomEffects:
        """EBLUPs of every grouping factor with their conditional variance (β as known: lme4's condVar) and their
        prediction error variance (β estimated: Henderson); `.table()`, `.plot()`, or a Dataset a group.
        """
        return random_effects(self)

    def residuals(self, kind: str = "conditional") -> pd.Series:
        """y - Xβ̂ - Zŵ ("conditional"), y - Xβ̂ ("marginal"), L⁻¹(y - Xβ̂) with V = LL' ("standardized"), or the
        conditional ones divided by their √R_jj ("pearson").
        """
        return residuals(self, kind)

    def autocorrelation(self, kind: str = "standardized", max_lag: int | None = None) -> pd.DataFrame:
        """Correlation of residuals by lag within subjects, in the order of time, with the bound of chance."""
        return autocorrelation(self, kind, max_lag)

    def covtest(self, information: str = "observed") -> pd.DataFrame:
        """Wald z tests of variances and covariances (SAS: covtest): estimate, se, statistic, p, lower, upper, note.

        information: "observed" (as SAS) or "expected". The note says where the test means nothing.
        """
        return covtest(self, information)

    def confint(self, method: str = "wald", level: float = 0.95, *, df: str | None = None,
                information: str = "observed", **options: Any) -> pd.DataFrame:  # fmt: skip
        """Intervals of coefficients and variance parameters (natural scale): estimate, lower, upper.

        method: "wald" (t for coefficients with the df method `df`; log for standard deviations and ranges, Fisher's z
        for correlations), "profile" (coefficients by ML) or "bootstrap" (percentiles; takes n, seed, workers, progress).
        """
        return confint(self, method, level, df=df, information=information, options=options)

    def influence(self, by: str = "subject", method: str = "exact") -> Influence:
        """The fit without each subject, row, or level of a factor: Cook's distance, DFBETAS, COVRATIO, estimates.

        method: "exact" (every variance parameter estimated anew), "one-step" (one Newton step of them) or
        "conditional" (held at their estimates).
        """
        return influence(self, by, method)

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
        cov_beta=xr.DataArray(
            found.cov_beta, dims=("coef", "coef_"), coords={"coef": coefs, "coef_": coefs}, name="cov_beta"
        ),
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
        raise DataError(
            f"No subject {wanted!r} in this fit; the grouping factors are {groups or model.residual.subject_name}."
        )
    term = found[0]
    return np.flatnonzero(term.codes == list(term.levels).index(wanted))
