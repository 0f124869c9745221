"""Residual structures that the data cannot carry: each is refused with the reason and what to do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..design import Design
from ..errors import CovarianceError
from .correlation import CompoundSymmetry, Correlation, Independent, Toeplitz, Unstructured
from .structure import ResidualSum


def check_sum(spec: ResidualSum) -> None:
    """Check that no two components are the same: only the sum of their variances would be identifiable.

    Raises
    ------
    CovarianceError
        Two components are Independent(), or equal.
    """
    if sum(isinstance(p, Independent) for p in spec) > 1:
        raise CovarianceError("Two Independent() components cannot be told apart: keep one.")
    twice = next((p for i, p in enumerate(spec.parts) if p in spec.parts[:i]), None)
    if twice is not None:
        raise CovarianceError(
            f"{spec} has the component {twice} twice, of which only the sum is identifiable: keep one, or "
            "give them different correlations."
        )


def check_subjects(subject: np.ndarray, name: str, spec: ResidualSum) -> None:
    """Check that some subject has two rows, without which nothing tells of a correlation.

    Raises CovarianceError where every subject has one row.
    """
    if len(subject) and np.bincount(subject).max() < 2:
        raise CovarianceError(
            f"{spec} correlates rows within {name!r}, and each of its {len(subject)} levels has one row: a "
            "correlation cannot be estimated. Name the column that repeats as subject=, or use Independent()."
        )


def check_places(
    design: Design, part: Correlation, subject: np.ndarray, place: np.ndarray, *, error: Independent | None
) -> None:
    """Check that the variance of a component and of the measurement error can be told apart at its places.

    Two rows of one subject at one place have correlation 1: without measurement error V is singular. With it,
    a structure that holds a variance of its own for single rows (unstructured, compound symmetry, Toeplitz)
    needs such pairs of rows, else only the sum of both variances is identifiable.

    Raises CovarianceError in both cases.
    """
    keys = pd.DataFrame({"subject": subject, "place": place})
    tied = keys.duplicated(keep=False).to_numpy()
    if error is None and tied.any():
        first = keys[tied].iloc[0]
        same = (keys == first).all(axis=1).to_numpy()
        value = design.frame[part.column].iloc[int(np.flatnonzero(tied)[0])]
        raise CovarianceError(
            f"Rows {', '.join(map(str, design.rows[same][:4]))} are one subject's at the same {part.column} "
            f"= {value}: under {part} their correlation is 1 and V is singular. Add measurement error "
            f"(`+ Independent()`) or remove the duplicates ({int(tied.sum())} rows are concerned)."
        )
    weighted = np.ptp(design.weights) > 0
    if error is not None and error.power is None and not tied.any() and not weighted and _holds_error(part):
        raise CovarianceError(
            f"{part} + {error}: the variances of {part} already hold the measurement error, since no subject "
            f"has two rows at one {part.column or 'place'}; only their sum is identifiable. Leave out "
            f"{error}, or use AR1 or Exponential for the serial process."
        )


def _holds_error(part: Correlation) -> bool:
    common = part.by is None and part.power is None
    return common and isinstance(part, Unstructured | CompoundSymmetry | Toeplitz)


def check_levels(part: Correlation, labels: Sequence[str], level: np.ndarray) -> None:
    """Check that each level with a standard deviation of its own has two rows, else raise CovarianceError."""
    counts = np.bincount(level, minlength=len(labels))
    alone = [label for label, count in zip(labels, counts, strict=True) if count < 2]
    if alone:
        raise CovarianceError(
            f"{part}: level {', '.join(alone)} of {part.by!r} has one row, which cannot tell its variance: "
            "merge levels or drop by=."
        )


def check_pairs(part: Correlation, levels: Sequence[str], subject: np.ndarray, position: np.ndarray) -> None:
    """Check that an unstructured matrix over m visits can be estimated.

    Raises CovarianceError where no subject was seen at both visits of a pair, or for m subjects or fewer.
    """
    m = len(levels)
    seen = np.zeros((int(subject.max()) + 1, m))
    seen[subject, position] = 1
    i, j = np.nonzero(np.triu(seen.T @ seen == 0))
    if i.size:
        raise CovarianceError(
            f"{part}: no subject was seen at both {levels[i[0]]} and {levels[j[0]]}, so that their "
            f"covariance cannot be estimated ({i.size} such pair{'s' * (i.size > 1)}). Use a structure with "
            "fewer parameters, such as Toeplitz or AR1."
        )
    if len(seen) <= m:
        raise CovarianceError(
            f"{part}: {m} visits need {m * (m + 1) // 2} parameters and there are {len(seen)} subjects: the "
            "estimate would be singular. Use a structure with fewer parameters, such as AR1 or Toeplitz."
        )
