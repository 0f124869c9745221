"""One model, two readings side by side: the closed-form fit and draws from the posterior of the same LMM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import xarray as xr

from .comparison_tables import diagnostics_table, fixed_table, subject_table, variance_table
from .comparison_text import comparison_html, comparison_text, interval_words
from .draws import posterior_group
from .errors import InferenceError

if TYPE_CHECKING:
    from .results import Fit

_SAMPLERS = {"nuts": "NUTS"}


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """A fit beside posteriors of the same model.

    posteriors: by the name they have in the tables; fixed, variance: rows are parameters, columns (reading,
    quantity); subjects: for each grouping factor the EBLUP beside the posterior mean and sd of w, and their
    difference; diagnostics: one row a posterior; intervals: what the intervals are, in words.
    """

    fit: Fit
    posteriors: dict[str, xr.DataTree]
    level: float
    fixed: pd.DataFrame
    variance: pd.DataFrame
    subjects: dict[str, pd.DataFrame]
    diagnostics: pd.DataFrame
    intervals: dict[str, str]

    def plot_estimates(self, ax: Any = None):
        """Fixed effects of every reading with their intervals, one panel each; returns the axes."""
        from .plots import plot_estimates

        return plot_estimates(self, ax)

    def plot_variance(self, ax: Any = None):
        """Variance parameters of every reading with their intervals, one panel each; returns the axes."""
        from .plots import plot_variance

        return plot_variance(self, ax)

    def plot_shrinkage(self, ax: Any = None, *, group: str | None = None):
        """From per-subject least squares to EBLUP and posterior mean; returns the axes."""
        from .plots import plot_shrinkage

        return plot_shrinkage(self, ax, group=group)

    def plot_profiles(self, ax: Any = None, *, x: str | None = None, group: str | None = None):
        """Fitted profiles of subjects over their data, at most 24 panels; returns the axes."""
        from .plots import plot_profiles

        return plot_profiles(self, ax, x=x, group=group)

    def plot_trace(self, posterior: str | None = None):
        """ArviZ's trace plot of β and the variance parameters; returns the figure."""
        from .plots import plot_trace

        return plot_trace(self, posterior)

    def plot_rank(self, posterior: str | None = None):
        """ArviZ's rank plot of β and the variance parameters; returns the figure."""
        from .plots import plot_rank

        return plot_rank(self, posterior)

    def __str__(self) -> str:
        return comparison_text(self)

    def __repr__(self) -> str:
        return comparison_text(self)

    def _repr_html_(self) -> str:
        return comparison_html(self)


def compare(fit: Fit, *posteriors: xr.DataTree, level: float = 0.95, df: str | None = None) -> Comparison:
    """Put a fit and one or more posteriors of the same model side by side.

    posteriors: what `model.sample()` returned; they are named by their sampler. level: of every interval. df:
    of the confidence intervals of the fixed effects, as in `fit.summary`.

    Raises
    ------
    InferenceError
        No posterior is given, or one has other coefficients, parameters or groups than the fit.
    """
    if not posteriors:
        raise InferenceError(
            "compare(fit, posterior) needs at least one posterior: draw one by model.sample()."
        )
    if not 0 < level < 1:
        raise InferenceError(f"level={level!r}: an interval's level lies between 0 and 1, such as 0.95.")
    named = _named(posteriors)
    fixed = fixed_table(fit, named, level, df)
    return Comparison(
        fit=fit,
        posteriors=named,
        level=level,
        fixed=fixed,
        variance=variance_table(fit, named, level),
        subjects={term.group: subject_table(fit, named, term.group) for term in fit.model.design.terms},
        diagnostics=diagnostics_table(fit, named),
        intervals=interval_words(level, fixed.attrs["df"]),
    )


def _named(posteriors: tuple[xr.DataTree, ...]) -> dict[str, xr.DataTree]:
    """Posteriors by their sampler; a second of the same sampler has its number."""
    out: dict[str, xr.DataTree] = {}
    for tree in posteriors:
        name, count = _sampler(tree), 2
        base = name
        while name in out:
            name, count = f"{base} {count}", count + 1
        out[name] = tree
    return out


def _sampler(tree: xr.DataTree) -> str:
    """The name of the sampler that a result carries, as "NUTS" for "nuts (pymc)", else "posterior"."""
    inner = posterior_group(tree).attrs
    said = tree.attrs.get("sampler") or inner.get("sampler")
    if said is None:
        return "NUTS" if inner.get("inference_library") in ("pymc", "nutpie", "numpyro") else "posterior"
    name, _, engine = str(said).partition(" ")
    shown = _SAMPLERS.get(name.lower(), name)
    return shown if engine in ("", "(pymc)") else f"{shown} {engine}"
