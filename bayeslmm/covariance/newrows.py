"""The residual's constants for rows that were not in the fit, in the fit's places, times and levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from ..design import Design
from ..encoding import codes_of, levels_of
from ..errors import DataError
from .binding import BoundResidual, residual_columns
from .correlation import CompoundSymmetry, Rows, TimeCorrelation
from .places import log_covariate, times_of
from .structure import Structure


def text_labels(series: pd.Series, column: str) -> np.ndarray:
    """Each value as text, the way levels are labelled: 308, 308.0 and "308" are one label.

    Raises DataError where a value is missing.
    """
    if series.isna().any():
        row = series.index[np.flatnonzero(series.isna())[0]]
        raise DataError(f"{column!r} is missing in row {row} of the new data: a prediction needs to know it.")
    levels = levels_of(series, column)
    whole = [str(int(x)) if isinstance(x, float) and x.is_integer() else str(x) for x in levels]
    return np.array(whole, dtype=object)[codes_of(series, pd.Index(levels, dtype=object))]


def extend_codes(known: Sequence[str], labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(code of each label (n,), all levels): known levels keep their code, new ones follow as they appear."""
    levels = pd.Index(known, dtype=object)
    new = pd.unique(labels[levels.get_indexer(labels) < 0])
    levels = levels.append(pd.Index(new, dtype=object))
    return levels.get_indexer(labels).astype(int), levels.to_numpy()


def subject_labels(design: Design, residual: BoundResidual) -> np.ndarray:
    """The label of each code of the residual's subject."""
    term = next((t for t in design.terms if t.group == residual.subject_name), None)
    if term is not None and term.codes is residual.subject:
        return np.asarray(term.levels, dtype=object)
    assert residual.subject is not None
    assert residual.subject_name is not None
    labels = text_labels(design.frame[residual.subject_name], residual.subject_name)
    out = np.empty(int(residual.subject.max()) + 1, dtype=object)
    out[residual.subject] = labels
    return out


def bind_new_rows(
    design: Design,
    residual: BoundResidual,
    frame: pd.DataFrame,
    subject: np.ndarray | None,
    earlier: np.ndarray,
) -> tuple[Rows, ...]:
    """One `Rows` a component of the residual, arrays of the length of `frame`.

    subject: extended code (n,) of each row's subject; earlier: how many rows each row's subject has had so
    far, for structures that take the order of the rows.

    Raises DataError where the residual reads a column that is absent or has a value the structure does not
    know.
    """
    _require(frame, residual)
    known = replace(design, frame=frame)
    return tuple(
        _bind(known, part, old, subject, earlier) for part, old in zip(residual.parts, residual.rows, strict=True)
    )


def _require(frame: pd.DataFrame, residual: BoundResidual) -> None:
    for column in residual_columns(residual.spec):
        if column not in frame.columns:
            raise DataError(
                f"The new data have no column {column!r}, which the residual {residual.spec} reads: without "
                "it the place of a new row among a subject's measurements is unknown."
            )
        if frame[column].isna().any():
            row = int(np.flatnonzero(frame[column].isna())[0])
            raise DataError(
                f"{column!r} is missing in row {row} of the new data; the residual {residual.spec} reads it."
            )


def _bind(known: Design, part: Structure, old: Rows, subject, earlier) -> Rows:
    spec, frame = part.correlation, known.frame
    n = len(frame)
    position, time = np.zeros(n, int), None
    if isinstance(spec, TimeCorrelation):
        time = times_of(frame, spec)
    elif spec.reads == "position":
        position = _position(part, frame, subject, earlier)
    level = None
    if spec.by is not None:
        assert part.scale.labels is not None
        level = _known(frame, spec.by, part.scale.labels, f"{spec} has a standard deviation for each level")
    elif part.scale.labels is not None:
        level = position
    return Rows(
        position=position,
        time=time,
        level=level,
        log_covariate=None if old.log_covariate is None else log_covariate(frame, spec),
        weight=None if old.weight is None else np.ones(n),
    )


def _position(part: Structure, frame: pd.DataFrame, subject: np.ndarray, earlier: np.ndarray) -> np.ndarray:
    spec = part.correlation
    if spec.column is not None:
        if isinstance(spec, CompoundSymmetry):  # exchangeable: a new place is as good as another
            return extend_codes(part.positions, text_labels(frame[spec.column], spec.column))[0]
        return _known(frame, spec.column, part.positions, f"{spec} knows the order of these")
    count = pd.Series(subject).groupby(subject).cumcount().to_numpy()
    position = earlier[subject] + count
    last = len(part.positions) - 1
    if position.max() > last and type(spec).__name__ in ("Toeplitz", "Antedependence"):
        raise DataError(
            f"{spec} has {last + 1} places, and the new rows, counted after their subject's, reach place "
            f"{int(position.max()) + 1}: name a visit column, as in {type(spec).__name__}('visit'), to say "
            "where they are."
        )
    return position


def _known(frame: pd.DataFrame, column: str, levels: Sequence[str], why: str) -> np.ndarray:
    labels = text_labels(frame[column], column)
    codes = pd.Index(levels, dtype=object).get_indexer(labels)
    if (codes < 0).any():
        new = ", ".join(dict.fromkeys(repr(x) for x in labels[codes < 0][:5]))
        raise DataError(f"{column!r} has unseen levels: {new}. {why}: {', '.join(levels)}.")
    return codes
