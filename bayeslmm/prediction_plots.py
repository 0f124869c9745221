"""Pictures of predictions: profiles of subjects with bands over their data, and shrinkage towards the
population.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from .covariance.correlation import Independent, TimeCorrelation
from .errors import DataError, InferenceError
from .plots.style import (
    BLUE,
    DATA,
    ORANGE,
    calm,
    column_label,
    effect_unit,
    panels,
    response_label,
    with_unit,
    wrapped,
)
from .plots.subjects import choose_axis, evenly, least_squares_by_group, linear_predictor, profile_subject
from .results import Fit

_PANELS = 12
_GRID = 60
_NAMED = 24


def plot_predictions(
    fit: Fit,
    ax: Any = None,
    *,
    subjects: Iterable[Any] | None = None,
    x: str | None = None,
    until: float | None = None,
    interval: float | None = 0.9,
    columns: int = 4,
    share_y: bool | None = None,
) -> np.ndarray:
    """Each subject's data, predicted profile and bands, and the population's line; returns the axes.

    The inner band is of the subject's mean, the outer one of a new measurement; both have `interval` (None:
    no bands) at every point, not for the whole curve. subjects: labels, 12 evenly chosen by default; x: the
    numeric column to draw along; until: where to, beyond the data for a forecast. Between the data a
    profile is drawn only if nothing else in the model varies within subjects, else it joins the predictions
    at the subject's rows.

    Raises DataError for an unknown subject, InferenceError where the x axis is not a number.
    """
    model = fit.model
    name, codes, labels = profile_subject(model)
    values, column, ticks = choose_axis(model, codes, x)
    if not column or ticks:
        raise InferenceError("Profiles run along a numeric column: name it, as in plot_predictions(fit, x='day').")
    chosen = _chosen(subjects, labels, name)
    fine = _continuous(fit, column, codes)
    if until is not None and not fine:
        raise InferenceError(
            f"until={until:g}: rows beyond the data cannot be made, as more than {column!r} varies within "
            f"{name}; predict them with fit.predict(newdata) and draw that."
        )
    new, owner = _rows_to_predict(fit, codes, chosen, column, values, fine, until)
    table = _bands(fit, new, interval)
    axes = panels(ax, len(chosen), columns=columns, size=(2.7, 2.2))
    for panel, code in zip(axes, chosen, strict=True):
        own = codes == code
        _panel(panel, values[own], model.design.y[own], table[owner == code], column)
        panel.set_title(f"{name} {labels[code]}", fontsize=9)
        calm(panel)
        panel.xaxis.set_major_locator(MaxNLocator(4))
        panel.yaxis.set_major_locator(MaxNLocator(5))
    _scales(axes, _band_is_visible(table) if share_y is None else share_y)
    _outer_labels(axes, column_label(model, column), response_label(model), columns)
    _profile_legend(axes[0], interval, ax is None)
    return axes


def _chosen(subjects: Iterable[Any] | None, labels: tuple[str, ...], name: str) -> list[int]:
    if subjects is None:
        return [int(i) for i in evenly(len(labels), _PANELS)]
    wanted = [str(s) for s in ([subjects] if isinstance(subjects, str) else subjects)]
    missing = [s for s in wanted if s not in labels]
    if missing or not wanted:
        known = ", ".join(labels[:8])
        raise DataError(
            f"No {name} {', '.join(map(repr, missing)) or '(empty list)'} in this fit; there are {known}, ..."
        )
    return [labels.index(s) for s in wanted]


def _continuous(fit: Fit, column: str, codes: np.ndarray) -> bool:
    """Whether rows between the data can be made: only `column` varies within subjects."""
    model = fit.model
    for part in model.residual.spec:
        if not isinstance(part, Independent) and not (isinstance(part, TimeCorrelation) and part.column == column):
            return False
    encodings = [model.design.encoding.fixed, *(e for es in model.design.encoding.effects for e in es)]
    used = {c for e in encodings for c in e.columns} | {c for t in model.design.terms for c in t.columns}
    used |= {c for p in model.residual.spec for c in (p.by, p.power) if c}
    frame = model.design.frame
    first = np.unique(codes, return_index=True)[1]
    for c in used - {column}:
        level = pd.factorize(frame[c])[0]
        if (level != level[first][codes]).any():
            return False
    return model.design.formula.offsets == ()


def _rows_to_predict(fit: Fit, codes, chosen, column: str, values, fine: bool, until: float | None):
    frame = fit.model.design.frame
    if not fine:
        rows = np.flatnonzero(np.isin(codes, chosen))
        rows = rows[np.lexsort((values[rows], codes[rows]))]
        return frame.iloc[rows], codes[rows]
    low, high = float(values.min()), float(values.max() if until is None else max(until, values.max()))
    grid = np.linspace(low, high, _GRID)
    first = np.array([np.flatnonzero(codes == code)[0] for code in chosen])
    own = [np.union1d(grid, values[codes == code]) for code in chosen]
    count = [len(g) for g in own]
    new = frame.iloc[np.repeat(first, count)].reset_index(drop=True).assign(**{column: np.concatenate(own)})
    return new, np.repeat(chosen, count)


def _bands(fit: Fit, new: pd.DataFrame, interval: float | None) -> pd.DataFrame:
    level = 0.9 if interval is None else interval
    mean = fit.predict(new, interval=level)
    response = fit.predict(new, what="response", interval=level)
    out = new.assign(mean=mean["prediction"].to_numpy(), population=mean["fixed"].to_numpy())
    for side in ("lower", "upper"):
        blank = np.nan if interval is None else 1.0
        out[f"mean_{side}"] = mean[side].to_numpy() * blank
        out[f"response_{side}"] = response[side].to_numpy() * blank
    return out


def _panel(ax: Axes, x: np.ndarray, y: np.ndarray, table: pd.DataFrame, column: str) -> None:
    t = table[column].to_numpy(float)
    ax.fill_between(t, table["response_lower"], table["response_upper"], color=BLUE, alpha=0.13, lw=0)
    ax.fill_between(t, table["mean_lower"], table["mean_upper"], color=BLUE, alpha=0.3, lw=0)
    ax.plot(t, table["population"], color=ORANGE, lw=1.2, ls="--")
    ax.plot(t, table["mean"], color=BLUE, lw=1.4)
    ax.plot(x, y, "o", color="black", ms=3, mec="white", mew=0.4)


def _band_is_visible(table: pd.DataFrame) -> bool:
    """Whether the outer band is a tenth of what all panels span."""
    width = (table["response_upper"] - table["response_lower"]).median()
    span = np.ptp(table[["mean", "population"]].to_numpy())
    return not width < 0.1 * span


def _scales(axes: np.ndarray, share: bool) -> None:
    """One x scale for all panels; one y scale, or a remark that each has its own."""
    low, high = zip(*(ax.get_xlim() for ax in axes), strict=True)
    bottom, top = zip(*(ax.get_ylim() for ax in axes), strict=True)
    for ax in axes:
        ax.set_xlim(min(low), max(high))
        if share:
            ax.set_ylim(min(bottom), max(top))
    if not share and len(axes) > 1:
        axes[0].annotate("each panel has its own scale", (0.02, 0.97), xycoords="axes fraction", va="top", fontsize=6)


def _outer_labels(axes: np.ndarray, x: str, y: str, columns: int) -> None:
    for i, ax in enumerate(axes):
        if i % min(columns, len(axes)) == 0:
            ax.set_ylabel(wrapped(y, 24), fontsize=9)
        if i + min(columns, len(axes)) >= len(axes):
            ax.set_xlabel(wrapped(x, 24), fontsize=9)


def _profile_legend(ax: Axes, interval: float | None, own_figure: bool) -> None:
    handles: list[Any] = [
        Line2D([], [], marker="o", ls="", color="black", ms=4, label="measured"),
        Line2D([], [], color=BLUE, lw=1.4, label="subject's mean"),
        Line2D([], [], color=ORANGE, lw=1.2, ls="--", label="population"),
    ]
    if interval is not None:
        handles.append(Patch(color=BLUE, alpha=0.43, lw=0, label=f"{interval:.0%} interval of the mean"))
        handles.append(Patch(color=BLUE, alpha=0.13, lw=0, label=f"{interval:.0%} of a measurement"))
    if own_figure:
        ax.figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), fontsize=8, frameon=False)
    else:
        ax.legend(handles=handles, fontsize=6, frameon=False)


# --- shrinkage --------------------------------------------------------------------------------------------


def plot_ols_to_eblup(fit: Fit, ax: Any = None, *, group: str | None = None) -> np.ndarray:
    """Where least squares on a subject's own rows puts its effects, and where the model moves them; returns
    the axes.

    With two or more effects the first is drawn against each other one, an arrow a subject; with one effect
    the EBLUP is drawn against least squares, beside the line of no shrinkage. Zero is the population.
    Subjects whose own rows cannot tell the effects apart have their EBLUP only.

    group: one grouping factor, the one with most effects by default.

    Raises InferenceError without random effects, or for an unknown group.
    """
    terms = fit.model.design.terms
    if not terms:
        raise InferenceError("The model has no random effects, so there is nothing to shrink.")
    term = (
        max(terms, key=lambda t: len(t.effects))
        if group is None
        else next((t for t in terms if t.group == group), None)
    )
    if term is None:
        raise InferenceError(f"group={group!r}: the model has {', '.join(t.group for t in terms)}.")
    others = {t.group: fit.w[t.group].values for t in terms if t is not term}
    rest = fit.model.design.y - linear_predictor(fit.model.design, fit.beta.values, others)
    alone, w = least_squares_by_group(term, rest), fit.w[term.group].values

    def label(k: int) -> str:
        return with_unit(f"{term.effects[k]}, from population", effect_unit(fit.model, term.effects[k]))

    q = len(term.effects)
    axes = panels(ax, max(q - 1, 1), columns=2, size=(5.0, 4.4))
    for k, panel in enumerate(axes, 1):
        if q > 1:
            _arrows(panel, alone[:, [0, k]], w[:, [0, k]])
            panel.set_xlabel(label(0))
            panel.set_ylabel(label(k))
            _names(panel, term.levels, alone[:, [0, k]], w[:, [0, k]])
        else:
            _against(panel, alone[:, 0], w[:, 0], term.group)
            panel.set_xlabel(f"least squares: {label(0)}")
            panel.set_ylabel(f"EBLUP: {label(0)}")
        calm(panel)
        panel.legend(fontsize=8, frameon=False, loc="best")
    without = int(np.isnan(alone).any(axis=1).sum())
    note = f"; {without} without least squares of their own" if without else ""
    axes[0].set_title(f"{len(term.levels)} levels of {term.group}{note}", fontsize=10)
    return axes


def _arrows(ax: Axes, alone: np.ndarray, w: np.ndarray) -> None:
    ok = ~np.isnan(alone).any(axis=1)
    ax.axhline(0, color=DATA, lw=0.6)
    ax.axvline(0, color=DATA, lw=0.6)
    ax.add_collection(LineCollection(list(np.stack([alone[ok], w[ok]], axis=1)), colors="#9a9a9a", lw=0.9, zorder=1))
    ax.plot(*alone[ok].T, "s", color=ORANGE, ms=4.5, label="least squares of its own rows", zorder=2)
    ax.plot(*w.T, "o", color=BLUE, ms=4.5, label="EBLUP", zorder=3)
    ax.autoscale_view()
    ax.margins(0.12)


def _names(ax: Axes, levels: np.ndarray, alone: np.ndarray, w: np.ndarray) -> None:
    """Name the subjects that are moved furthest, or all of a few."""
    ends = np.where(np.isnan(alone), w, alone)
    size = np.abs(ends - w) / np.maximum(np.nanstd(ends, axis=0), 1e-300)
    far = np.argsort(-size.sum(axis=1), kind="stable")[: len(levels) if len(levels) <= _NAMED else 8]
    for i in far:
        right, above = np.where(ends[i] >= w[i], 1, -1)
        sides: dict[str, Any] = {"ha": "left" if right > 0 else "right", "va": "bottom" if above > 0 else "top"}
        ax.annotate(str(levels[i]), ends[i], xytext=(4 * right, 4 * above), textcoords="offset points",
                    fontsize=7, color="#404040", **sides)  # fmt: skip


def _against(ax: Axes, alone: np.ndarray, w: np.ndarray, group: str) -> None:
    low, high = np.nanmin(alone), np.nanmax(alone)
    ax.plot([low, high], [low, high], color=DATA, lw=0.8, ls="--", label="no shrinkage")
    ax.axhline(0, color=DATA, lw=0.6)
    ax.plot(alone, w, "o", color=BLUE, ms=4.5, label=group)
