"""Tables of inference about β: from a fit and a df method to labelled rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd
from scipy import stats

from ..contrasts import sum_coded
from ..errors import InferenceError
from ..kernel.estimate import range_boundary
from ..kernel.information import estimated_parameters
from .constraints import constraints
from .degrees import counted_df
from .wald import Wald, check_method, wald

if TYPE_CHECKING:
    from ..results import Fit


class RowTests(Protocol):
    """What a table of t tests reads: a covariance of β̂ and the df of a row."""

    @property
    def method(self) -> str: ...

    @property
    def covariance(self) -> np.ndarray: ...

    def df_of(self, row: np.ndarray, /) -> float: ...


def default_df(fit: Fit) -> str:
    return "kenward-roger" if fit.method == "REML" else "satterthwaite"


def wald_of(fit: Fit, df: str | None, information: str | None = None, singular: str = "drop") -> Wald:
    """The tests of a fit under a df method; information defaults to what the method's authors use."""
    df = check_method(df or default_df(fit))
    information = information or ("observed" if df == "satterthwaite" else "expected")
    found, blocks = fit.estimate, fit.estimate.blocks
    back = blocks.y_scale * np.linalg.inv(blocks.basis)
    keep = counted_as_estimated(fit, singular)
    counted = counted_df(fit.model.design, df)
    return wald(
        found.evaluation, back, df, information=information, keep=keep, counted=counted, reml=fit.method == "REML"
    )


def counted_as_estimated(fit: Fit, singular: str) -> np.ndarray:
    """`estimated_parameters` without ranges beyond the data, where the likelihood is flat: they count as known."""
    covariance, θ = fit.model.covariance, fit.estimate.θ
    keep = estimated_parameters(covariance, θ / fit.estimate.blocks.unit, singular)
    residual = fit.model.residual
    parts = zip(residual.parts, residual.rows, covariance.residual_slices(), strict=True)
    flat = [k.stop - 1 for part, rows, k in parts if rows.time is not None and range_boundary(part, rows.time, θ[k])]
    return np.setdiff1d(keep, flat)


def coefficient_table(
    fit: Fit, df: str | None, *, level: float, information: str | None, singular: str
) -> pd.DataFrame:
    """estimate, se, df, statistic, p, lower, upper for every coefficient."""
    tests = wald_of(fit, df, information, singular)
    rows = np.eye(len(fit.beta))
    return contrast_table(tests, rows, np.zeros(len(rows)), list(fit.model.design.coefs), fit.beta.values, level)


def contrast_table(
    tests: RowTests, L: np.ndarray, rhs: np.ndarray, labels: list[str], beta, level: float
) -> pd.DataFrame:
    """One t test a row of L."""
    if not 0 < level < 1:
        raise InferenceError(f"level={level!r}: an interval's level lies between 0 and 1, such as 0.95.")
    estimate = L @ beta
    se = np.sqrt(np.einsum("ra,ab,rb->r", L, tests.covariance, L))
    ν = np.array([tests.df_of(l) for l in L])
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (estimate - rhs) / se
    reference = stats.t(np.where(np.isfinite(ν), ν, 1e300))
    half = reference.ppf((1 + level) / 2) * se
    columns = {"estimate": estimate, "se": se, "df": ν, "statistic": t, "p": 2 * reference.sf(np.abs(t)),
               "lower": estimate - half, "upper": estimate + half}  # fmt: skip
    table = pd.DataFrame(columns, index=pd.Index(labels, name="coef"))
    table.attrs = {"df": tests.method, "level": level}
    return table


def test_hypothesis(fit: Fit, hypothesis, df: str | None, *, information: str | None, singular: str) -> pd.Series:
    """F test of Lβ = c."""
    design = fit.model.design
    L, c = constraints(hypothesis, design.coefs, design.encoding.fixed.terms)
    tests = wald_of(fit, df, information, singular)
    found = tests.test(L, c, fit.beta.values)
    return pd.Series(
        {"statistic": found.statistic, "ndf": found.ndf, "ddf": found.ddf, "scale": found.scale, "p": found.p,
         "method": tests.method},
        name=hypothesis if isinstance(hypothesis, str) else "Lβ = 0",
    )  # fmt: skip


def anova(fit: Fit, type: int, df: str | None, *, information: str | None) -> pd.DataFrame:
    """One F test a term of the fixed part."""
    tests = wald_of(fit, df, information)
    rows = {}
    for term, L in anova_hypotheses(fit, type).items():
        found = tests.test(L, np.zeros(len(L)), fit.beta.values)
        rows[term] = {
            "statistic": found.statistic,
            "ndf": found.ndf,
            "ddf": found.ddf,
            "scale": found.scale,
            "p": found.p,
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index.name = "term"
    table.attrs = {"df": tests.method, "type": type}
    return table


def anova_hypotheses(fit: Fit, type: int) -> dict[str, np.ndarray]:
    """L of each term's hypothesis; types as SAS and lmerTest define them."""
    design = fit.model.design
    terms = {name: list(columns) for name, columns in design.encoding.fixed.terms.items()}
    tested = [name for name in terms if name != "Intercept"]
    if type == 3:
        return {name: L for name, L in _type3(design, terms).items() if name in tested}
    if type not in (1, 2):
        raise InferenceError(f"type={type!r}: sums of squares are of type 1, 2 or 3.")
    order = list(terms)
    out = {}
    for name in tested:
        if type == 1:
            after = order[order.index(name) + 1 :]
        else:
            after = [t for t in order if t != name and _contains(t, name, design.encoding.fixed.factors)]
        before = [c for t in order if t != name and t not in after for c in terms[t]]
        out[name] = _adjusted_rows(design.X, terms[name], before, [c for t in after for c in terms[t]])
    return out


def _adjusted_rows(X: np.ndarray, own: list[int], before: list[int], after: list[int]) -> np.ndarray:
    """The estimable function of a term adjusted for `before` and ignoring `after`: X_E'M[X_E, X_after]."""
    Q = np.linalg.qr(X[:, before])[0] if before else np.zeros((len(X), 0))
    rest = X - Q @ (Q.T @ X)
    L = np.zeros((len(own), X.shape[1]))
    L[:, own + after] = rest[:, own].T @ rest[:, own + after]
    return L / np.abs(L).max(axis=1, keepdims=True)


def _factors_of(term: str) -> set[str]:
    parts, depth, start = [], 0, 0
    for i, ch in enumerate(term):
        depth += (ch == "(") - (ch == ")")
        if ch == ":" and depth == 0:
            parts.append(term[start:i])
            start = i + 1
    return {*parts, term[start:]}


def _contains(larger: str, smaller: str, factors) -> bool:
    """Whether `larger` is `smaller` crossed with categorical factors only (SAS's definition)."""
    if smaller == "Intercept":
        return False
    a, b = _factors_of(larger), _factors_of(smaller)
    return b < a and all(x in factors or x.startswith("C(") for x in a - b)


def _type3(design, terms) -> dict[str, np.ndarray]:
    """Coefficients under sum-to-zero contrasts, in terms of the model's own coefficients: β_sum = Tβ."""
    X_sum, sum_terms = sum_coded(design.encoding.fixed, design.frame)
    T = np.linalg.lstsq(X_sum, design.X, rcond=None)[0]
    if np.abs(X_sum @ T - design.X).max() > 1e-8 * np.abs(design.X).max():
        raise InferenceError(
            "Type 3 tests need a model that spans the same means under sum-to-zero contrasts: use type=2."
        )
    return {name: T[list(columns)] for name, columns in sum_terms.items() if name in terms}
