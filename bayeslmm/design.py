"""Formula + table -> `Design`: the numbers (y, X, Z, codes) and the labels that both engines read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .aliases import columns_of
from .encoding import Encoding, fit_encoding
from .errors import DataError, DesignError
from .formula import Formula, parse
from .grouping import Term, make_terms
from .identifiability import check_rank, check_residual
from .table import Dropped, as_frame, complete_rows, describe, kind, note, require_finite


@dataclass(frozen=True, eq=False)
class Recipe:
    """What it takes to build the same columns from new data; `effects` holds, per term, one per bar."""

    response: Encoding
    fixed: Encoding
    effects: tuple[tuple[Encoding, ...], ...]
    offsets: tuple[Encoding, ...]


@dataclass(frozen=True, eq=False)
class Design:
    """The numbers and labels of a mixed model: y (n,), X (n, p), one `Term` per grouping factor.

    `frame` holds the kept rows with all columns of the user's table, numbered anew; `rows` are their
    positions in the user's table. `offset` is zero and `weights` one where none were given.
    """

    formula: Formula
    frame: pd.DataFrame
    rows: np.ndarray
    response: str
    y: np.ndarray
    X: np.ndarray
    coefs: tuple[str, ...]
    terms: tuple[Term, ...]
    offset: np.ndarray
    weights: np.ndarray
    dropped: Dropped
    encoding: Recipe


def make_design(
    formula: Formula | str, data: Any, *, weights: Any = None, extra_columns: Iterable[str] = ()
) -> Design:
    """Build the design of a formula on a table; rows with a missing value in a used column are left out.

    `weights` is the name of a column or an array with one positive number per row of `data`. `extra_columns`
    are read by others (a residual structure): they must exist, and a row that misses one is left out too.

    Raises
    ------
    FormulaError
        The text of the formula cannot be read.
    DataError
        The table does not fit the formula.
    DesignError
        The numbers cannot carry the model: see `check_rank`, and one group only, or an effect twice.
    """
    formula = parse(formula) if isinstance(formula, str) else formula
    table = as_frame(data)
    named = [weights] if isinstance(weights, str) else []
    kept, dropped = complete_rows(table, [*formula.columns, *named, *extra_columns])
    if dropped.rows:
        note(f"{dropped}.")
    rows = np.delete(np.arange(len(table)), dropped.positions)
    w = _weights(weights, kept, rows, len(table))
    y, response = _response(formula.response, kept)
    X, coefs, fixed = fit_encoding(formula.fixed, kept)
    check_rank(X, coefs)
    terms, effects = make_terms(formula.bars, kept)
    offset, offsets = _offset(formula.offsets, kept)
    check_residual(y - offset, X)
    return Design(
        formula=formula,
        frame=kept.reset_index(drop=True),
        rows=rows,
        response=response.labels[0],
        y=y,
        X=X,
        coefs=coefs,
        terms=terms,
        offset=offset,
        weights=w,
        dropped=dropped,
        encoding=Recipe(response, fixed, effects, offsets),
    )


def _weights(weights: Any, kept: pd.DataFrame, rows: np.ndarray, total: int) -> np.ndarray:
    if weights is None:
        return np.ones(len(kept))
    values = kept[weights] if isinstance(weights, str) else pd.Series(np.asarray(weights).ravel())
    name = f"weights column {weights!r}" if isinstance(weights, str) else "weights"
    if kind(values) != "number":
        raise DataError(f"{name} must be numbers, and holds {describe(values)}.")
    if not isinstance(weights, str):
        if len(values) != total:
            raise DataError(f"{name} has {len(values)} values for a table of {total} rows.")
        values = values.iloc[rows]
    out = np.array(values, dtype=float)
    require_finite(out, name, kept.index)
    if (out <= 0).any():
        row = kept.index[np.flatnonzero(out <= 0)[0]]
        raise DataError(f"{name} must be positive, which they are not in row {row}: leave such rows out.")

    return out


def _response(text: str, frame: pd.DataFrame) -> tuple[np.ndarray, Encoding]:
    y, encoding = _numeric(text, frame, "The response")
    if np.ptp(y) == 0:
        name = encoding.labels[0]
        raise DesignError(f"The response {name} is {y[0]:g} in every row: there is nothing to explain.")
    return y, encoding


def _offset(texts: Sequence[str], frame: pd.DataFrame) -> tuple[np.ndarray, tuple[Encoding, ...]]:
    fitted = [_numeric(text, frame, "The offset") for text in texts]
    total = np.sum([values for values, _ in fitted], axis=0) if fitted else np.zeros(len(frame))
    return total, tuple(encoding for _, encoding in fitted)


def _numeric(text: str, frame: pd.DataFrame, role: str) -> tuple[np.ndarray, Encoding]:
    """Evaluate an expression that must give one number per row."""
    for column in columns_of(text):
        if kind(frame[column]) != "number":
            raise DataError(f"{role} must be numeric, and {column!r} holds {describe(frame[column])}.")
    matrix, _, encoding = fit_encoding(f"0 + {text}", frame)
    return matrix[:, 0], encoding
