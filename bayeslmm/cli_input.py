"""What the command line reads: a table, a residual structure written as text, units."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import CovarianceError, DataError, FormulaError

if TYPE_CHECKING:
    import pandas as pd

    from .covariance.structure import ResidualSum

STRUCTURES = (
    "Independent", "CompoundSymmetry", "Unstructured", "AR1", "Toeplitz", "Antedependence",
    "Exponential", "Gaussian", "Matern32", "Matern52", "Spherical",
)  # fmt: skip
_OPTIONS = ("subject", "by", "power")
_LONGEST = 1000


def parse_residual(text: str) -> ResidualSum:
    """A residual structure from text such as "Exponential(Time) + Independent()".

    The text is data, not a program: names of structures, names of columns (bare, or quoted where they have
    spaces) for the time or visit and for subject=, by=, power=, and plus signs. Nothing of it is executed.

    Raises
    ------
    FormulaError
        The text is anything else; the message points at the place.
    CovarianceError
        A structure does not take such a column.
    """
    from .covariance.structure import ResidualSum

    if len(text) > _LONGEST:
        raise FormulaError(f"The residual structure has {len(text)} characters; {_LONGEST} are the most.")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError as error:
        place = max((error.offset or 1) - 1, 0)
        raise FormulaError(
            f"The residual structure cannot be read: {error.msg}.", text.strip(), place
        ) from None
    except (ValueError, MemoryError, RecursionError) as error:
        raise FormulaError(f"The residual structure cannot be read: {error}.") from None
    return ResidualSum(tuple(_component(node, text.strip()) for node in _summands(tree.body)))


def _summands(node: ast.expr) -> list[ast.expr]:
    """The terms of a sum, from left to right."""
    terms: list[ast.expr] = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        terms.append(node.right)
        node = node.left
    return [node, *reversed(terms)]


def _component(node: ast.expr, text: str) -> Any:
    from . import covariance

    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise _refusal(
            node,
            text,
            "here a structure with brackets is expected, such as Exponential(Time) or Independent()",
        )
    name = node.func.id
    if name not in STRUCTURES:
        raise _refusal(node, text, f"there is no structure {name}; known are {', '.join(STRUCTURES)}")
    if len(node.args) > 1:
        raise _refusal(
            node.args[1], text, f"{name} takes one column; other columns are named: by=, power=, subject="
        )
    columns = [_column(arg, text) for arg in node.args]
    options: dict[str, str] = {}
    for keyword in node.keywords:
        if keyword.arg not in _OPTIONS:
            raise _refusal(
                keyword.value, text, f"{name} takes {', '.join(f'{o}=' for o in _OPTIONS)} and no others"
            )
        options[str(keyword.arg)] = _column(keyword.value, text)
    try:
        return getattr(covariance, name)(*columns, **options)
    except TypeError as error:
        raise CovarianceError(str(error)) from None


def _column(node: ast.expr, text: str) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    raise _refusal(
        node, text, "here the name of a column is expected, in quotes where it has spaces or signs"
    )


def _refusal(node: ast.expr, text: str, why: str) -> FormulaError:
    """An error that points at the place."""
    place = len(text.encode()[: node.col_offset].decode())  # ast counts bytes
    return FormulaError(f"The residual structure cannot be read: {why}.", text, place)


# --- tables -------------------------------------------------------------------------------------------------


def read_table(path: str) -> pd.DataFrame:
    """A table from a CSV, TSV or Parquet file.

    Raises DataError for a file that is absent, unreadable or of another kind.
    """
    import pandas as pd

    from .datasets import dataset_names

    file = Path(path)
    if not file.is_file():
        raise DataError(
            f"No file {path!r}, and no bundled data set of that name. Bundled: {', '.join(dataset_names())}."
        )
    ending = file.suffix.lower()
    try:
        if ending in (".parquet", ".pq"):
            return pd.read_parquet(file)
        if ending in (".csv", ".txt", ".tsv"):
            return pd.read_csv(file, sep="\t" if ending == ".tsv" else ",")
    except ImportError:
        raise DataError(
            f"{path}: reading Parquet needs pyarrow: pip install pyarrow, or save the table as CSV."
        ) from None
    except (ValueError, OSError) as error:
        raise DataError(f"{path} cannot be read as a table: {error}.") from error
    raise DataError(f"{path}: tables are read from .csv, .tsv and .parquet files, not {ending or 'this'}.")


def parse_units(text: str | None) -> dict[str, str]:
    """Units of columns from "Reaction=ms, Days=day".

    Raises DataError for a part without an equals sign.
    """
    units = {}
    for part in (text or "").split(","):
        column, equals, unit = part.partition("=")
        if not part.strip():
            continue
        if not equals or not column.strip() or not unit.strip():
            raise DataError(
                f"--units {text!r}: write column=unit, separated by commas, as in 'Reaction=ms, Days=day'."
            )
        units[column.strip()] = unit.strip()
    return units
