"""Interval plots: every parameter of both engines in a panel of its own, on its own scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ..model import LMM
from .style import calm, colours, effect_unit, markers, panels, parameter_unit, with_unit, wrapped

if TYPE_CHECKING:
    from ..comparison import Comparison


def plot_estimates(comparison: Comparison, ax: Any = None) -> np.ndarray:
    """Fixed effects of every reading: point and interval, one panel a coefficient; returns the axes.

    ax: None for a new figure, one pair of axes to divide, or at least as many axes as coefficients.
    """
    model = comparison.fit.model
    labels = [with_unit(c, effect_unit(model, c)) for c in comparison.fixed.index]
    return _interval_panels(comparison.fixed, labels, ax, zero=True)


def plot_variance(comparison: Comparison, ax: Any = None) -> np.ndarray:
    """Variance parameters of every reading: point and interval, one panel a parameter; returns the axes.

    A parameter on a boundary has a point and no interval in the closed form. The posterior's point is its
    median, as these posteriors are skew.
    """
    model: LMM = comparison.fit.model
    labels = [with_unit(n, parameter_unit(model, n)) for n in comparison.variance.index]
    return _interval_panels(comparison.variance, labels, ax, zero=False)


def _interval_panels(table: pd.DataFrame, labels: list[str], ax: Any, *, zero: bool) -> np.ndarray:
    readings = list(dict.fromkeys(table.columns.get_level_values(0)))
    height = 0.75 + 0.3 * len(readings)
    axes = panels(ax, len(table), columns=3, size=(3.2, height))
    for i, (panel, label) in enumerate(zip(axes, labels, strict=True)):
        _intervals(panel, table.iloc[i], readings)
        panel.set_title(wrapped(label, 38), fontsize=9)
        if i % min(3, len(axes)) and (ax is None or isinstance(ax, Axes)):
            panel.set_yticklabels([])
        low, high = panel.get_xlim()
        if zero and low < 0 < high:
            panel.axvline(0, color="0.75", linewidth=0.8, zorder=0)
    return axes


def _intervals(ax: Axes, row: pd.Series, readings: list[str]) -> None:
    """One line a reading, the closed form on top."""
    colour, marker = colours(readings), markers(readings)
    for y, reading in enumerate(reversed(readings)):
        own = row[reading]
        point = own.get("estimate", own.get("median", own.get("mean")))
        ax.plot(
            [own["lower"], own["upper"]], [y, y], color=colour[reading], linewidth=2.2, solid_capstyle="butt"
        )
        ax.plot(point, y, marker[reading], color=colour[reading], markersize=6, markeredgecolor="white")
    ax.set_yticks(range(len(readings)), list(reversed(readings)))
    ax.set_ylim(-0.6, len(readings) - 0.4)
    calm(ax)
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
