"""The numbers behind the pictures of subjects: least squares by subject, fitted lines, what to show."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..design import Design, Term
from ..model import LMM

_MOST_LEVELS = 12


def least_squares_by_group(term: Term, r: np.ndarray) -> np.ndarray:
    """Regress r (n,) on Z (n, q) within each level: (N, q), nan where the columns are not independent."""
    N, q = len(term.levels), term.Z.shape[1]
    ZZ, Zr = np.zeros((N, q, q)), np.zeros((N, q))
    np.add.at(ZZ, term.codes, term.Z[:, :, None] * term.Z[:, None, :])
    np.add.at(Zr, term.codes, term.Z * r[:, None])
    size = np.sqrt(np.einsum("nqq->nq", ZZ))
    size = np.where(size > 0, size, 1.0)
    scaled = ZZ / (size[:, :, None] * size[:, None, :])
    estimable = np.linalg.eigvalsh(scaled)[:, 0] > 1e-9
    out = np.full((N, q), np.nan)
    out[estimable] = (
        np.linalg.solve(scaled[estimable], (Zr / size)[estimable][..., None])[..., 0] / size[estimable]
    )
    return out


def linear_predictor(design: Design, beta: np.ndarray, w: dict[str, np.ndarray]) -> np.ndarray:
    """offset + Xβ + Zw (n,) for the grouping factors in w, each (N, q)."""
    η = design.offset + design.X @ beta
    for term in design.terms:
        if term.group in w:
            η = η + np.einsum("nq,nq->n", term.Z, w[term.group][term.codes])
    return η


def choose_axis(model: LMM, codes: np.ndarray, x: str | None) -> tuple[np.ndarray, str, tuple[str, ...]]:
    """Values (n,), column and tick names of what subjects' profiles run along.

    The column named by `x`; else the first numeric column of a bar; else the residual's time column; else the
    first numeric column of the fixed part; else a factor of a few levels that varies within subjects; else
    the order of the rows within the subject (column "").
    """
    frame = model.design.frame
    column = x if x is not None else _best_column(model, codes)
    if not column:
        return pd.Series(codes).groupby(codes).cumcount().to_numpy(float) + 1, "", ()
    series = frame[column]
    if pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_bool_dtype(series):
        return series.to_numpy(float), column, ()
    category = series.astype("category").cat.remove_unused_categories().cat
    return category.codes.to_numpy(float), column, tuple(map(str, category.categories))


def _best_column(model: LMM, codes: np.ndarray) -> str:
    design, frame = model.design, model.design.frame
    bars = [c for encodings in design.encoding.effects for e in encodings for c in e.columns]
    residual = [p.column for p in model.residual.spec if p.column]
    fixed = list(design.encoding.fixed.columns)
    crossed = [c for t in design.terms for c in t.columns]
    candidates = list(dict.fromkeys([*bars, *residual, *fixed, *crossed]))
    within = [c for c in candidates if _varies_within(frame[c], codes)]
    numeric = [c for c in within if c not in crossed and _numeric(frame[c])]
    few = [c for c in within if not _numeric(frame[c]) and frame[c].nunique() <= _MOST_LEVELS]
    return next(iter([*numeric, *few]), "")


def _numeric(series: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_bool_dtype(series)


def _varies_within(series: pd.Series, codes: np.ndarray) -> bool:
    levels = pd.factorize(series)[0]
    return len(np.unique(np.column_stack([codes, levels]), axis=0)) > len(np.unique(codes))


def profile_subject(model: LMM) -> tuple[str, np.ndarray, tuple[str, ...]]:
    """Name, code of each row and labels of the unit whose profiles are drawn.

    The residual's subject; else the grouping factor with the most effects; among equals the one with most
    levels that are each seen three times or more, or the first.
    """
    design = model.design
    if model.residual.subject is not None and model.residual.subject_name:
        name = model.residual.subject_name
        term = next((t for t in design.terms if t.group == name), None)
        if term is not None:
            return name, term.codes, tuple(term.levels)
        codes, labels = pd.factorize(design.frame[name].astype(str), sort=True)
        return name, codes, tuple(map(str, labels))
    if not design.terms:
        return "", np.zeros(len(design.y), int), ("all rows",)
    long = [t for t in design.terms if len(t.codes) / len(t.levels) >= 4] or list(design.terms)
    term = max(long, key=lambda t: (len(t.effects), len(t.levels)))
    return term.group, term.codes, tuple(term.levels)


def evenly(count: int, most: int) -> np.ndarray:
    """At most `most` of `count` positions, the first, the last and evenly between."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))
