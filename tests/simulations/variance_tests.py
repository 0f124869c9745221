"""Size of tests of variances and coverage of their intervals, in simulated sets under known truth.

python tests/simulations/variance_tests.py size 10000
python tests/simulations/variance_tests.py exact 10000
python tests/simulations/variance_tests.py coverage 2000
"""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pandas as pd
from rich.progress import track
from scipy import stats

import bayeslmm as bl
from bayeslmm.kernel.refit import Problem, refit
from bayeslmm.marginal.simulate import simulate
from bayeslmm.marginal.spectral import spectral_null

CHUNK = 500


def layout(subjects: int, visits: int = 4) -> pd.DataFrame:
    """Subjects seen at the same visits, half of them in each arm; y is a place for simulated responses."""
    rows = subjects * visits
    return pd.DataFrame({
        "id": np.repeat(np.arange(subjects), visits),
        "t": np.tile(np.arange(visits, dtype=float), subjects),
        "arm": np.repeat(np.where(np.arange(subjects) < subjects // 2, "a", "b"), visits),
        "y": np.arange(rows, dtype=float) % 5,
    })  # fmt: skip


def ratios(small: bl.LMM, large: bl.LMM, truth: np.ndarray, sets: int, seed: int) -> np.ndarray:
    """REML likelihood ratios of sets drawn from the small model with linear coordinates `truth` and β = 0."""
    a, b = Problem.of(small), Problem.of(large)
    rng = np.random.default_rng(seed)
    start = np.append(truth[:1], np.zeros(large.covariance.size - len(truth)))
    start = np.concatenate([start, truth[1:]])
    out = []
    for size in track([CHUNK] * (sets // CHUNK) + [sets % CHUNK] * (sets % CHUNK > 0), transient=True):
        Y = simulate(a.design, a.covariance, a.residual, truth, np.zeros(a.design.X.shape[1]), size, rng)
        low, high = refit(a, Y, truth, reml=True), refit(b, Y, start, reml=True)
        assert low.converged.all()
        assert high.converged.mean() > 0.999
        out.append(np.maximum(2 * (high.loglik - low.loglik), 0))
    return np.concatenate(out)


def rejection(statistic: np.ndarray, tail) -> tuple[float, float]:
    """(share of sets with p < 5 %, its standard error)."""
    p = tail(np.where(statistic < 1e-7, 0.0, statistic))
    size = float(np.mean(p < 0.05))
    return size, float(np.sqrt(size * (1 - size) / len(statistic)))


def slope_size(sets: int, subjects: int = 50, seed: int = 1) -> dict[str, tuple[float, float]]:
    """Random slope, none in truth: the mixture ½χ²(1) + ½χ²(2) and the naive χ²(2)."""
    data = layout(subjects)
    small, large = bl.LMM("y ~ t * arm + (1 | id)", data), bl.LMM("y ~ t * arm + (t | id)", data)
    found = ratios(small, large, np.array([1.0, 1.0]), sets, seed)
    return {
        "½χ²(1) + ½χ²(2)": rejection(found, lambda x: (stats.chi2.sf(x, 1) + stats.chi2.sf(x, 2)) / 2),
        "χ²(2), naive": rejection(found, lambda x: stats.chi2.sf(x, 2)),
    }


def exact_size(sets: int, subjects: int = 10, seed: int = 2) -> dict[str, tuple[float, float]]:
    """Random intercept, none in truth: the exact restricted test, ½χ²(0) + ½χ²(1) and the naive χ²(1)."""
    data = layout(subjects)
    small, large = bl.LMM("y ~ t * arm", data), bl.LMM("y ~ t * arm + (1 | id)", data)
    a, b = Problem.of(small), Problem.of(large)
    rng = np.random.default_rng(seed)
    null = np.sort(spectral_null(large.design, large.design.terms[0], 0, 400_000, rng, reml=True))
    found = []
    for size in track([CHUNK] * (sets // CHUNK) + [sets % CHUNK] * (sets % CHUNK > 0), transient=True):
        Y = simulate(a.design, a.covariance, a.residual, np.ones(1), np.zeros(4), size, rng)
        low, high = refit(a, Y, np.ones(1), reml=True), refit(b, Y, np.array([0.1, 1.0]), reml=True)
        found.append(np.maximum(2 * (high.loglik - low.loglik), 0))
    statistic = np.concatenate(found)
    return {
        "exact": rejection(statistic, lambda x: 1 - np.searchsorted(null, x) / len(null)),
        "½χ²(0) + ½χ²(1)": rejection(statistic, lambda x: np.where(x > 0, stats.chi2.sf(x, 1) / 2, 1.0)),
        "χ²(1), naive": rejection(statistic, lambda x: stats.chi2.sf(x, 1)),
    }


def coverage(sets: int, subjects: int = 20, seed: int = 3) -> pd.DataFrame:
    """95 % intervals of a random intercept model with 4 visits, REML; share of sets whose interval holds
    the truth.
    """
    data = layout(subjects)
    model = bl.LMM("y ~ t * arm + (1 | id)", data)
    rng = np.random.default_rng(seed)
    inside: dict[tuple[str, str], list[bool]] = {}
    for truth in track((0.25, 1.0), transient=True):
        Y = simulate(
            model.design, model.covariance, model.residual, np.array([truth, 1.0]), np.zeros(4), sets, rng
        )
        true = {"sd_id[Intercept]": np.sqrt(truth), "sigma": 1.0}
        for y in Y.T:
            fit = replace_response(model, y).fit()
            for method in ("profile", "wald"):
                table = fit.confint(method) if method == "wald" else fit.confint("profile")
                for name, value in true.items():
                    lower, upper = table.loc[name, ["lower", "upper"]]
                    held = bool(lower <= value <= upper) if np.isfinite(upper) else False
                    inside.setdefault((f"{name}, variance {truth:g}", method), []).append(held)
    table = pd.Series({k: float(np.mean(v)) for k, v in inside.items()}).unstack()  # noqa: PD010
    return table.assign(error=np.sqrt(0.05 * 0.95 / sets))


def replace_response(model: bl.LMM, y: np.ndarray) -> bl.LMM:
    """The same model for another response."""
    other = object.__new__(bl.LMM)
    for name in ("formula", "covariance", "residual", "signed"):
        object.__setattr__(other, name, getattr(model, name))
    object.__setattr__(other, "design", replace(model.design, y=y))
    return other


if __name__ == "__main__":
    kind, count = sys.argv[1], int(sys.argv[2])
    result = {"size": slope_size, "exact": exact_size, "coverage": coverage}[kind](count)
    if isinstance(result, pd.DataFrame):
        print(result.round(4).to_string())
    else:
        for name, (size, error) in result.items():
            print(f"{name:20s} {100 * size:.2f} % (standard error {100 * error:.2f} %)")
