"""Fitted profiles of subjects over their data, one small panel a subject."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ..errors import DataError
from ..model import LMM
from .style import BLACK, DATA, colours, column_label, panels, response_label, wrapped
from .subjects import choose_axis, evenly, linear_predictor, profile_subject

if TYPE_CHECKING:
    from ..comparison import Comparison

MOST_PANELS = 24
_DASHES = ("--", ":", "-.", (0, (1, 3)))


def plot_profiles(
    comparison: Comparison, ax: Any = None, *, x: str | None = None, group: str | None = None
) -> np.ndarray:
    """Data, population line and each engine's line of each subject; returns the axes.

    A line joins the fitted values at the subject's own rows (their mean where several rows share x; over
    categories nothing is joined). It has all random effects of those rows, not the serial process. Of more
    than 24 subjects 24 are drawn, evenly chosen in their order.

    x: the column along the horizontal axis; by default the numeric covariate of the random effects, else of
    the residual or the fixed part, else a factor, else the order of rows. group: the grouping factor of the
    panels.

    Raises DataError for an unknown column or group.
    """
    model = comparison.fit.model
    name, codes, labels = _subjects(model, group)
    if x is not None and x not in model.design.frame.columns:
        raise DataError(
            f"x={x!r} is no column of the table; it has {', '.join(map(str, model.design.frame.columns))}."
        )
    values, column, ticks = choose_axis(model, codes, x)
    shown = evenly(len(labels), MOST_PANELS)
    axes = panels(ax, len(shown), columns=6 if len(shown) > 8 else 4, size=(1.75, 1.6), share=True)
    lines = _fitted(comparison)
    for panel, k in zip(axes, shown, strict=True):
        rows = np.flatnonzero(codes == k)
        own = {n: pd.Series(η[rows]).groupby(values[rows]).mean() for n, η in lines.items()}
        _panel(panel, values[rows], model.design.y[rows], own, comparison, joined=not ticks)
        panel.set_title(wrapped(str(labels[k]), 22), fontsize=8, pad=3)
        if ticks:
            panel.set_xticks(
                range(len(ticks)), ticks, rotation=90 if max(map(len, ticks)) > 2 else 0, fontsize=7
            )
            panel.set_xlim(-0.6, len(ticks) - 0.4)
    some = f"{len(shown)} of {len(labels)} levels of {name}, evenly chosen"
    title = some if len(shown) < len(labels) else f"{len(labels)} levels of {name}"
    x_label = column_label(model, column) if column else f"order of the rows within {name}"
    _around(axes, comparison, x_label, title if name else "all rows", own_figure=ax is None)
    return axes


def _subjects(model: LMM, group: str | None) -> tuple[str, np.ndarray, tuple[str, ...]]:
    if group is None:
        return profile_subject(model)
    term = next((t for t in model.design.terms if t.group == group), None)
    if term is None:
        known = ", ".join(t.group for t in model.design.terms) or "none"
        raise DataError(f"No grouping factor {group!r} in this model; it has {known}.")
    return group, term.codes, tuple(term.levels)


def _fitted(comparison: Comparison) -> dict[str, np.ndarray]:
    """Fitted values (n,): of the population, then of subjects by each reading."""
    fit, design = comparison.fit, comparison.fit.model.design
    lines = {"population": linear_predictor(design, fit.beta.values, {})}
    lines[fit.method] = linear_predictor(design, fit.beta.values, {g: w.values for g, w in fit.w.items()})
    for name in comparison.posteriors:
        beta = comparison.fixed[name]["mean"].to_numpy()
        w = {g: comparison.subjects[g][name]["mean"].to_numpy().reshape(fit.w[g].shape) for g in fit.w}
        lines[name] = linear_predictor(design, beta, w)
    return lines


def _panel(
    ax: Axes,
    x: np.ndarray,
    y: np.ndarray,
    lines: dict[str, pd.Series],
    comparison: Comparison,
    *,
    joined: bool,
) -> None:
    """Data and lines of one subject; over categories, a line is a bar at each and nothing between."""
    ax.plot(x, y, "o", color=DATA, markersize=3, markerfacecolor="none", markeredgewidth=0.8, zorder=3)
    if joined:
        ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    for (_, line), style in zip(lines.items(), _styles(comparison), strict=True):
        at = line.index.to_numpy(float)
        if joined:
            alone = "o" if len(at) == 1 else None
            ax.plot(at, line.to_numpy(), **_without_label(style), marker=alone, markersize=4)
        else:
            ax.hlines(line.to_numpy(), at - 0.38, at + 0.38, **_without_label(style))
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=7)


def _styles(comparison: Comparison) -> list[dict[str, Any]]:
    """How the population line and each reading's line are drawn, and what the legend calls them."""
    readings = [comparison.fit.method, *comparison.posteriors]
    colour = colours(readings)
    styles: list[dict[str, Any]] = [
        {"color": BLACK, "linewidth": 0.8, "alpha": 0.6, "label": f"population ({readings[0]})"}
    ]
    for i, name in enumerate(readings):
        what = "subject, EBLUP" if i == 0 else "subject, posterior mean"
        dash = "-" if i == 0 else _DASHES[(i - 1) % len(_DASHES)]
        line = {"color": colour[name], "linewidth": 2.4 if i == 0 else 1.5, "linestyle": dash}
        styles.append({**line, "label": f"{what} ({name})"})
    return styles


def _without_label(style: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in style.items() if k != "label"}


def _around(axes: np.ndarray, comparison: Comparison, x_label: str, title: str, *, own_figure: bool) -> None:
    """Labels and a legend for all panels together; on the first panel where the figure is the caller's."""
    handles = axes[0].plot([], [], "o", color=DATA, markerfacecolor="none", label="measured")
    for style in _styles(comparison):
        handles += axes[0].plot([], [], **style)
    response = response_label(comparison.fit.model)
    if own_figure:
        figure = axes[0].figure
        figure.supxlabel(x_label, fontsize=10)
        figure.supylabel(response, fontsize=10)
        place = {"loc": "outside upper center", "ncols": 3 if len(axes) < 9 else 5}
        figure.legend(handles=handles, **place, fontsize=8, frameon=False, title=title, title_fontsize=10)
        return
    axes[0].legend(handles=handles, fontsize=6, frameon=False)
    axes[0].set_xlabel(x_label, fontsize=8)
    axes[0].set_ylabel(response, fontsize=8)
