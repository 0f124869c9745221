"""Bars + table -> terms: the grouping factors, their levels, and the columns of the random effects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd

from .encoding import Encoding, codes_of, fit_encoding, levels_of
from .errors import DataError, DesignError
from .formula import Bar


@dataclass(frozen=True)
class Block:
    """The columns of one bar inside its term: they share a covariance structure."""

    kind: str
    columns: tuple[int, ...]
    homogeneous: bool


@dataclass(frozen=True, eq=False)
class Term:
    """All bars with the same grouping factor: `codes` (n,) index `levels` (N,), `Z` is (n, q).

    Levels are text, in the order of the categories or sorted; of an interaction only the combinations that
    occur, ordered by the first column, then the second. `blocks` divide the q columns, one block per bar.
    """

    group: str
    columns: tuple[str, ...]
    levels: np.ndarray
    codes: np.ndarray
    effects: tuple[str, ...]
    Z: np.ndarray
    blocks: tuple[Block, ...]


def make_terms(
    bars: Sequence[Bar], frame: pd.DataFrame
) -> tuple[tuple[Term, ...], tuple[tuple[Encoding, ...], ...]]:
    """Build one term for each grouping factor, and return with them the encodings, per term one per bar.

    Raises
    ------
    DesignError
        A grouping factor has one level only, or an effect twice.
    DataError
        Two groups have the same label, or a column does not fit.
    """
    merged: dict[frozenset[str], list[Bar]] = {}
    for bar in bars:
        merged.setdefault(frozenset(bar.group), []).append(bar)
    made = [_term(same, frame) for same in merged.values()]
    return tuple(term for term, _ in made), tuple(encodings for _, encodings in made)


def _term(bars: Sequence[Bar], frame: pd.DataFrame) -> tuple[Term, tuple[Encoding, ...]]:
    columns = bars[0].group
    group = ":".join(columns)
    fitted = [fit_encoding(bar.effects, frame) for bar in bars]
    effects = tuple(label for _, labels, _ in fitted for label in labels)
    _require_once(group, effects, bars)
    levels, codes = _grouping(frame, columns)
    if len(levels) < 2:
        raise DesignError(
            f"The grouping factor {group} has one level only ({levels[0]}), so that its variance cannot be "
            f"estimated: leave out {bars[0].text}."
        )
    blocks, start = [], 0
    for bar, (Z, _, _) in zip(bars, fitted, strict=True):
        blocks.append(Block(bar.structure, tuple(range(start, start + Z.shape[1])), bar.homogeneous))
        start += Z.shape[1]
    Z = np.hstack([Z for Z, _, _ in fitted])
    return Term(group, columns, levels, codes, effects, Z, tuple(blocks)), tuple(e for _, _, e in fitted)


def _require_once(group: str, effects: Sequence[str], bars: Sequence[Bar]) -> None:
    twice = next((effect for effect in effects if effects.count(effect) > 1), None)
    if twice is None:
        return
    written = " + ".join(bar.text for bar in bars)
    hint = f"one bar with all effects, or leave {twice} out of all but one bar"
    if twice == "Intercept":
        hint = (
            f"(x | {group}) for correlated effects, (1 | {group}) + (0 + x | {group}) for uncorrelated ones"
        )
    raise DesignError(
        f"{written} has the effect {twice} of {group} twice, of which only the sum is identifiable. "
        f"Write {hint}."
    )


def _grouping(frame: pd.DataFrame, columns: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Number the groups (n,) and label them (N,)."""
    labels, codes = _one_factor(frame[columns[0]], columns[0])
    for column in columns[1:]:
        more, inner = _one_factor(frame[column], column)
        occurring, codes = np.unique(codes * len(more) + inner, return_inverse=True)
        outer, inner = np.divmod(occurring, len(more))
        labels = np.array([f"{labels[a]}:{more[b]}" for a, b in zip(outer, inner, strict=True)], dtype=str)
    if len(set(labels.tolist())) < len(labels):
        raise DataError(f"Two groups of {':'.join(columns)} have the same label: rename the levels.")
    return labels, codes


def _one_factor(series: pd.Series, column: str) -> tuple[np.ndarray, np.ndarray]:
    levels = levels_of(series, column)
    codes = codes_of(series, pd.Index(levels, dtype=object))
    return np.array([level_text(level) for level in levels], dtype=str), codes


def level_text(level: Any) -> str:
    """Label a level as a person writes it: 308 and 308.0 are "308"."""
    return str(int(level)) if isinstance(level, float) and level.is_integer() else str(level)


def group_labels(frame: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """Label the group of each row of new data (n,)."""
    parts = []
    for column in columns:
        if frame[column].isna().any():
            raise DataError(f"The grouping column {column!r} has missing values in the new data.")
        labels, codes = _one_factor(frame[column], column)
        parts.append(labels[codes].astype(object))
    return reduce(lambda outer, inner: outer + ":" + inner, parts)
