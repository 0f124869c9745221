"""Shrinkage: how estimates of subjects move from least squares on their own rows to the population."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from ..covariance.binding import nested
from ..design import Term
from ..errors import InferenceError
from .style import BLACK, DATA, calm, colours, effect_unit, markers, panels, with_unit, wrapped
from .subjects import least_squares_by_group, linear_predictor

if TYPE_CHECKING:
    from ..comparison import Comparison

_NAMED = 40
_PAIRS = 6


def plot_shrinkage(comparison: Comparison, ax: Any = None, *, group: str | None = None) -> np.ndarray:
    """Deviations of subjects from the population: by least squares, by EBLUP and by the posterior mean of w.

    Least squares takes what Xβ̂ leaves of a subject's own rows, less the EBLUPs of other grouping factors
    unless these are nested in this one; subjects with too few rows for it have no such point, and the title
    counts them. With two or more effects the first is drawn against each other one, with one effect subjects
    are lines. The population stands at zero.

    group: the grouping factor; all of them by default, each in panels of its own.

    Raises InferenceError where the model has no random effects.
    """
    terms = comparison.fit.model.design.terms
    if not terms:
        raise InferenceError("The model has no random effects, so there is nothing to shrink.")
    if group is not None and group not in [t.group for t in terms]:
        raise InferenceError(
            f"No grouping factor {group!r}; the model has {', '.join(t.group for t in terms)}."
        )
    jobs = [(t, pair) for t in terms if group in (None, t.group) for pair in _pairs(len(t.effects))]
    tall = any(len(pair) == 1 and len(t.levels) > 12 for t, pair in jobs)
    axes = panels(ax, len(jobs), columns=2, size=(5.2, 5.4 if tall else 4.4))
    for panel, (term, pair) in zip(axes, jobs, strict=True):
        points = _points(comparison, term)
        (_paths if len(pair) == 2 else _lines)(panel, comparison, term, pair, points)
        calm(panel)
        alone = int(np.isnan(points["least squares"]).any(axis=1).sum())
        note = f"\n{alone} without a least-squares estimate of their own" if alone else ""
        panel.set_title(f"{len(term.levels)} levels of {wrapped(term.group, 40)}{note}", fontsize=10)
    _legend(axes[0], comparison, crosses=any(len(p) > 1 for _, p in jobs), own_figure=ax is None)
    return axes


def _pairs(q: int) -> list[tuple[int, ...]]:
    pairs: list[tuple[int, ...]] = [(0, k) for k in range(1, min(q, _PAIRS + 1))]
    return pairs or [(0,)]


def _points(comparison: Comparison, term: Term) -> dict[str, np.ndarray]:
    """Deviations (N, q) of each kind, in the order in which they shrink."""
    fit, design = comparison.fit, comparison.fit.model.design
    others = {
        t.group: fit.w[t.group].values
        for t in design.terms
        if t is not term and not nested(t.codes, term.codes)
    }
    r = design.y - linear_predictor(design, fit.beta.values, others)
    table = comparison.subjects[term.group]
    shape = (len(term.levels), len(term.effects))
    points = {"least squares": least_squares_by_group(term, r), fit.method: fit.w[term.group].values}
    return points | {name: table[name]["mean"].to_numpy().reshape(shape) for name in comparison.posteriors}


def _paths(
    ax: Axes, comparison: Comparison, term: Term, pair: tuple[int, ...], points: dict[str, np.ndarray]
) -> None:
    """One effect against another: arrows from least squares to the EBLUP."""
    i, j = pair
    readings = [comparison.fit.method, *comparison.posteriors]
    colour, marker = colours(readings), markers(readings)
    own, eblup = points["least squares"][:, [i, j]], points[readings[0]][:, [i, j]]
    ax.add_collection(
        LineCollection(list(np.stack([own, eblup], axis=1)), colors="0.75", linewidths=0.9, zorder=1)
    )
    small = 1.0 if len(own) <= _NAMED else 0.6
    ax.plot(*own.T, "o", color=DATA, markerfacecolor="none", markersize=5 * small, zorder=2)
    for reading in readings:
        size = (6 if reading == readings[0] else 3.5) * small
        ax.plot(
            *points[reading][:, [i, j]].T, marker[reading], color=colour[reading], markersize=size, zorder=3
        )
    ax.plot(0, 0, "+", color=BLACK, markersize=15, markeredgewidth=2, zorder=4)
    if len(term.levels) <= _NAMED:
        _name_the_extremes(ax, own, term.levels)
    ax.margins(0.08)
    ax.set_xlabel(_deviation(comparison, term.effects[i]), fontsize=9)
    ax.set_ylabel(_deviation(comparison, term.effects[j]), fontsize=9)


def _name_the_extremes(ax: Axes, own: np.ndarray, levels: np.ndarray) -> None:
    """Label the points that lie far out, where labels do not run into each other."""
    spread = np.nanstd(own, axis=0)
    distance = np.linalg.norm(own / np.where(spread > 0, spread, 1), axis=1)
    far = [k for k in np.argsort(-np.nan_to_num(distance)) if np.isfinite(distance[k])][:6]
    for k in far:
        ax.annotate(str(levels[k]), own[k], xytext=(5, 4), textcoords="offset points", fontsize=7, color=DATA)


def _lines(
    ax: Axes, comparison: Comparison, term: Term, pair: tuple[int, ...], points: dict[str, np.ndarray]
) -> None:
    """One effect: a line a subject, sorted by the EBLUP."""
    readings = [comparison.fit.method, *comparison.posteriors]
    colour, marker = colours(readings), markers(readings)
    order = np.argsort(points[readings[0]][:, 0])
    y = np.arange(len(order))
    own, eblup = points["least squares"][order, 0], points[readings[0]][order, 0]
    segments = np.stack([np.column_stack([own, y]), np.column_stack([eblup, y])], axis=1)
    ax.add_collection(LineCollection(list(segments), colors="0.75", linewidths=0.9, zorder=1))
    small = 1.0 if len(order) <= _NAMED else 0.5
    ax.plot(own, y, "o", color=DATA, markerfacecolor="none", markersize=5 * small, zorder=2)
    for reading in readings:
        size = (6 if reading == readings[0] else 3.5) * small
        ax.plot(
            points[reading][order, 0], y, marker[reading], color=colour[reading], markersize=size, zorder=3
        )
    ax.axvline(0, color=BLACK, linewidth=1, zorder=0)
    if len(order) <= _NAMED:
        ax.set_yticks(y, [wrapped(str(term.levels[k]), 24) for k in order], fontsize=7)
    else:
        ax.set_yticks([])
        ax.set_ylabel(f"{term.group}, sorted", fontsize=9)
    ax.set_xlabel(_deviation(comparison, term.effects[0]), fontsize=9)


def _deviation(comparison: Comparison, effect: str) -> str:
    unit = effect_unit(comparison.fit.model, effect)
    return wrapped(with_unit(f"{effect}: deviation from the population", unit), 48)


def _legend(ax: Axes, comparison: Comparison, *, crosses: bool, own_figure: bool) -> None:
    """Say what each marker is, below the panels where a figure of our own lets us."""
    readings = [comparison.fit.method, *comparison.posteriors]
    colour, marker = colours(readings), markers(readings)
    handles = ax.plot([], [], "o", color=DATA, markerfacecolor="none", label="least squares, own rows only")
    for reading in readings:
        name = (
            f"{reading}: EBLUP (plug-in)"
            if reading == readings[0]
            else f"{reading}: posterior mean (averaged)"
        )
        handles += ax.plot([], [], marker[reading], color=colour[reading], linestyle="", label=name)
    sign = {"marker": "+", "linestyle": "", "markersize": 10} if crosses else {"linewidth": 1}
    handles += ax.plot([], [], color=BLACK, markeredgewidth=2, label="population, at zero", **sign)
    if own_figure:
        ax.figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    else:
        ax.legend(handles=handles, fontsize=7, frameon=False)
