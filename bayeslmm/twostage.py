"""Two stages: a regression for each subject, then a regression of its coefficients between subjects.

    Y_i = X_i⁽¹⁾β_i + ε_i,     β_i = X_i⁽²⁾β + b_i                                  (lecture 7)

Stage 1 is least squares for each subject on its own. Stage 2 regresses all estimated coefficients on the
subjects' covariates: B = AΓ + E, Γ̂ = (A'A)⁻¹A'B, Cov(vec Γ̂) = Σ ⊗ (A'A)⁻¹. It weighs every subject alike,
whatever its number of measurements, and Σ̂ holds the errors of stage 1 beside the variance of b_i. A mixed
model does both stages at once, with the subjects that stage 1 has to leave out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from .encoding import fit_encoding
from .errors import DataError, DesignError, FormulaError, InferenceError
from .formula import Formula, parse
from .grouping import group_labels
from .identifiability import check_rank
from .model import LMM
from .table import as_frame, complete_rows, note

if TYPE_CHECKING:
    from .results import Fit

_RANK = 1e-9  # a singular value of a subject's X below this share of the largest is zero


@dataclass(frozen=True, eq=False, repr=False)
class TwoStage:
    """Both stages.

    coefficients, se: stage 1, subjects x coefficients (missing where not estimable); rows: of each subject;
    not_estimable: why, by subject, where stage 1 has no answer; sigma: pooled sd within subjects; table:
    stage 2, by coefficient and covariate: estimate, se, df, statistic, p, lower, upper; between: Σ̂; G: Σ̂
    less the mean covariance of the errors of stage 1, an estimate of Var(b_i) that need not be positive
    definite.
    """

    formula: str
    subject: str
    coefficients: pd.DataFrame
    se: pd.DataFrame
    rows: pd.Series
    not_estimable: dict[str, str]
    sigma: float
    table: pd.DataFrame
    between: pd.DataFrame
    G: pd.DataFrame
    model: LMM

    def lmm(self, method: str = "REML") -> Fit:
        """The mixed model that does both stages at once, fitted to all subjects."""
        return self.model.fit(method)

    def beside(self, fit: Fit | None = None) -> pd.DataFrame:
        """Stage 2 beside the mixed model: estimate and se of both, by coefficient and covariate.

        fit: another fit, in the place of `lmm()`. Raises InferenceError where it lacks a coefficient.
        """
        fit = self.lmm() if fit is None else fit
        other = {frozenset(_parts(name)): name for name in fit.model.design.coefs}
        keys = [frozenset({*_parts(a), *_parts(b)} - {"Intercept"} or {"Intercept"}) for a, b in self.table.index]
        missing = next((pair for key, pair in zip(keys, self.table.index, strict=True) if key not in other), None)
        if missing is not None:
            raise InferenceError(
                f"The mixed model has no coefficient for {missing[0]} by {missing[1]}; it has "
                f"{', '.join(other.values())}."
            )
        names = [other[key] for key in keys]
        se = np.sqrt(np.diag(fit.cov_beta.values))
        at = [fit.model.design.coefs.index(n) for n in names]
        columns = {("two stages", "estimate"): self.table["estimate"], ("two stages", "se"): self.table["se"]}
        out = pd.DataFrame(columns)
        out["mixed model", "estimate"], out["mixed model", "se"] = fit.beta.values[at], se[at]
        return out

    def __repr__(self) -> str:
        N = len(self.coefficients)
        lines = [f"Two stages: {self.formula}", f"  {N - len(self.not_estimable)} of {N} subjects in stage 2"]
        lines += [f"  left out: {name}: {why}" for name, why in self.not_estimable.items()]
        return "\n".join([*lines, f"  sd within subjects {self.sigma:.4g}", "", self.table.to_string()])


def _parts(name: str) -> list[str]:
    return name.split(":")


def two_stage(formula_within: str, formula_between: str, data: Any, *, subject: str, level: float = 0.95) -> TwoStage:
    """Fit a regression to each subject, then regress the coefficients on covariates of the subjects.

    formula_within: such as "distance ~ age"; formula_between: such as "~ Sex", or "~ 1"; subject: the column
    that names subjects; level: of the intervals. A subject with fewer rows than coefficients, or whose rows
    cannot tell them apart, is named in a note and in `not_estimable`.

    Raises
    ------
    FormulaError, DataError
        A formula or the table does not fit; a covariate of stage 2 varies within a subject.
    DesignError
        Fewer subjects are left than stage 2 has coefficients and one.
    """
    within = _fixed_only(formula_within)
    between = _fixed_only(f"{within.response} ~ {formula_between.split('~')[-1]}")
    frame, _ = complete_rows(as_frame(data), [*within.columns, *between.columns, subject])
    labels = group_labels(frame, (subject,))
    codes, subjects = pd.factorize(labels, sort=False)
    X, names, _ = fit_encoding(within.fixed, frame)
    check_rank(X, names)
    y = fit_encoding(f"0 + {within.response}", frame)[0][:, 0]
    first = _stage1(y, X, codes, len(subjects))
    A, covariates = _covariates(between, frame, codes, subject, subjects)
    reasons = {str(subjects[i]): _why(int(first.rows[i]), len(names)) for i in np.flatnonzero(~first.estimable)}
    if reasons:
        listed = "; ".join(f"{name} ({why})" for name, why in list(reasons.items())[:10])
        note(f"{len(reasons)} of {len(subjects)} subjects have no first stage and are left out: {listed}.")
    used = first.estimable
    if used.sum() <= A.shape[1]:
        raise DesignError(
            f"Stage 2 has {A.shape[1]} coefficients and stage 1 has estimates of {int(used.sum())} "
            "subjects: nothing is left for the variance between subjects. Take a simpler formula_between "
            "or formula_within, or a mixed model."
        )
    check_rank(A[used], covariates)
    table, Σ = _stage2(first.B[used], A[used], names, covariates, level)
    index, columns = pd.Index(subjects, name=subject), list(names)
    B, se = (pd.DataFrame(np.where(used[:, None], x, np.nan), index, columns) for x in (first.B, first.se))
    errors = first.sigma**2 * first.inverse[used].mean(axis=0)
    text = f"{within.response} ~ ({within.fixed}) * ({between.fixed}) + ({within.fixed} | {subject})"
    return TwoStage(
        formula=f"{formula_within.strip()}, then {formula_between.strip()}",
        subject=subject,
        coefficients=B,
        se=se,
        rows=pd.Series(first.rows, index, name="rows"),
        not_estimable=reasons,
        sigma=first.sigma,
        table=table,
        between=pd.DataFrame(Σ, columns, columns),
        G=pd.DataFrame(Σ - errors, columns, columns),
        model=LMM(text, frame),
    )


def _fixed_only(text: str) -> Formula:
    formula = parse(text)
    if formula.bars or formula.offsets:
        raise FormulaError(f"{text!r}: the stages are ordinary regressions, without bars and offsets.")
    return formula


def _why(rows: int, needed: int) -> str:
    if rows < needed:
        return f"{rows} row{'s' * (rows != 1)} for {needed} coefficients"
    return f"its {rows} rows cannot tell {needed} coefficients apart"


@dataclass(frozen=True)
class _First:
    """Least squares of each subject: B, se (N, p), (X'X)⁻¹ (N, p, p), estimable, rows (N,), pooled sigma."""

    B: np.ndarray
    se: np.ndarray
    inverse: np.ndarray
    estimable: np.ndarray
    rows: np.ndarray
    sigma: float


def _stage1(y: np.ndarray, X: np.ndarray, codes: np.ndarray, N: int) -> _First:
    n, p = X.shape
    scale = np.sqrt(np.mean(X**2, axis=0))
    center = float(y.mean())
    Z = X / scale
    gram, cross = np.zeros((N, p, p)), np.zeros((N, p))
    np.add.at(gram, codes, Z[:, :, None] * Z[:, None, :])
    np.add.at(cross, codes, Z * (y - center)[:, None])
    rows = np.bincount(codes, minlength=N)
    values = np.linalg.eigvalsh(gram)
    estimable = (rows >= p) & (values[:, 0] > _RANK * values[:, -1])
    inverse = np.zeros_like(gram)
    inverse[estimable] = np.linalg.inv(gram[estimable])
    B = (inverse @ cross[..., None])[..., 0]
    error = np.where(estimable[codes], y - center - np.einsum("np,np->n", Z, B[codes]), 0.0)
    surplus = int((rows - p)[estimable].sum())
    sigma = float(np.sqrt(error @ error / surplus)) if surplus else np.nan
    # the fit to y - center is moved back by the coefficients of a constant, where the columns hold one
    constant = np.linalg.lstsq(Z, np.ones(n), rcond=None)[0]
    if np.abs(Z @ constant - 1).max() < 1e-9:
        B = B + center * constant
    else:
        B = B + center * (inverse @ _sums(Z, codes, N)[..., None])[..., 0]
    own = inverse / np.outer(scale, scale)
    se = sigma * np.sqrt(np.einsum("npp->np", own))
    return _First(B / scale, se, own, estimable, rows, sigma)


def _sums(Z: np.ndarray, codes: np.ndarray, N: int) -> np.ndarray:
    out = np.zeros((N, Z.shape[1]))
    np.add.at(out, codes, Z)
    return out


def _covariates(between: Formula, frame: pd.DataFrame, codes: np.ndarray, subject: str, subjects):
    """A (N, r) of the subjects and its labels."""
    first = np.unique(codes, return_index=True)[1]
    for column in between.columns[1:] if between.columns[0] == between.response else between.columns:
        values, _ = pd.factorize(frame[column])
        varies = np.flatnonzero(values != values[first][codes])
        if varies.size:
            name = subjects[codes[varies[0]]]
            raise DataError(
                f"{column!r} varies within {subject} {name}, and stage 2 has one value a subject: move it "
                "to formula_within."
            )
    A, names, _ = fit_encoding(between.fixed, frame.iloc[first])
    return A, names


def _stage2(B: np.ndarray, A: np.ndarray, names, covariates, level: float) -> tuple[pd.DataFrame, np.ndarray]:
    if not 0 < level < 1:
        raise InferenceError(f"level={level!r}: an interval's level lies between 0 and 1, such as 0.95.")
    inverse = np.linalg.inv(A.T @ A)
    Γ = inverse @ A.T @ B
    df = len(A) - A.shape[1]
    E = B - A @ Γ
    Σ = E.T @ E / df
    estimate = Γ.T.ravel()
    se = np.sqrt(np.outer(np.diag(Σ), np.diag(inverse))).ravel()
    half = stats.t.ppf((1 + level) / 2, df) * se
    with np.errstate(divide="ignore", invalid="ignore"):
        t = estimate / se
    index = pd.MultiIndex.from_product([names, covariates], names=["coefficient", "covariate"])
    columns = {
        "estimate": estimate,
        "se": se,
        "df": float(df),
        "statistic": t,
        "p": 2 * stats.t.sf(np.abs(t), df),
        "lower": estimate - half,
        "upper": estimate + half,
    }
    return pd.DataFrame(columns, index=index), Σ
