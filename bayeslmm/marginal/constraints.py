"""Hypotheses about β: "Days = 0, Sex = 0", term names or a matrix -> L and its right-hand side."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from formulaic.errors import FormulaicError
from formulaic.utils.constraints import LinearConstraints

from ..errors import InferenceError


def constraints(
    hypothesis, coefs: Sequence[str], terms: Mapping[str, tuple[int, ...]]
) -> tuple[np.ndarray, np.ndarray]:
    """(L, c) of Lβ = c from text, a list of texts, or a matrix with one column a coefficient.

    A text is comma-separated equations in coefficients ("2*Days - Intercept = 3"); the name of a term stands for all
    its coefficients being zero. Redundant rows are left out; contradictory ones are an error.
    """
    if isinstance(hypothesis, str):
        L, c = _from_text(hypothesis, coefs, terms)
    elif isinstance(hypothesis, Sequence) and hypothesis and all(isinstance(h, str) for h in hypothesis):
        parts = [_from_text(h, coefs, terms) for h in hypothesis]
        L, c = np.vstack([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
    else:
        L = np.atleast_2d(np.asarray(hypothesis, float))
        c = np.zeros(len(L))
    return _independent(L, c, coefs)


def _from_text(text: str, coefs: Sequence[str], terms: Mapping[str, tuple[int, ...]]):
    rows, values = [], []
    for equation in _split(text):
        left, _, right = equation.partition("=")
        name = left.strip()
        if name in terms and name not in coefs:
            if right.strip() not in ("", "0"):
                raise InferenceError(
                    f"{equation!r}: {name} is a term with several coefficients; it can only be tested against 0."
                )
            rows.append(np.eye(len(coefs))[list(terms[name])])
            values.append(np.zeros(len(terms[name])))
        else:
            L, c = _linear(equation, coefs, terms)
            rows.append(L)
            values.append(c)
    return np.vstack(rows), np.concatenate(values)


def _split(text: str) -> list[str]:
    """Equations at the commas outside brackets."""
    parts, depth, start = [], 0, 0
    for i, ch in enumerate(text):
        depth += (ch in "([") - (ch in ")]")
        if ch == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    parts = [p.strip() for p in (*parts, text[start:]) if p.strip()]
    if not parts:
        raise InferenceError("The hypothesis is empty: write, for example, 'Days = 0'.")
    return parts


def _linear(equation: str, coefs: Sequence[str], terms) -> tuple[np.ndarray, np.ndarray]:
    # Labels such as Sex[T.Male]:age are no names to a parser: each stands behind a name of ours.
    alias = {label: f"coef{i}" for i, label in enumerate(coefs)}
    longest = sorted(coefs, key=len, reverse=True)
    pattern = "|".join(rf"(?<![\w.\]:]){re.escape(label)}(?![\w\[:(])" for label in longest)
    text = re.sub(pattern, lambda m: alias[m.group()], equation.replace("`", ""))
    unknown = [w for w in re.findall(r"[A-Za-z_][\w.\[\]:]*", text) if w not in alias.values()]
    if unknown:
        raise InferenceError(
            f"{equation!r}: {unknown[0]!r} is no coefficient of this model; there are {', '.join(coefs)}"
            + (f" and the terms {', '.join(terms)}." if terms else ".")
        )
    try:
        found = LinearConstraints.from_spec(text, variable_names=list(alias.values()))
    except (FormulaicError, ValueError, TypeError, KeyError) as error:
        raise InferenceError(
            f"{equation!r} is not a linear equation in the coefficients {', '.join(coefs)}."
        ) from error
    return np.asarray(found.constraint_matrix, float), np.asarray(found.constraint_values, float)


def _independent(L: np.ndarray, c: np.ndarray, coefs: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    if L.ndim != 2 or L.shape[1] != len(coefs):
        raise InferenceError(
            f"L has {L.shape[-1]} columns, and the model has {len(coefs)} coefficients: {', '.join(coefs)}."
        )
    if not np.isfinite(L).all() or not np.abs(L).max(initial=0) > 0:
        raise InferenceError("L must be finite and not zero: a hypothesis needs at least one coefficient.")
    kept: list[int] = []
    scale = np.abs(L).max(axis=1)
    for i in range(len(L)):
        if np.linalg.matrix_rank(L[[*kept, i]] / np.maximum(scale[[*kept, i]], 1e-300)[:, None]) > len(kept):
            kept.append(i)
    weights = np.linalg.lstsq(L[kept].T, L.T, rcond=None)[0].T
    if np.abs(weights @ c[kept] - c).max() > 1e-8 * max(1.0, float(np.abs(c).max())):
        raise InferenceError("The rows of the hypothesis contradict each other: no β satisfies all of them.")
    return L[kept], c[kept]
