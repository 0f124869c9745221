"""Likelihood ratio tests between nested models, with the null distribution that fits what is tested."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from ..errors import InferenceError
from ..kernel.blocks import compress
from ..kernel.information import information
from ..kernel.likelihood import evaluate
from ..kernel.optimise import ZERO, maximise
from ..kernel.refit import Problem, in_chunks, inside, refit
from ..model import LMM
from ..printing import number
from .chibar import ChiBar, chi_bar
from .criteria import same_data
from .nesting import Embedding, embed
from .simulate import simulate
from .spectral import spectral_null

if TYPE_CHECKING:
    from ..results import Fit


@dataclass(frozen=True, eq=False)
class LRT:
    """A likelihood ratio test of the small model against the large one.

    statistic: 2(ℓ_large - ℓ_small); p; distribution: the null distribution in words; weights: {df: weight}
    of a mixture of χ², empty for a finite-sample distribution; p_naive: from χ² with as many df as
    parameters are tested, conservative where a variance is zero under the null; method: "REML" or "ML";
    refitted: whether the models were fitted anew for the test; tested: what the null hypothesis sets to
    zero; standard_error: of a simulated p; draws: of the statistic.
    """

    statistic: float
    p: float
    distribution: str
    weights: dict[int, float]
    p_naive: float
    df: int
    method: str
    refitted: bool
    tested: tuple[str, ...]
    note: str
    standard_error: float | None = None
    draws: np.ndarray | None = None

    def __str__(self) -> str:
        error = (
            f" (simulation error {number(self.standard_error, 2)})" if self.standard_error is not None else ""
        )
        lines = [
            f"H0: {' and '.join(self.tested)}.",
            f"Likelihood ratio ({self.method}) {number(self.statistic)}, p = {number(self.p, 3)}{error}, "
            f"from {self.distribution}.",
        ]
        if abs(self.p - self.p_naive) > 1e-12:
            lines.append(
                f"χ²({self.df}), which ignores the boundary or the sample size, gives p = "
                f"{number(self.p_naive, 3)}."
            )
        return "\n".join([*lines, *([self.note] if self.note else [])])

    __repr__ = __str__


def lrt(
    small: Fit | LMM,
    large: Fit | LMM,
    *,
    exact: bool = False,
    n: int | None = None,
    seed: Any = None,
    workers: int = 1,
    progress: bool = False,
) -> LRT:
    """Likelihood ratio test of a model against a larger one that contains it.

    Models with the same mean are compared by REML (or by ML if both are ML fits); with different means they
    are fitted by ML, and the result says so. Variances that the null hypothesis sets to zero lie on the
    boundary: the mixture of χ² that follows is found from what is tested (½χ²(0) + ½χ²(1) for one variance,
    ½χ²(1) + ½χ²(2) for a random slope with its covariance, and so on; see `chibar.py`).

    exact: simulate the finite-sample null distribution instead: spectral (Crainiceanu and Ruppert 2004) if
    the tested variance is the only one, else a parametric bootstrap with the estimates of the small model
    in place of the truth. n: draws, 100,000 spectral or 1,000 bootstrap by default. workers, progress: for
    the bootstrap.

    Raises InferenceError where the models are not nested, use different data, or where the asymptotic
    distribution does not exist because a parameter has no meaning under the null hypothesis (then take
    exact=True).
    """
    one, other, refitted, note = _fits(small, large)
    found = embed(one, other.model)
    reml = one.method == "REML"
    statistic, note = _statistic(one, other, found, note)
    cone = sum(len(c) for c in found.cones)
    df = found.mean + found.free + cone
    naive = float(stats.chi2.sf(statistic, df))
    base = LRT(statistic, np.nan, "", {}, naive, df, one.method, refitted, found.tested, note)
    if exact:
        draws, words = _null_draws(one, other, found, n, seed, workers, progress, reml)
        p = float((1 + np.sum(draws >= statistic - 1e-9)) / (1 + len(draws)))
        error = float(np.sqrt(p * (1 - p) / len(draws)))
        return replace(base, p=p, distribution=words, standard_error=error, draws=draws)
    if found.lost:
        raise InferenceError(
            f"Under the null hypothesis {', '.join(found.lost)} has no meaning, and the likelihood ratio "
            "has no chi-square or chi-bar-square limit. Take lrt(small, large, exact=True), a parametric "
            "bootstrap."
        )
    mixture = null_mixture(other, found, reml)
    if one.convergence.status == "boundary" and cone:
        warning = (
            "The small model is itself on a boundary, so that the mixture is rough: exact=True is safer."
        )
        base = replace(base, note=_join(note, warning))
    weights = {found.mean + found.free + k: float(w) for k, w in enumerate(mixture.weights) if w > 0}
    return replace(base, p=mixture.tail(statistic), distribution=str(mixture), weights=weights)


def _join(*notes: str) -> str:
    return " ".join(x for x in notes if x)


# --- the statistic ----------------------------------------------------------------------------------------


def _fits(small: Fit | LMM, large: Fit | LMM) -> tuple[Fit, Fit, bool, str]:
    """Both models fitted by the method that the test needs."""
    a, b = _model(small), _model(large)
    same_data(a.design, b.design)
    means_differ = a.design.X.shape[1] != b.design.X.shape[1] or not _same_span(a.design.X, b.design.X)
    given = [getattr(x, "method", None) for x in (small, large)]
    method = "ML" if means_differ or given == ["ML", "ML"] else "REML"
    one, other = _by(small, method), _by(large, method)
    changed = any(m not in (None, method) for m in given)
    note = ""
    if changed and means_differ:
        note = "The fixed effects differ, so that both models were fitted again by ML: REML needs the same X."
    elif changed:
        note = "One fit was by ML and one by REML: both are compared by REML."
    return one, other, changed, note


def _model(x: Fit | LMM) -> LMM:
    return x if isinstance(x, LMM) else x.model


def _by(x: Fit | LMM, method: str) -> Fit:
    if isinstance(x, LMM):
        return x.fit(method)
    return x if x.method == method else x.model.fit(method)


def _same_span(X: np.ndarray, other: np.ndarray) -> bool:
    Q = np.linalg.qr(other)[0]
    return bool(np.linalg.norm(X - Q @ (Q.T @ X)) <= 1e-7 * np.linalg.norm(X))


def _statistic(one: Fit, other: Fit, found: Embedding, note: str) -> tuple[float, str]:
    """2(ℓ_large - ℓ_small), with REML freed from the coding of X; the large model climbs again if it ended
    below.
    """
    reml = one.method == "REML"
    low, high = (f.loglik + (_log_basis(f) if reml else 0.0) for f in (one, other))
    if high < low - 1e-7:
        blocks, covariance = other.estimate.blocks, other.model.covariance
        again = maximise(compress(blocks), covariance, inside(covariance, found.θ / blocks.unit), reml=reml)
        high = max(high, again.evaluation.value + (_log_basis(other) if reml else 0.0))
        note = _join(note, "The fit of the large model was not at its maximum; the test used a better one.")
    return max(0.0, 2 * (high - low)), note


def _log_basis(fit: Fit) -> float:
    return float(np.log(np.abs(np.diag(fit.estimate.blocks.basis))).sum())


# --- null distributions -----------------------------------------------------------------------------------


def null_mixture(large: Fit, found: Embedding, reml: bool) -> ChiBar:
    """The chi-bar-square limit, from the expected information of the large model where the small one lies."""
    free = found.mean + found.free
    if not found.cones:
        return ChiBar(free, np.ones(1), None)
    sizes = [int((np.sqrt(8 * len(c) + 1) - 1) / 2) for c in found.cones]
    tested = np.concatenate(found.cones)
    if len(tested) == 1:
        return chi_bar(np.eye(1), sizes, free)
    blocks, covariance = large.estimate.blocks, large.model.covariance
    at = evaluate(blocks, covariance, found.θ / blocks.unit, reml=reml)
    if at is None:
        raise InferenceError("V is singular under the null hypothesis: take lrt(small, large, exact=True).")
    full = information(at, "expected", reml=reml)
    rest = np.setdiff1d(np.arange(len(full)), tested)
    rest = rest[np.diag(full)[rest] > ZERO * np.diag(full).max()]
    cross = full[np.ix_(tested, rest)]
    J = (
        full[np.ix_(tested, tested)]
        - cross @ np.linalg.pinv(full[np.ix_(rest, rest)], hermitian=True) @ cross.T
    )
    return chi_bar((J + J.T) / 2, sizes, free)


def _null_draws(
    one: Fit, other: Fit, found: Embedding, n, seed, workers, progress, reml
) -> tuple[np.ndarray, str]:
    if _single_component(one.model, other.model):
        rng = np.random.default_rng(seed)
        draws = spectral_null(
            other.model.design, other.model.design.terms[0], found.mean, n or 100_000, rng, reml=reml
        )
        return draws, f"its exact finite-sample distribution ({len(draws)} spectral draws)"
    work = partial(
        _chunk,
        Problem.of(one.model),
        Problem.of(other.model),
        one.estimate.θ,
        one.estimate.beta,
        found.θ,
        reml,
    )
    parts = in_chunks(
        work, n or 1000, seed=seed, workers=workers, progress=progress, title="Null distribution"
    )
    draws = np.concatenate(parts)
    good = draws[np.isfinite(draws)]
    if len(good) < 0.9 * len(draws):
        raise InferenceError(f"Only {len(good)} of {len(draws)} refits under the null hypothesis converged.")
    return good, f"a parametric bootstrap of the small model ({len(good)} draws)"


def _single_component(small: LMM, large: LMM) -> bool:
    """Whether the large model adds one variance to independent errors of one variance."""
    plain = (
        len(large.residual.parts) == 1
        and large.residual.parts[0].diagonal
        and large.residual.parts[0].size == 1
    )
    one = len(large.design.terms) == 1 and large.covariance.size == 2
    return plain and one and not small.design.terms and small.covariance.size == 1 and not large.signed


def _chunk(small: Problem, large: Problem, θ, beta, embedded, reml: bool, size: int, seed) -> np.ndarray:
    """Statistics of `size` data sets drawn from the small model's fit."""
    rng = np.random.default_rng(seed)
    Y = simulate(small.design, small.covariance, small.residual, θ, beta, size, rng)
    low, high = refit(small, Y, θ, reml=reml), refit(large, Y, embedded, reml=reml)
    basis = [np.linalg.qr(m.design.X, mode="r") for m in (small, large)] if reml else []
    shift = np.diff([np.log(np.abs(np.diag(b))).sum() for b in basis])[0] if reml else 0.0
    out = np.maximum(2 * (high.loglik - low.loglik + shift), 0.0)
    return np.where(low.converged & high.converged, out, np.nan)
