"""Bayes factors from the log marginal likelihoods that the collapsed sampler finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ..errors import InferenceError
from .collapsed.sampler import sample_collapsed

if TYPE_CHECKING:
    from ..model import LMM


@dataclass(frozen=True)
class BayesFactor:
    """How much better the first model predicted the data than the second: log p(y | 1) - log p(y | 2)."""

    log: float
    error: float

    @property
    def value(self) -> float:
        """The factor itself."""
        return float(np.exp(self.log))

    def __str__(self) -> str:
        side = "first" if self.log > 0 else "second"
        number = f"log Bayes factor {self.log:.3f} (standard error {self.error:.3f})"
        return f"{number}: the data favour the {side} model."


def bayes_factor(
    first: LMM | xr.DataTree, second: LMM | xr.DataTree, *, random_seed: Any = None
) -> BayesFactor:
    """Compare two models by their marginal likelihoods; give models (default priors) or posteriors.

    The answer depends on the priors, also where they are wide: doubling the prior sd of a coefficient that
    only one model has halves its support. All priors must be proper.

    Raises InferenceError for posteriors without evidence (NUTS, flat priors), and for different data.
    """
    trees = [sample_collapsed(x, random_seed=random_seed, prior_draws=0) if not isinstance(x, xr.DataTree) else x
             for x in (first, second)]  # fmt: skip
    observed = [_observed(t) for t in trees]
    rows = [len(y) for y in observed]
    if rows[0] != rows[1] or not np.allclose(np.sort(observed[0]), np.sort(observed[1])):
        raise InferenceError(
            f"The two models are of different data ({rows[0]} and {rows[1]} rows, or another response): "
            "marginal likelihoods compare models of the same rows only."
        )
    values, errors = zip(*(_evidence(t) for t in trees), strict=True)
    return BayesFactor(values[0] - values[1], float(np.hypot(*errors)))


def _evidence(tree: xr.DataTree) -> tuple[float, float]:
    if "log_evidence" not in tree.attrs:
        raise InferenceError(
            "This posterior carries no marginal likelihood: it takes sampler='collapsed' and proper priors."
        )
    return float(tree.attrs["log_evidence"]), float(tree.attrs["log_evidence_error"])


def _observed(tree: xr.DataTree) -> np.ndarray:
    return next(iter(tree["observed_data"].to_dataset().data_vars.values())).to_numpy()
