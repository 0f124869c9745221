"""Estimated marginal means: Xβ on a grid of factor levels, averaged over the factors that are not asked for.

The reference grid crosses the levels of every factor of the fixed part; numeric columns stand at their mean, or where
`at` puts them. A mean is the average of the rows of the grid with equal weights (Searle, Speed and Milliken 1980).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..errors import InferenceError
from .inference import contrast_table, wald_of

if TYPE_CHECKING:
    from ..results import Fit


def reference_grid(fit: Fit, at: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """One row a combination of factor levels and of the values in `at`; other numeric columns at their mean."""
    design = fit.model.design
    encoding = design.encoding.fixed
    at = {k: np.atleast_1d(v).tolist() for k, v in (at or {}).items()}
    unknown = [k for k in at if k not in encoding.columns]
    if unknown:
        raise InferenceError(f"at={unknown[0]!r}: the fixed part reads {', '.join(encoding.columns)} only.")
    values = {}
    for column in encoding.columns:
        if column in at:
            values[column] = at[column]
        elif column in encoding.factors:
            values[column] = list(encoding.factors[column])
        else:
            values[column] = [float(design.frame[column].mean())]
    return pd.DataFrame(list(product(*values.values())), columns=list(values))


def marginal_means(
    fit: Fit, of: str | Sequence[str], *, at: Mapping[str, Any] | None, df: str | None, level: float, information: str | None
) -> pd.DataFrame:  # fmt: skip
    """A row for each combination of the columns `of`: estimate, se, df, statistic, p, lower, upper."""
    columns, grid, L = _averages(fit, of, at)
    labels = [", ".join(map(str, row)) for row in grid.itertuples(index=False)]
    table = contrast_table(wald_of(fit, df, information), L, np.zeros(len(L)), labels, fit.beta.values, level)
    return table.rename_axis(", ".join(columns))


def pairwise_contrasts(
    fit: Fit, of: str, *, by: str | Sequence[str] | None, at: Mapping[str, Any] | None, df: str | None, level: float,
    information: str | None,
) -> pd.DataFrame:  # fmt: skip
    """Later minus earlier level of `of`, for each pair and each combination of the columns `by`."""
    by = [by] if isinstance(by, str) else list(by or [])
    _, grid, L = _averages(fit, [*by, of], at)
    rows, labels = [], []
    for key, part in grid.groupby(by, sort=False, observed=True) if by else [((), grid)]:
        for i, j in combinations(part.index, 2):
            rows.append(L[j] - L[i])
            where = " | " + ", ".join(f"{b} = {k}" for b, k in zip(by, key, strict=True)) if by else ""
            labels.append(f"{grid.loc[j, of]} - {grid.loc[i, of]}{where}")
    if not rows:
        raise InferenceError(f"{of!r} has one level only: there is nothing to compare.")
    tests = wald_of(fit, df, information)
    table = contrast_table(tests, np.array(rows), np.zeros(len(rows)), labels, fit.beta.values, level)
    return table.rename_axis("contrast")


def _averages(fit: Fit, of: str | Sequence[str], at) -> tuple[list[str], pd.DataFrame, np.ndarray]:
    columns = [of] if isinstance(of, str) else list(of)
    encoding = fit.model.design.encoding.fixed
    missing = [c for c in columns if c not in encoding.columns]
    if missing:
        raise InferenceError(f"{missing[0]!r} is no column of the fixed part; it reads {', '.join(encoding.columns)}.")
    flat = [c for c in columns if c not in encoding.factors and c not in (at or {})]
    if flat:
        raise InferenceError(f"{flat[0]!r} is numeric: say at which values, as in at={{{flat[0]!r}: [0, 1]}}.")
    full = reference_grid(fit, at)
    X = encoding.apply(full)
    place = full.groupby(columns, sort=False, observed=True).ngroup().to_numpy()
    L = np.array([X[place == i].mean(axis=0) for i in range(place.max() + 1)])
    return columns, full[columns].drop_duplicates().reset_index(drop=True), L
