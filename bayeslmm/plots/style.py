"""What every picture shares: colours that colour-blind readers tell apart, panels, labels with units."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from ..errors import InferenceError
from ..model import LMM

# Okabe and Ito (2008), Color Universal Design: told apart under every common colour blindness.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
CLOSED = BLUE
POSTERIORS = (VERMILION, GREEN, PURPLE, ORANGE)
DATA = "#6b6b6b"
MARKERS = ("s", "^", "D", "v")

_NO_UNIT = {"", "dimensionless", "unit not stated", "count"}
_SAME_UNIT = {"center"}


def colours(readings: Sequence[str]) -> dict[str, str]:
    """A colour for each reading: blue for the closed form, then one a posterior."""
    rest = {name: POSTERIORS[i % len(POSTERIORS)] for i, name in enumerate(readings[1:])}
    return {readings[0]: CLOSED, **rest}


def markers(readings: Sequence[str]) -> dict[str, str]:
    """A marker for each reading, so that colour is never the only difference."""
    return {readings[0]: "o", **{name: MARKERS[i % len(MARKERS)] for i, name in enumerate(readings[1:])}}


def panels(
    ax: Any, count: int, *, columns: int, size: tuple[float, float], share: bool = False
) -> np.ndarray:
    """Axes (count,) to draw on: a new figure for None, the axes given, or insets of one pair of axes.

    size: width and height of one panel in inches, for a new figure.

    Raises InferenceError where fewer axes are given than there are panels.
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    if ax is None:
        width = max(columns * size[0], 4.0)
        engine = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
        figsize = (width, rows * size[1] + 0.5)
        _, grid = plt.subplots(
            rows, columns, figsize=figsize, squeeze=False, sharex=share, sharey=share, layout=engine
        )
        for spare in grid.ravel()[count:]:
            spare.remove()
        used = grid.ravel()[:count]
        for last in used[-columns:]:
            last.tick_params(labelbottom=True)
        return used
    if isinstance(ax, Axes):
        return np.array([ax]) if count == 1 else _insets(ax, count, rows, columns)
    given = np.asarray(ax, dtype=object).ravel()
    if len(given) < count:
        raise InferenceError(
            f"This picture has {count} panels and {len(given)} axes were given: give {count}, or one to "
            "divide."
        )
    return given[:count]


def _insets(ax: Axes, count: int, rows: int, columns: int) -> np.ndarray:
    """Divide one pair of axes into a grid of panels."""
    ax.set_axis_off()
    width, height = 1 / columns, 1 / rows
    places = [(i % columns, rows - 1 - i // columns) for i in range(count)]
    boxes = [
        ((c + 0.1) * width, (r + 0.3) * height, 0.82 * width, 0.42 * height if rows > 1 else 0.55)
        for c, r in places
    ]
    return np.array([ax.inset_axes(box) for box in boxes], dtype=object)


def calm(ax: Axes) -> None:
    """Take away the frame at the top and right, and keep few ticks."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))


def wrapped(text: str, width: int = 26) -> str:
    """Long labels on several lines, broken after the signs that formulas have, too."""
    spaced = text.replace(":", ":\u200b").replace("[", "\u200b[").replace("_", "_\u200b")
    lines = textwrap.wrap(spaced.replace("\u200b", " \u200b"), width, break_long_words=True)
    return "\n".join(lines).replace(" \u200b", "").replace("\u200b", "")


# --- units --------------------------------------------------------------------------------------------------


def units_of(model: LMM) -> dict[str, str]:
    """Units of the columns, from `data.attrs["units"]`; columns without a meaningful one are left out."""
    units = model.design.frame.attrs.get("units")
    if not isinstance(units, dict):
        return {}
    return {str(c): str(u) for c, u in units.items() if u and str(u) not in _NO_UNIT}


def with_unit(label: str, unit: str) -> str:
    return f"{label} ({unit})" if unit else label


def response_label(model: LMM) -> str:
    """The response with its unit, where it is a plain column."""
    return with_unit(model.design.response, units_of(model).get(model.design.response, ""))


def column_label(model: LMM, column: str) -> str:
    return with_unit(column, units_of(model).get(column, ""))


def effect_unit(model: LMM, label: str) -> str:
    """The unit of a coefficient: the response's over those of the numeric columns in it, "" where unknown."""
    units, frame = units_of(model), model.design.frame
    top = units.get(model.design.response, "")
    below = []
    for part in split_interaction(label):
        plain = part
        for function in _SAME_UNIT:
            plain = (
                plain.removeprefix(f"{function}(").removesuffix(")")
                if plain.startswith(f"{function}(")
                else plain
            )
        if part == "Intercept" or "[" in part:
            if "(" in part.partition("[")[0] and not part.startswith("C("):
                return ""
            continue
        if plain not in frame.columns or not pd.api.types.is_numeric_dtype(frame[plain]):
            return ""
        below.append(units.get(plain, ""))
    below = [u for u in below if u]
    return "/".join([top, *below]) if top else ""


def split_interaction(label: str) -> list[str]:
    """ "age:Sex[T.Female]" -> ["age", "Sex[T.Female]"], leaving colons inside brackets alone."""
    parts, depth, start = [], 0, 0
    for i, ch in enumerate(label):
        depth += (ch in "([") - (ch in ")]")
        if ch == ":" and depth == 0:
            parts.append(label[start:i])
            start = i + 1
    return [*parts, label[start:]]


def parameter_unit(model: LMM, name: str) -> str:
    """The unit of a variance parameter by its name in `fit.parameters`."""
    units = units_of(model)
    for structure in model.covariance.structures:
        for p in structure.parameters:
            for full, label in zip(p.full_names(), p.labels or (None,), strict=True):
                if full != name:
                    continue
                if p.role == "sd":
                    return effect_unit(model, label if p.dim == "effect" and label else "Intercept")
                if p.role == "range":
                    return units.get(structure.correlation.column or "", "")
    return ""
