"""The columns of a design again, from new data, with the levels and transforms of the first table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .design import Design
from .encoding import Encoding
from .grouping import group_labels
from .table import as_frame, require_columns


@dataclass(frozen=True, eq=False)
class NewRows:
    """The design of new data: per term Z (n, q), the groups' labels (n,), and codes (n,), -1 for a new group.

    `y` is None where the table has no response; a missing value in it stays NaN.
    """

    frame: pd.DataFrame
    X: np.ndarray
    Z: tuple[np.ndarray, ...]
    labels: tuple[np.ndarray, ...]
    codes: tuple[np.ndarray, ...]
    offset: np.ndarray
    y: np.ndarray | None


def apply_design(
    design: Design, newdata: Any, *, need_response: bool = False, need_groups: bool = True
) -> NewRows:
    """Build the columns of a design from new data, with the levels and transforms of the first table.

    With `need_groups=False` the columns of the random effects are not read (a prediction for the population)
    and `Z`, `labels` and `codes` are empty.

    Raises
    ------
    DataError
        A column is absent, misses a value or has another type, or a factor of X or Z has a level not seen.
    """
    frame, recipe = as_frame(newdata), design.encoding
    X = recipe.fixed.apply(frame)
    offset = np.zeros(len(frame))
    for encoding in recipe.offsets:
        offset += encoding.apply(frame)[:, 0]
    terms = design.terms if need_groups else ()
    for term in terms:
        require_columns(frame, term.columns)
    Z = tuple(np.hstack([e.apply(frame) for e in es]) for _, es in zip(terms, recipe.effects, strict=False))
    labels = tuple(group_labels(frame, term.columns) for term in terms)
    codes = tuple(
        pd.Index(term.levels, dtype=object).get_indexer(pd.Index(label, dtype=object))
        for term, label in zip(terms, labels, strict=True)
    )
    y = _new_response(recipe.response, frame, need_response)
    return NewRows(frame.reset_index(drop=True), X, Z, labels, codes, offset, y)


def _new_response(encoding: Encoding, frame: pd.DataFrame, needed: bool) -> np.ndarray | None:
    if needed:
        return encoding.apply(frame)[:, 0]
    if not set(encoding.columns) <= set(frame.columns):
        return None
    require_columns(frame, encoding.columns)
    y = np.full(len(frame), np.nan)
    present = frame[list(encoding.columns)].notna().all(axis=1).to_numpy()
    if present.any():
        y[present] = encoding.apply(frame.loc[present].infer_objects())[:, 0]
    return y
