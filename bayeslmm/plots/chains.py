"""ArviZ's pictures of the chains: trace and rank plots of β and the variance parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import xarray as xr
from matplotlib.figure import Figure

from ..draws import population_draws, posterior_group
from ..errors import InferenceError
from .style import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION

if TYPE_CHECKING:
    from ..comparison import Comparison

_CHAINS = [BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, BLACK]


def plot_trace(comparison: Comparison, posterior: str | None = None) -> Figure:
    """Draws against their number, a colour a chain: healthy chains look alike and wander over the same range.

    posterior: which one, by its name in the tables; the first by default.
    """
    import arviz as az

    tree = _population(comparison, posterior)
    return _figure(az.plot_trace, tree, height=1.7)


def plot_rank(comparison: Comparison, posterior: str | None = None) -> Figure:
    """Ranks of the draws by chain, as departures from uniform: healthy chains stay near the line.

    Raises InferenceError for a posterior of one chain, whose ranks there is nothing to hold against.
    """
    import arviz as az

    tree = _population(comparison, posterior)
    if tree["posterior"].sizes["chain"] < 2:
        raise InferenceError(
            "A rank plot compares chains, and this posterior has one: sample with chains=2 or more."
        )
    return _figure(az.plot_rank, tree, height=1.9)


def _population(comparison: Comparison, posterior: str | None) -> xr.DataTree:
    name = next(iter(comparison.posteriors)) if posterior is None else posterior
    if name not in comparison.posteriors:
        known = ", ".join(map(repr, comparison.posteriors))
        raise InferenceError(f"No posterior is called {name!r} in this comparison; it has {known}.")
    draws = posterior_group(comparison.posteriors[name])
    return xr.DataTree.from_dict({"posterior": population_draws(comparison.fit.model, draws)})


def _figure(plot, tree: xr.DataTree, height: float) -> Figure:
    count = len(tree["posterior"].data_vars)
    columns = min(3, count)
    rows = -(-count // columns)
    size = {"figsize": (3.2 * columns, height * rows + 0.4), "layout": "constrained"}
    found = plot(tree, backend="matplotlib", color=_CHAINS, col_wrap=columns, figure_kwargs=size)
    return found.viz["figure"].item()
