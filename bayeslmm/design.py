"""Formula + table -> `Design`: the numbers (y, X, Z, codes) and the labels that both engines read."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm.aliases import columns_of
from bayeslmm.encoding import Encoding, codes_of, fit_encoding, levels_of
from bayeslmm.errors import DataError, DataNote, DesignError
from bayeslmm.formula import Bar, Formula, parse
from bayeslmm.table import Dropped, as_frame, complete_rows, describe, kind, require_columns, require_finite

# What a column adds to the earlier ones is taken for rounding below this share of its length, as in R.
_RANK_TOLERANCE = 1e-7


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
        warnings.warn(DataNote(f"{dropped}."), skip_file_prefixes=(str(Path(__file__).parent),), stacklevel=2)
    rows = np.delete(np.arange(len(table)), dropped.positions)
    w = _weights(weights, kept, rows, len(table))
    y, response = _response(formula.response, kept)
    X, coefs, fixed = fit_encoding(formula.fixed, kept)
    check_rank(X, coefs)
    terms, effects = _terms(formula.bars, kept)
    offset, offsets = _offset(formula.offsets, kept)
    _require_residual(y - offset, X)
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


def _require_residual(y: np.ndarray, X: np.ndarray) -> None:
    beta = np.linalg.lstsq(X.T @ X, X.T @ y, rcond=None)[0]
    if np.linalg.norm(y - X @ beta) <= 1e-10 * np.linalg.norm(y - y.mean()):
        raise DesignError(
            "The fixed part explains the response exactly, so that no variance is left to estimate. "
            "Does the response, or a copy of it, stand among the terms?"
        )


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


# -------------------------------------------------------------------------------- grouping factors


def _terms(
    bars: Sequence[Bar], frame: pd.DataFrame
) -> tuple[tuple[Term, ...], tuple[tuple[Encoding, ...], ...]]:
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
    return np.array([_text(level) for level in levels], dtype=str), codes


def _text(level: Any) -> str:
    """Label a level as a person writes it: 308 and 308.0 are "308"."""
    return str(int(level)) if isinstance(level, float) and level.is_integer() else str(level)


def _labels(frame: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """Label the group of each row of new data (n,)."""
    parts = []
    for column in columns:
        if frame[column].isna().any():
            raise DataError(f"The grouping column {column!r} has missing values in the new data.")
        labels, codes = _one_factor(frame[column], column)
        parts.append(labels[codes].astype(object))
    return (
        parts[0] if len(parts) == 1 else np.array([":".join(row) for row in zip(*parts, strict=True)], object)
    )


# -------------------------------------------------------------------------------- checks


def check_rank(X: np.ndarray, labels: Sequence[str]) -> None:
    """Check that the coefficients of X (n, p) can be told apart.

    Raises
    ------
    DesignError
        There are as many columns as rows, or a column is a linear combination of earlier ones (both named).
    """
    n, p = X.shape
    if p and p >= n:
        raise DesignError(f"The fixed part has {p} columns for {n} rows: nothing is left for the variances.")
    aliased = find_aliased(X)
    if not aliased:
        return
    sentences = [_alias_sentence(j, earlier, labels) for j, earlier in aliased.items()]
    splines = any(labels[j].startswith(("cr(", "cc(")) for j in aliased)
    advice = "give cr() and cc() constraints='center' beside an intercept" if splines else "remove such terms"
    raise DesignError(
        f"The fixed part is rank-deficient: {'; '.join(sentences)}. Their coefficients cannot be told apart: "
        f"{advice}; powers of large numbers need center()."
    )


def _alias_sentence(j: int, earlier: Sequence[int], labels: Sequence[str]) -> str:
    if not earlier:
        return f"{labels[j]} is zero in every row"
    return f"{labels[j]} is a linear combination of {', '.join(labels[i] for i in earlier)}"


def find_aliased(X: np.ndarray) -> dict[int, tuple[int, ...]]:
    """Map each column of X (n, p) that depends on earlier columns to those it is made of."""
    length = np.linalg.norm(X, axis=0)
    scaled = X / np.where(length > 0, length, 1.0)
    if X.shape[1] == 0 or np.linalg.eigvalsh(scaled.T @ scaled)[0] > 1e-8:
        return {}  # far from dependent, at a tenth of the price of a QR decomposition
    R = np.linalg.qr(scaled, mode="r")
    basis, free = np.empty((len(R), 0)), list[int]()
    aliased: dict[int, tuple[int, ...]] = {}
    for j in range(X.shape[1]):
        rest = R[:, j] - basis @ (basis.T @ R[:, j])
        rest -= basis @ (basis.T @ rest)
        size = np.linalg.norm(rest)
        if size > _RANK_TOLERANCE:
            basis, free = np.column_stack([basis, rest / size]), [*free, j]
            continue
        weight = np.linalg.lstsq(R[:, free], R[:, j], rcond=None)[0] if length[j] else np.empty(0)
        aliased[j] = tuple(i for i, share in zip(free, weight, strict=False) if abs(share) > 1e-6)
    return aliased


def check_identifiable(design: Design) -> None:
    """Check that the random effects can be told from an independent residual, as lme4 does.

    Call this when the residual is independent; other structures may be identifiable all the same. The columns
    of a diagonal block count one by one, unless they are the levels of one factor.

    Raises
    ------
    DesignError
        A bar has as many random effects as there are rows.
    """
    n = len(design.y)
    for term in design.terms:
        for block in term.blocks:
            Z = term.Z[:, list(block.columns)]
            separate = block.kind == "diag" and (np.count_nonzero(Z, axis=1) > 1).any()
            q = 1 if separate else Z.shape[1]
            if len(term.levels) * q >= n:
                raise DesignError(
                    f"{term.group} has {len(term.levels)} levels with {q} random effect{'s' * (q > 1)} each, "
                    f"{len(term.levels) * q} in all, for {n} rows: their variances cannot be told from the "
                    "residual. Use fewer effects, or a grouping factor with more rows per level."
                )


# -------------------------------------------------------------------------------- new data


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
    labels = tuple(_labels(frame, term.columns) for term in terms)
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
