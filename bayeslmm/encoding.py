"""Expressions + table -> numeric columns with labels, and the same columns again for new data.

formulaic does the coding: full rank by structure, contrasts, transforms that remember their state. It is
shown only columns under names of ours and the functions of the list, so that neither a column called `log`
nor a variable of the caller can change what an expression means.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from formulaic import ModelSpec
from formulaic.errors import FormulaicError
from formulaic.transforms import TRANSFORMS

from .aliases import Source, aliased, columns_of, marked, restored
from .errors import DataError
from .table import describe, kind, require_columns, require_finite
from .tokens import tokenize

_NUMPY = ("log", "log2", "log10", "log1p", "exp", "sqrt", "sin", "cos", "abs")
_CONTEXT: Mapping[str, Any] = {
    **{name: getattr(np, name) for name in _NUMPY},
    **{name: TRANSFORMS[name] for name in ("I", "C", "center", "scale", "poly", "bs", "cr", "cc", "contr")},
    "pi": np.pi,
}


@dataclass(frozen=True, eq=False)
class Encoding:
    """How a right-hand side becomes columns: the labels, and the state fixed by the first table.

    `terms` maps the label of each term to the indices of its columns, `factors` each categorical column to
    its levels.
    """

    rhs: str
    labels: tuple[str, ...]
    terms: dict[str, tuple[int, ...]]
    factors: dict[str, tuple[Any, ...]]
    columns: tuple[str, ...]
    sources: tuple[Source, ...]
    spec: ModelSpec | None

    def apply(self, frame: pd.DataFrame) -> np.ndarray:
        """Make the same columns (n, k) from new data, with the levels and transforms of the first table.

        Raises
        ------
        DataError
            A column is absent, missing a value or of another type, or a level was not in the first table.
        """
        require_columns(frame, self.columns)
        if self.spec is None:
            return np.empty((len(frame), 0))
        shown = shown_table(frame, self.sources)
        return make_columns(self.rhs, self.spec, shown, frame.index, self.labels)[0]


def fit_encoding(rhs: str, frame: pd.DataFrame) -> tuple[np.ndarray, tuple[str, ...], Encoding]:
    """Turn a right-hand side of `Formula` into columns (n, k), their labels, and the recipe for new data.

    Text, booleans and categories are factors, their levels in the order of the categories or sorted; levels
    that do not occur are left out, as R does. Ordered categories get treatment contrasts like the others.

    Raises
    ------
    DataError
        A column is absent or of the wrong type, or an expression is not finite everywhere.
    """
    text, places = aliased(tokenize(rhs))
    names = columns_of(rhs)
    require_columns(frame, names)
    sources = tuple(_source(frame[column], column, place, alias) for (column, place), alias in places.items())
    factors = {source.column: source.levels for source in sources if source.levels is not None}
    if rhs == "0":
        return np.empty((len(frame), 0)), (), Encoding(rhs, (), {}, {}, (), (), None)
    matrix, spec = make_columns(rhs, text, shown_table(frame, sources), frame.index, None)
    labels = tuple(restored(str(name), sources) for name in spec.column_names)
    require_all_finite(matrix, labels, frame.index)
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise DataError(
            f"Two columns of {rhs!r} would both be called {twice!r}: rename a column of the table."
        )
    terms = {restored(str(term), sources): tuple(at) for term, at in spec.term_indices.items() if at}
    terms = {"Intercept" if term == "1" else term: at for term, at in terms.items()}
    return matrix, labels, Encoding(rhs, labels, terms, factors, names, sources, spec)


def require_all_finite(matrix: np.ndarray, labels: tuple[str, ...], index: pd.Index) -> None:
    """Check every column of a matrix with `require_finite`."""
    if not np.isfinite(matrix).all():
        for values, label in zip(matrix.T, labels, strict=True):
            require_finite(values, label, index)


def _source(series: pd.Series, column: str, place: str, alias: str) -> Source:
    what = kind(series)
    if what == "factor" or place == "factor":
        if place == "number":
            raise DataError(f"{column!r} holds {describe(series)}, where the formula calculates with it.")
        levels = levels_of(series, column)
        if len(levels) >= len(series):
            hint = " Is it a number that was read as text?" if what == "factor" else ""
            raise DataError(
                f"The factor {column!r} has a level of its own in each of {len(series)} rows.{hint}"
            )
        return Source(alias, column, levels)
    _require_number(series, column)
    return Source(alias, column, None)


def _require_number(series: pd.Series, column: str) -> None:
    if kind(series) != "number":
        hint = ""
        if kind(series) == "date":
            hint = " Make it a number first, such as days since the start."
        raise DataError(f"{column!r} holds {describe(series)}, and a number is needed.{hint}")


def levels_of(series: pd.Series, column: str) -> tuple[Any, ...]:
    """Return the levels that occur: in the order of the categories, else sorted; whole floats as integers.

    Raises
    ------
    DataError
        The column holds values that cannot be sorted, such as a mixture of text and numbers.
    """
    if isinstance(series.dtype, pd.CategoricalDtype):
        used = series.cat.remove_unused_categories().cat.categories
        return tuple(used.tolist())
    if kind(series) == "other":
        raise DataError(
            f"{column!r} holds {describe(series)}, which cannot be levels of a factor: make it text."
        )
    if kind(series) == "date":
        return tuple(sorted(series.dropna().unique()))  # tolist() turns some dates into integers
    return tuple(_whole(np.sort(series.dropna().unique())).tolist())


def _whole(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "f" and np.isfinite(values).all() and (values == np.round(values)).all():
        return values.astype(np.int64)
    return values


def shown_table(frame: pd.DataFrame, sources: tuple[Source, ...]) -> pd.DataFrame:
    """Return the table as formulaic is to see it: one checked column for each source, under its alias."""
    return pd.DataFrame({s.alias: _shown(frame, s) for s in sources}, index=range(len(frame)))


def _shown(frame: pd.DataFrame, source: Source) -> Any:
    """Return one column as formulaic is to see it: floats, or a categorical with the known levels."""
    series = frame[source.column]
    _require_present(series, source.column)
    if source.levels is None:
        _require_number(series, source.column)
        values = np.array(series, dtype=float)
        require_finite(values, source.column, frame.index)
        return values
    known = pd.Index(source.levels, dtype=object)
    codes = codes_of(series, known)
    if (codes < 0).any():
        new = ", ".join(repr(value) for value in series[codes < 0].unique()[:5].tolist())
        listed = ", ".join(repr(level) for level in source.levels[:30])
        raise DataError(f"{source.column!r} has unseen levels: {new}. The model knows {listed}.")
    return pd.Categorical.from_codes(codes, categories=[marked(level) for level in source.levels])


def codes_of(series: pd.Series, known: pd.Index) -> np.ndarray:
    """Return the position of each value among the known levels, -1 if it is none of them."""
    codes, values = pd.factorize(series)
    places = known.get_indexer(pd.Index(np.asarray(values, dtype=object)))
    return np.append(places, -1)[codes]


def _require_present(series: pd.Series, column: str) -> None:
    missing = np.flatnonzero(series.isna())
    if missing.size:
        rows = ", ".join(str(label) for label in series.index[missing[:5]])
        raise DataError(f"{column!r} is missing in {missing.size} rows (row {rows}).")


def make_columns(
    rhs: str, spec: ModelSpec | str, shown: pd.DataFrame, index: pd.Index, labels: tuple[str, ...] | None
) -> tuple[np.ndarray, ModelSpec]:
    """Let formulaic make the columns, in a namespace of ours, and check what comes back."""
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("error")
            if isinstance(spec, str):
                spec = ModelSpec.from_spec(spec, output="numpy", na_action="ignore", ensure_full_rank=True)
            made = spec.get_model_matrix(shown, context=_CONTEXT)
    except (FormulaicError, Warning, ArithmeticError, ValueError, TypeError, KeyError) as error:
        cause = error.__cause__ or error
        raise DataError(f"{rhs!r} cannot be evaluated on this table: {cause}") from error
    matrix = np.array(made, dtype=float)
    if matrix.shape[0] != len(shown):
        raise DataError(f"{rhs!r} gave {matrix.shape[0]} rows for a table of {len(shown)}.")
    if labels is not None:
        require_all_finite(matrix, labels, index)
    return matrix, made.model_spec
