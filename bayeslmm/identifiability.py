"""What the numbers of a design can tell apart: coefficients, random effects, and a residual."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .errors import DesignError

if TYPE_CHECKING:
    from .design import Design

# What a column adds to the earlier ones is taken for rounding below this share of its length, as in R.
_RANK_TOLERANCE = 1e-7


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


def check_residual(y: np.ndarray, X: np.ndarray) -> None:
    """Check that the fixed part X (n, p) leaves something of y (n,) unexplained.

    Raises
    ------
    DesignError
        y is a linear combination of the columns of X.
    """
    beta = np.linalg.lstsq(X.T @ X, X.T @ y, rcond=None)[0]
    if np.linalg.norm(y - X @ beta) <= 1e-10 * np.linalg.norm(y - y.mean()):
        raise DesignError(
            "The fixed part explains the response exactly, so that no variance is left to estimate. "
            "Does the response, or a copy of it, stand among the terms?"
        )
