"""Tables of any kind -> a pandas copy with plain types, checked, and with missing rows counted and named."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd

from .errors import DataError, DataNote

_DATES = {"date", "datetime", "datetime64", "time", "timedelta", "timedelta64", "period", "interval"}
_NUMBERS = {"integer", "floating", "mixed-integer-float", "decimal"}
_TABLES = "a pandas, polars or pyarrow table, or a dict of equally long columns"


@dataclass(frozen=True)
class Dropped:
    """The rows that were left out because a used column is missing there.

    `by_column` counts the missing values of each column; a row that misses two columns counts in both.
    `labels` are the rows' labels in the user's table, `positions` their numbers from 0.
    """

    rows: int
    total: int
    by_column: dict[str, int]
    labels: tuple[Any, ...]
    positions: tuple[int, ...]

    def __str__(self) -> str:
        if not self.rows:
            return f"all {self.total} rows used"
        counts = ", ".join(f"{name} is missing in {count}" for name, count in self.by_column.items())
        return f"{self.rows} of {self.total} rows left out: {counts}"


def as_frame(data: Any) -> pd.DataFrame:
    """Copy a table into pandas with NumPy's types; the user's own table is never changed.

    Nullable and Arrow types become plain ones, text of every kind becomes text, names of columns become text;
    a pandas table keeps its `attrs`, where units of columns may stand.

    Raises
    ------
    DataError
        `data` is no table, is lazy, or has no rows.
    """
    frame = _to_pandas(data)
    if not len(frame):
        raise DataError("The table has no rows.")
    columns = [_plain(frame.iloc[:, i]) for i in range(frame.shape[1])]
    names = [str(name) for name in frame.columns]
    copy = pd.DataFrame(dict(enumerate(columns)), index=frame.index)
    copy.columns = pd.Index(names, dtype=object)
    copy.attrs = dict(frame.attrs)
    return copy


def _to_pandas(data: Any) -> pd.DataFrame:
    if isinstance(data, pd.DataFrame):
        return data.copy()
    if isinstance(data, Mapping):
        return _from_dict(data)
    try:
        table = nw.from_native(data, eager_only=True)
    except TypeError:
        hint = " It is lazy: call its collect() first." if hasattr(data, "collect") else ""
        raise DataError(f"{type(data).__name__} is not a table: give {_TABLES}.{hint}") from None
    except nw.exceptions.NarwhalsError as error:
        raise DataError(f"The table cannot be read: {error}") from error
    frame = table.to_pandas()
    if table.implementation.is_polars():
        # polars keeps categories in order of appearance, across tables; only an Enum has an order of its own.
        for name in (n for n, dtype in table.schema.items() if dtype == nw.Categorical):
            frame[name] = frame[name].astype(object)
    return frame


def _from_dict(data: Mapping[Any, Any]) -> pd.DataFrame:
    # A Series would be aligned on its index, which reorders rows without a word.
    columns = {key: value.array if isinstance(value, pd.Series) else value for key, value in data.items()}
    try:
        return pd.DataFrame(columns).copy()
    except (ValueError, TypeError) as error:
        raise DataError(f"The dict is not {_TABLES}: {error}.") from error


def _plain(series: pd.Series) -> pd.Series:
    """Turn nullable, Arrow and object columns into plain floats, booleans or text, losing nothing."""
    dtype = series.dtype
    if isinstance(dtype, np.dtype) and dtype.kind != "O":
        return series
    if isinstance(dtype, pd.CategoricalDtype) or kind(series) == "date":
        return series
    if pd.api.types.is_bool_dtype(dtype) or pd.api.types.is_numeric_dtype(dtype):
        return _plain_numbers(series, "bool" if pd.api.types.is_bool_dtype(dtype) else "number")
    if isinstance(dtype, np.dtype):
        inferred = pd.api.types.infer_dtype(series, skipna=True)
        return series.astype(float) if inferred in _NUMBERS else series.infer_objects()
    return pd.Series(series.to_numpy(object, na_value=None), index=series.index, dtype=object)


def _plain_numbers(series: pd.Series, what: str) -> pd.Series:
    if series.isna().any():
        values = series.to_numpy(float, na_value=np.nan) if what == "number" else series.to_numpy(object)
        return pd.Series(values, index=series.index).where(series.notna(), None if what == "bool" else np.nan)
    whole = pd.api.types.is_integer_dtype(series.dtype)
    target = bool if what == "bool" else (np.int64 if whole else float)
    return pd.Series(series.to_numpy(target), index=series.index)


def kind(series: pd.Series) -> str:
    """Say what a column holds: "number", "factor" (text, booleans, categories), "date" or "other"."""
    if isinstance(series.dtype, pd.CategoricalDtype) or pd.api.types.is_bool_dtype(series.dtype):
        return "factor"
    if pd.api.types.is_numeric_dtype(series.dtype):
        return "other" if pd.api.types.is_complex_dtype(series.dtype) else "number"
    inferred = pd.api.types.infer_dtype(series, skipna=True)
    if inferred in _DATES:
        return "date"
    if inferred in ("string", "boolean", "empty"):
        return "factor"
    return "number" if inferred in _NUMBERS else "other"


def describe(series: pd.Series) -> str:
    """Say in words what a column that is no number holds, for messages."""
    if pd.api.types.is_bool_dtype(series.dtype):
        return "True and False"
    words = {"factor": "text or categories", "date": "dates or times", "number": "numbers"}
    return words.get(kind(series), "values of mixed or unusual types")


def require_columns(frame: pd.DataFrame, columns: Iterable[str]) -> None:
    """Check that each name is one column of the table.

    Raises
    ------
    DataError
        A column does not exist (close names are suggested), or its name stands for several columns.
    """
    names = [str(name) for name in frame.columns]
    for column in columns:
        if (count := names.count(column)) > 1:
            raise DataError(f"{count} columns are named {column!r}, so it is unclear which is meant: rename.")
        if column not in names:
            raise DataError(f"The table has no column {column!r}.{_hint(frame, column, names)}")


def _hint(frame: pd.DataFrame, column: str, names: Sequence[str]) -> str:
    if column in frame.index.names:
        return " It is the table's index: use data.reset_index()."
    folded = {name.casefold(): name for name in names}
    close = difflib.get_close_matches(column.casefold(), list(folded), n=3)
    listed = ", ".join(names[:30]) + (", ..." if len(names) > 30 else "")
    suggestion = f" Did you mean {' or '.join(repr(folded[name]) for name in close)}?" if close else ""
    return f"{suggestion} Its columns are: {listed}."


def complete_rows(frame: pd.DataFrame, columns: Iterable[str]) -> tuple[pd.DataFrame, Dropped]:
    """Keep the rows in which no used column is missing, and count what was left out.

    Raises
    ------
    DataError
        A column does not exist, or no row is complete.
    """
    used = list(dict.fromkeys(columns))
    require_columns(frame, used)
    missing = {name: frame[name].isna().to_numpy() for name in used}
    gone = np.zeros(len(frame), dtype=bool)
    for mask in missing.values():
        gone |= mask
    by_column = {name: int(mask.sum()) for name, mask in missing.items() if mask.any()}
    positions = np.flatnonzero(gone)
    dropped = Dropped(
        len(positions), len(frame), by_column, tuple(frame.index[positions]), tuple(positions.tolist())
    )
    if gone.all():
        raise DataError(f"No complete row is left: {str(dropped).partition(': ')[2]} of {len(frame)} rows.")
    return frame.loc[~gone].infer_objects(), dropped


def require_finite(values: np.ndarray, name: str, index: pd.Index) -> None:
    """Check that a column holds finite numbers only.

    Raises
    ------
    DataError
        It names the column and the first rows that are infinite or not a number.
    """
    bad = np.flatnonzero(~np.isfinite(values))
    if not bad.size:
        return
    rows = ", ".join(str(label) for label in index[bad[:5]]) + (", ..." if bad.size > 5 else "")
    what = "infinite" if np.isinf(values[bad]).all() else "infinite or undefined"
    count = f"{bad.size} of {len(values)} rows (row {rows})"
    raise DataError(f"{name} is {what} in {count}; a model needs finite numbers: correct or remove them.")


def note(message: str) -> None:
    """Tell a fact about the data as a `DataNote`, at the line of the user that led to it."""
    warnings.warn(DataNote(message), skip_file_prefixes=(str(Path(__file__).parent),), stacklevel=2)
