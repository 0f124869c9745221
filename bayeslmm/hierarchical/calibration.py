"""Simulation-based calibration: does the sampler find back what the prior put in?

Parameters are drawn from the prior, data from the parameters, draws from the posterior of those data. The
rank of each true value among its draws is then uniform, whatever the model (Talts et al. 2018,
arXiv:1804.06788).
"""

from __future__ import annotations

import warnings
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

from ..draws import effect_draws, population_draws
from ..errors import ConvergenceNote, SamplingError
from ..kernel.refit import in_chunks
from .collapsed.sampler import sample_collapsed, seed_of
from .conditional import replicate
from .defaults import Priors
from .overrides import resolve_priors
from .prior_draws import prior_draws

if TYPE_CHECKING:
    from ..model import LMM

_BINS = 20
_CHUNK = 10  # replications that share one seed, and one step of the bar


@dataclass(frozen=True, eq=False)
class Calibration:
    """Ranks (replications x quantities) from 0 to `draws`; khat and method of each replication."""

    ranks: pd.DataFrame
    draws: int
    khat: np.ndarray
    method: tuple[str, ...]

    def test(self) -> pd.DataFrame:
        """χ² test of uniform ranks for each quantity, with Holm's correction for their number."""
        bins = min(_BINS, self.draws + 1)
        edges = np.linspace(-0.5, self.draws + 0.5, bins + 1)
        width = np.diff(np.ceil(edges))  # ranks that fall into each bin
        expected = len(self.ranks) * width / width.sum()
        counts = [np.histogram(self.ranks[name], np.ceil(edges) - 0.5)[0] for name in self.ranks]
        p = np.array([stats.chisquare(c, expected).pvalue for c in counts])
        order = np.argsort(p)
        holm = np.empty(len(p))
        holm[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
        return pd.DataFrame({"p": p, "holm": holm}, index=self.ranks.columns)

    def plot(self, columns: int = 4) -> Any:
        """Histograms of ranks, with the height of uniform ones and the band of 99 % of their bars; the figure."""
        import matplotlib.pyplot as plt

        names = list(self.ranks)
        columns = min(columns, len(names))
        rows = -(-len(names) // columns)
        figure, axes = plt.subplots(rows, columns, figsize=(2.6 * columns, 2.0 * rows), squeeze=False)
        bins = next(k for k in range(min(_BINS, self.draws + 1), 0, -1) if (self.draws + 1) % k == 0)  # of equal width
        low, high = stats.binom.ppf([0.005, 0.995], len(self.ranks), 1 / bins)
        for ax, name in zip(axes.ravel(), names, strict=False):
            edges = np.linspace(-0.5, self.draws + 0.5, bins + 1)
            counts, _, _ = ax.hist(self.ranks[name], edges, color="0.6", edgecolor="white", lw=0.5)
            ax.axhspan(low, high, color="tab:blue", alpha=0.2, lw=0)
            ax.axhline(len(self.ranks) / bins, color="tab:blue", lw=1)
            ax.set(xlim=(edges[0], edges[-1]), ylim=(0, 1.15 * max(high, counts.max())), yticks=[])
            ax.set_title(name, fontsize=9)
        for ax in axes.ravel()[len(names) :]:
            ax.set_axis_off()
        figure.supxlabel(f"rank of the true value among {self.draws} draws")
        figure.tight_layout()
        return figure


def sbc(
    model: LMM,
    n: int = 200,
    *,
    priors: Any = None,
    draws: int = 99,
    seed: Any = None,
    workers: int = 1,
    progress: bool = False,
) -> Calibration:
    """Check the collapsed sampler on n data sets simulated from the priors, with the design of the model.

    draws: of each posterior, so that ranks run from 0 to draws. Quantities: β, the variance parameters,
    and w of the first level of each grouping factor. workers: processes; progress: show a bar.

    Raises SamplingError for improper priors, from which nothing can be simulated.
    """
    chosen = resolve_priors(model, priors)
    if not chosen.proper:
        flat = ", ".join(chosen.improper())
        raise SamplingError(f"Calibration draws parameters from their priors, and those of {flat} are improper.")
    lean = copy(model)
    root = np.random.SeedSequence(seed_of(seed))
    layout = sample_collapsed(model, draws=2, chains=1, random_seed=1, priors=chosen, prior_draws=0)
    work = partial(_replications, lean, chosen, layout["posterior"].to_dataset(), draws)
    parts = in_chunks(
        work, n, seed=root, workers=workers, progress=progress, title="Calibration", chunk=_CHUNK
    )
    rows = [row for part in parts for row in part]
    ranks = pd.DataFrame([r for r, _, _ in rows])
    return Calibration(ranks, draws, np.array([k for _, k, _ in rows]), tuple(m for _, _, m in rows))


def _replications(model: LMM, priors: Priors, layout: xr.Dataset, draws: int, size: int, seed) -> list[tuple]:
    """(ranks, k̂, method) of `size` simulated data sets."""
    rng = np.random.default_rng(seed)
    truth = prior_draws(model, priors, layout, size, rng)
    y = replicate(model, truth, rng)
    values = _quantities(model, truth)
    out = []
    for k in range(size):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceNote)  # `method` tells
            tree = sample_collapsed(
                _with_response(model, y[k]), draws=draws, chains=1, random_seed=rng, priors=priors, prior_draws=0
            )
        found = _quantities(model, tree["posterior"].to_dataset())
        ranks = {name: int((found[name] < values[name][k]).sum()) for name in found}
        out.append((ranks, tree.attrs["khat"], tree.attrs["method"]))
    return out


def _with_response(model: LMM, y: np.ndarray) -> LMM:
    """The same model of another response."""
    other = copy(model)
    object.__setattr__(other, "design", replace(model.design, y=y))
    return other


def _quantities(model: LMM, draws: xr.Dataset) -> dict[str, np.ndarray]:
    found = {str(name): x.values.ravel() for name, x in population_draws(model, draws).data_vars.items()}
    for term in model.design.terms:
        w = effect_draws(model, draws, term.group)
        for j, effect in enumerate(term.effects):
            found[f"w_{term.group}[{term.levels[0]}, {effect}]"] = w[:, :, 0, j].ravel()
    return found
