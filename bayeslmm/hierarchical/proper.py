"""Whether flat priors leave a posterior that can be sampled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..design import Design, Term
from ..errors import SamplingError
from .defaults import Priors
from .slots import Place, places

if TYPE_CHECKING:
    from ..model import LMM


def require_proper_posterior(model: LMM, priors: Priors) -> None:
    """Refuse improper priors whose posterior has no finite mass.

    With a flat prior on the sd of N random effects, the likelihood falls like sd^-(N - r) for large sd,
    where r counts the fixed effects that vary like them: N - r of 2 and more are needed (Gelman 2006,
    Bayesian Analysis 1, 515-534). For large ranges the likelihood tends to a constant: a flat prior never
    is proper.

    Raises SamplingError, with the reason.
    """
    flat = set(priors.improper())
    for place in places(model):
        for i, entry in enumerate(place.slot.entries):
            if entry not in flat:
                continue
            if place.slot.role == "range":
                raise SamplingError(
                    f"The flat prior of {entry} is improper, and so is its posterior: as the range grows, "
                    "the process becomes constant in time and the likelihood tends to a constant. Give it a "
                    "prior such as LogNormal(2, 1)."
                )
            if place.term is not None and place.slot.role == "sd":
                _enough_groups(model.design, place, i, entry)


def _enough_groups(design: Design, place: Place, i: int, entry: str) -> None:
    assert place.term is not None
    term = design.terms[place.term]
    columns = [place.columns[i]] if place.structure.scale.labels is not None else list(place.columns)
    free = len(term.levels) * len(columns) - confounded(design, term, columns)
    if free < 2:
        raise SamplingError(
            f"With a flat prior of {entry}, the {len(term.levels)} levels of {term.group} are too few: the "
            "posterior has infinite mass at large values. Give it a proper prior, such as HalfT(3, scale)."
        )


def confounded(design: Design, term: Term, columns: list[int]) -> int:
    """How many dimensions of X lie in the span of the random effects of these columns of Z."""
    X, left = design.X, design.X.astype(float).copy()
    for level in range(len(term.levels)):
        rows = term.codes == level
        Z = term.Z[rows][:, columns]
        left[rows] -= Z @ np.linalg.lstsq(Z, X[rows], rcond=None)[0]
    scale = np.linalg.norm(X, axis=0)
    return X.shape[1] - int(np.linalg.matrix_rank(left / np.where(scale > 0, scale, 1.0), tol=1e-8))
