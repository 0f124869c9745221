"""Where the rows of a residual component stand: visits, times, levels and covariates, read from the table."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..encoding import codes_of, levels_of
from ..errors import CovarianceError, DataError
from ..grouping import level_text
from ..table import describe, kind, note, require_finite
from .correlation import Correlation


def levels_in(frame: pd.DataFrame, column: str) -> tuple[tuple[str, ...], np.ndarray]:
    """Levels that occur, as text, in the order of the categories or sorted, and the level of each row (n,).

    A category that no row has is left out, and a `DataNote` says so. Raises DataError for dates.
    """
    series = frame[column]
    if kind(series) == "date":
        raise DataError(
            f"{column!r} holds dates or times, of which every one would be a level of its own. Number the "
            "visits, or use Exponential over days since the start."
        )
    levels = levels_of(series, column)
    if isinstance(series.dtype, pd.CategoricalDtype) and len(series.cat.categories) > len(levels):
        empty = [str(x) for x in series.cat.categories if x not in set(levels)]
        note(
            f"{column!r} has no row at {_some(empty)}, which the residual structure leaves out: its levels "
            f"are {_some([level_text(x) for x in levels])}."
        )
    codes = codes_of(series, pd.Index(levels, dtype=object))
    return tuple(map(level_text, levels)), codes.astype(int)


def _some(names: list[str]) -> str:
    return ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")


def note_gaps(frame: pd.DataFrame, part: Correlation) -> None:
    """Say that visits with unequal distances count as equally far apart: true under AR1 and Toeplitz.

    Ante-dependence has a correlation of its own for each pair of neighbours, so that a gap does it no harm.
    """
    series = frame[part.column]
    if type(part).__name__ not in ("AR1", "Toeplitz") or kind(series) != "number":
        return
    visits = np.unique(series.to_numpy(float))
    steps = np.diff(visits)
    if steps.size and np.ptp(steps) > 1e-6 * steps.max():
        i = int(np.argmax(steps))
        note(
            f"{part} takes the {len(visits)} visits in their order, as neighbours at equal distances, and "
            f"{part.column!r} goes from {visits[i]:g} to {visits[i + 1]:g} in one step where its smallest "
            f"step is {steps.min():g}. Where the distances matter, Exponential({part.column!r}) is AR(1) in "
            "them."
        )


def times_of(frame: pd.DataFrame, part: Correlation) -> np.ndarray:
    """The time of each row (n,).

    Raises CovarianceError without a time column, DataError where it does not hold finite numbers.
    """
    name, column = type(part).__name__, part.column
    if column is None:
        raise CovarianceError(f"{name} needs its time column, as in {name}('time').")
    values = frame[column]
    what = kind(values)
    if what == "date":
        days = f"(data[{column!r}] - data[{column!r}].min()).dt.days"
        raise DataError(
            f"The time column {column!r} holds dates or times, and the range of {name} needs a unit. Turn "
            f"them into numbers, for example data[{column!r}] = {days}."
        )
    if what != "number":
        raise DataError(
            f"The time column {column!r} holds {describe(values)}, and {name} needs numbers. For ordered "
            "visits use AR1, Toeplitz or Unstructured."
        )
    times = values.to_numpy(float)
    require_finite(times, f"The time column {column!r}", values.index)
    return times


def log_covariate(frame: pd.DataFrame, part: Correlation) -> np.ndarray:
    """log x (n,) of the column whose power the standard deviation is.

    Raises CovarianceError where a value is not a positive finite number.
    """
    assert part.power is not None
    values = frame[part.power]
    if kind(values) != "number":
        raise CovarianceError(
            f"{part}: sd = σ·x^δ needs positive numbers, and {part.power!r} holds {describe(values)}."
        )
    x = values.to_numpy(float)
    bad = np.flatnonzero(~((x > 0) & np.isfinite(x)))
    if bad.size:
        raise CovarianceError(
            f"{part}: sd = σ·x^δ needs positive numbers, and {part.power!r} is {x[bad[0]]:g} in row "
            f"{values.index[bad[0]]} ({bad.size} such rows). Shift it, as in x + 1, or use by= for a "
            "standard deviation by level."
        )
    return np.log(x)


def order_of_rows(subject: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """(labels, position of each row (n,)) where no visit column is named: the order of a subject's rows."""
    position = pd.Series(subject).groupby(subject).cumcount().to_numpy()
    return tuple(map(str, range(1, position.max() + 2))), position
