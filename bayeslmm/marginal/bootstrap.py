"""The parametric bootstrap: responses drawn from the fit, the model fitted to each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..errors import InferenceError
from ..kernel.refit import Problem, Refits, in_chunks, refit
from .simulate import simulate

if TYPE_CHECKING:
    from ..results import Fit


@dataclass(frozen=True, eq=False, repr=False)
class Bootstrap:
    """Refits to draws from a fitted model.

    draws: one row a refit, one column a coefficient or variance parameter (natural scale; a correlation
    with a variance of zero is nan); loglik: of each refit; estimates: those of the fit; failed: refits
    that did not converge, which are left out.
    """

    draws: pd.DataFrame
    loglik: np.ndarray
    estimates: pd.Series
    failed: int

    def confint(self, level: float = 0.95) -> pd.DataFrame:
        """Percentile intervals: estimate, lower, upper."""
        check_level(level)
        tails = self.draws.quantile([(1 - level) / 2, (1 + level) / 2])
        table = pd.DataFrame({"estimate": self.estimates, "lower": tails.iloc[0], "upper": tails.iloc[1]})
        table.attrs = {"method": "bootstrap", "level": level, "draws": len(self.draws)}
        return table

    def summary(self) -> pd.DataFrame:
        """estimate, bias (mean of the refits less the estimate) and se (their standard deviation)."""
        return pd.DataFrame(
            {"estimate": self.estimates, "bias": self.draws.mean() - self.estimates, "se": self.draws.std()}
        )

    def __repr__(self) -> str:
        return (
            f"<Bootstrap: {len(self.draws)} refits of {len(self.estimates)} parameters, {self.failed} failed>"
        )


def check_level(level: float) -> None:
    """Refuse a level of an interval that is not between 0 and 1."""
    if not 0 < level < 1:
        raise InferenceError(f"level={level!r}: an interval's level lies between 0 and 1, such as 0.95.")


def bootstrap(fit: Fit, n: int, *, seed: Any, workers: int, progress: bool) -> Bootstrap:
    """n refits to draws from the fitted model."""
    work = partial(_chunk, Problem.of(fit.model), fit.estimate.θ, fit.estimate.beta, fit.method == "REML")
    parts = in_chunks(work, n, seed=seed, workers=workers, progress=progress, title="Bootstrap")
    found = Refits.join(parts)
    good = found.converged
    natural = [fit.model.covariance.natural_from_linear(θ) for θ in found.θ[good]]
    names = [*fit.model.design.coefs, *fit.parameters.index]
    draws = pd.DataFrame(
        np.column_stack([found.beta[good], np.array(natural).reshape(int(good.sum()), -1)]), columns=names
    )
    estimates = pd.Series(
        np.concatenate([fit.estimate.beta, fit.parameters.to_numpy()]), index=names, name="estimate"
    )
    return Bootstrap(draws, found.loglik[good], estimates, int((~good).sum()))


def _chunk(problem: Problem, θ, beta, reml: bool, size: int, seed: np.random.SeedSequence) -> Refits:
    rng = np.random.default_rng(seed)
    responses = simulate(problem.design, problem.covariance, problem.residual, θ, beta, size, rng)
    return refit(problem, responses, θ, reml=reml)


def simulated(fit: Fit, n: int, seed: Any) -> pd.DataFrame:
    """n responses drawn from the fitted model, one a column; the index is the row of the user's table."""
    if n < 1:
        raise InferenceError(f"n={n}: at least one response must be drawn.")
    model = fit.model
    rng = np.random.default_rng(seed)
    y = simulate(model.design, model.covariance, model.residual, fit.estimate.θ, fit.estimate.beta, n, rng)
    return pd.DataFrame(y, index=pd.Index(model.design.rows, name="row"))
