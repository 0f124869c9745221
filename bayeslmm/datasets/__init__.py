"""Small data sets to learn and test with, each with units, source and a default model."""

from difflib import get_close_matches
from importlib.resources import files

import pandas as pd

from bayeslmm.datasets.records import RECORDS, Column, Dataset
from bayeslmm.errors import DataError

__all__ = ["Column", "Dataset", "dataset_names", "describe", "load_dataset"]


def dataset_names() -> tuple[str, ...]:
    """Names that `load_dataset` knows."""
    return tuple(record.name for record in RECORDS)


def describe(name: str) -> Dataset:
    """What a data set holds, where it comes from and its default model.

    Raises DataError when no bundled data set has this name.
    """
    for record in RECORDS:
        if record.name == name:
            return record
    close = get_close_matches(str(name).lower(), dataset_names())
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    raise DataError(f"No bundled data set is called {name!r}.{hint} Available: {', '.join(dataset_names())}.")


def load_dataset(name: str) -> pd.DataFrame:
    """A bundled data set as a table, with `name`, `units` (column -> unit) and `source` in its `attrs`.

    Identifiers are text and factors categorical in their usual order of levels, so that neither is ever
    taken for a number.

    Raises DataError when no bundled data set has this name.
    """
    record = describe(name)
    kinds = {label: _dtype(column) for label, column in record.columns.items()}
    with files(__name__).joinpath(f"{record.name}.csv").open(encoding="utf-8") as table:
        frame = pd.read_csv(table, dtype=kinds, keep_default_na=False)
    frame.attrs = {"name": record.name, "units": record.units, "source": record.source}
    return frame


def _dtype(column: Column) -> object:
    if column.levels:
        return pd.CategoricalDtype(column.levels)
    return str if column.is_text else float
