"""Several models in one table: fits by information criteria, posteriors by what they predict."""

from __future__ import annotations

from typing import Any

import pandas as pd

from .errors import InferenceError
from .marginal import criteria
from .results import Fit


def compare_models(*models: Any, convention: str | None = None, **named: Any) -> pd.DataFrame:
    """One row a model, best first, with delta, the distance from the best.

    Give fits, to compare by information criteria under a convention ("lecture", "lme4", "nlme", "sas"); or
    results of ``bl.loo``, to compare by expected log predictive density of one unit left out. Name them by
    keyword, ``compare_models(intercept=a, slope=b)``; unnamed ones go by their formula.

    Raises InferenceError where the models are not comparable: other data, REML with different fixed effects,
    other units left out, fits beside results of loo.
    """
    if all(isinstance(x, Fit) for x in (*models, *named.values())):
        return criteria.compare_models(*models, convention=convention or "lecture", **named)
    from .hierarchical.left_out import compare_left_out

    if convention is not None:
        raise InferenceError("convention= counts parameters in information criteria of fits: loo has none.")
    unnamed = {f"{i}: {getattr(x, 'model', type(x).__name__)}": x for i, x in enumerate(models, 1)}
    return compare_left_out({**unnamed, **named})
