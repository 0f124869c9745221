"""Pictures that question a fit: random effects, variogram, residuals, influence. Each returns the axes it
drew on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from scipy import stats

from .errors import InferenceError
from .marginal.influence import Influence
from .marginal.random_effects import RandomEffects
from .plots.style import (
    BLUE,
    DATA,
    GREEN,
    ORANGE,
    VERMILION,
    calm,
    effect_unit,
    panels,
    response_label,
    with_unit,
    wrapped,
)
from .plots.subjects import evenly
from .printing import number
from .results import Fit
from .semivariogram import Variogram, variogram

_LEVELS = 60
_NAMED = 40


# --- caterpillar ------------------------------------------------------------------------------------------


def plot_random_effects(
    effects: RandomEffects | Fit, ax: Any = None, *, group: str | None = None, level: float = 0.95
) -> np.ndarray:
    """Caterpillar plot: EBLUPs in order with their intervals, a panel an effect; returns the axes.

    Thick bars are ±z times the conditional sd (β known), thin ones ±z times the prediction error sd (β
    estimated). Of more than 60 levels 60 are drawn, evenly chosen in the order of their EBLUP.

    Raises InferenceError without random effects, for an unknown group, or a level outside (0, 1).
    """
    effects = effects.random_effects() if isinstance(effects, Fit) else effects
    if not 0 < level < 1:
        raise InferenceError(f"level={level!r}: an interval's level lies between 0 and 1, such as 0.95.")
    table = effects.table(group)
    if not len(table):
        raise InferenceError("The model has no random effects to draw.")
    jobs = list(dict.fromkeys((g, e) for g, _, e in table.index))
    deep = max(min(len(effects[g][g]), _LEVELS) for g, _ in jobs)
    axes = panels(ax, len(jobs), columns=3, size=(3.4, max(2.2, 0.15 * deep + 0.9)))
    z = stats.norm.ppf((1 + level) / 2)
    for panel, (g, effect) in zip(axes, jobs, strict=True):
        own = table.xs((g, effect), level=("group", "effect")).sort_values("w")
        shown = own.iloc[evenly(len(own), _LEVELS)]
        _caterpillar(panel, shown, z)
        unit = effect_unit(effects.model, effect)
        panel.set_xlabel(with_unit("from the population", unit), fontsize=9)
        few = "" if len(own) == len(shown) else f"\n{len(shown)} of {len(own)} levels"
        panel.set_title(f"{wrapped(g, 30)}: {wrapped(effect, 30)}{few}", fontsize=10)
        calm(panel)
        panel.tick_params(axis="y", labelsize=7 if len(shown) <= _NAMED else 5)
    handles, labels = axes[0].get_legend_handles_labels()
    labels = [text.replace("%", f"{level:.0%}") for text in labels]
    if ax is None:
        axes[0].figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    else:
        axes[0].legend(handles, labels, fontsize=6, frameon=False)
    return axes


def _caterpillar(ax: Axes, shown, z: float) -> None:
    y = np.arange(len(shown))
    w = shown["w"].to_numpy()
    ax.axvline(0, color=DATA, lw=0.8)
    outer, inner = z * shown["se_prediction"].to_numpy(), z * shown["se_conditional"].to_numpy()
    ax.errorbar(w, y, xerr=outer, fmt="none", ecolor=ORANGE, elinewidth=1.0, capsize=2.5, label="% with β estimated")
    ax.hlines(y, w - inner, w + inner, color=BLUE, lw=2.4, label="% with β known")
    ax.plot(w, y, "o", color="black", ms=3, label="EBLUP")
    ax.set_yticks(y, [str(x) for x in shown.index])
    ax.set_ylim(-0.8, len(shown) - 0.2)


# --- variogram --------------------------------------------------------------------------------------------


def plot_variogram(source: Variogram | Fit, ax: Any = None, *, pairs: bool = False) -> Axes:
    """The sample variogram by lag, and the model's: error, then serial process, then random effects;
    returns the axes.

    The area of a point is its number of pairs. Dashed: the residuals' total variance, where the curve would
    end without random effects; in words where it is far above the curve. pairs: every pair as a faint dot.
    """
    v = variogram(source) if isinstance(source, Fit) else source
    panel = panels(ax, 1, columns=1, size=(6.4, 4.0))[0]
    x = v.table
    curve = max(float(x["gamma"].max()), float(x.get("model", x["gamma"]).max()))
    totals = [v.total_variance] + ([] if v.model_variance is None else [v.model_variance])
    off = min(totals) > 2.5 * curve
    unit = v.units.get(v.response, "")
    if pairs:
        panel.plot(v.lag, v.value, ".", color=DATA, ms=2, alpha=0.25, zorder=0, label="pairs")
    if "model" in x:
        _layers(panel, v)
    size = 10 + 60 * x["pairs"] / x["pairs"].max()
    panel.scatter(x["lag"], x["gamma"], s=size, color="black", ec="white", lw=0.6, zorder=4)
    panel.plot([], [], "o", color="black", ms=5, label="sample")
    if off:
        words = f"residuals {number(v.total_variance)}"
        words += "" if v.model_variance is None else f", model {number(v.model_variance)}"
        words = f"↑ total variance, above the scale:\n{with_unit(words, f'{unit}²' if unit else '')}"
        panel.annotate(words, (0.02, 0.98), xycoords="axes fraction", va="top", fontsize=8)
    else:
        panel.axhline(v.total_variance, color="black", lw=1, ls="--", label="total variance, residuals")
        if v.model_variance is not None:
            panel.axhline(v.model_variance, color=BLUE, lw=1, ls=":", label="total variance, model")
    panel.set_xlabel(with_unit(f"lag in {v.time}", v.units.get(v.time, "")))
    panel.set_ylabel(with_unit("½ (difference of residuals)²", f"{unit}²" if unit else ""))
    panel.set_ylim(0, 1.25 * curve if off else 1.12 * max(*totals, curve))
    panel.set_xlim(0, 1.04 * float(x["lag"].max()))
    calm(panel)
    panel.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return panel


def _layers(ax: Axes, v: Variogram) -> None:
    """The model's parts, one on top of the other, up to its total variance."""
    x, floor = v.table, np.zeros(len(v.table))
    parts = [
        ("error", GREEN, "measurement error"),
        ("serial", ORANGE, "serial process"),
        ("random", BLUE, "random slopes"),
    ]
    for name, colour, label in parts:
        height = x[name].to_numpy()
        if height.max() <= 1e-9 * x["model"].max():
            continue
        ax.fill_between(x["lag"], floor, floor + height, color=colour, alpha=0.3, lw=0, label=label)
        floor = floor + height
    ax.plot(x["lag"], x["model"], color="black", lw=1.4, label="model")


# --- residuals --------------------------------------------------------------------------------------------


def plot_residuals(fit: Fit, ax: Any = None, *, kind: str = "standardized", max_lag: int | None = None) -> np.ndarray:
    """Residuals against the fit, against normal quantiles, and their correlation by lag; returns the three
    axes.

    Under a true model standardised residuals are a cloud of sd 1, a straight line, and within the bounds
    but for 1 lag in 20. kind: as in `fit.residuals`.
    """
    e = fit.residuals(kind).to_numpy()
    level = "subject" if kind in ("conditional", "pearson") else "population"
    fitted = fit.predict(level=level, se=False)
    mean = (fitted["fixed"] + fitted["random"]).to_numpy()
    axes = panels(ax, 3, columns=3, size=(3.6, 3.3))
    scaled = kind in ("standardized", "pearson")
    unit = "" if scaled else response_label(fit.model).partition(" (")[2].removesuffix(")")
    _cloud(axes[0], mean, e)
    axes[0].set_xlabel(wrapped(f"fitted {response_label(fit.model)}", 34))
    axes[0].set_ylabel(with_unit(f"{kind} residual", unit))
    _quantiles(axes[1], e, 1.0 if scaled else float(np.std(e)))
    axes[1].set_ylabel(with_unit(f"{kind} residual", unit))
    _lags(axes[2], fit.autocorrelation(kind, max_lag))
    for panel in axes:
        calm(panel)
    axes[2].xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return axes


def _cloud(ax: Axes, mean: np.ndarray, e: np.ndarray) -> None:
    ax.axhline(0, color=DATA, lw=0.8)
    ax.plot(mean, e, "o", color=BLUE, ms=3, alpha=0.6 if len(e) < 2000 else 0.2, mew=0)
    if len(np.unique(mean)) >= 8 and len(e) >= 40:
        order = np.argsort(mean, kind="stable")
        parts = np.array_split(order, min(10, len(e) // 10))
        ax.plot([mean[p].mean() for p in parts], [e[p].mean() for p in parts], color=VERMILION, lw=1.6,
                label="mean of tenths" if len(parts) == 10 else "mean of groups")  # fmt: skip
        ax.legend(fontsize=8, frameon=False)


def _quantiles(ax: Axes, e: np.ndarray, scale: float) -> None:
    n = len(e)
    q = stats.norm.ppf((np.arange(n) + 0.5) / n)
    ax.plot(q, q * scale, color=DATA, lw=0.8, label="normal")
    ax.plot(q, np.sort(e), "o", color=BLUE, ms=3, alpha=0.6, mew=0)
    ax.set_xlabel("normal quantile")
    ax.legend(fontsize=8, frameon=False)


def _lags(ax: Axes, table) -> None:
    rest = table.iloc[1:]
    ax.axhline(0, color=DATA, lw=0.8)
    ax.fill_between(rest.index, -rest["bound"], rest["bound"], color=DATA, alpha=0.2, lw=0, label="95% by chance")
    ax.vlines(rest.index, 0, rest["autocorrelation"], color=BLUE, lw=2.2)
    ax.plot(rest.index, rest["autocorrelation"], "o", color=BLUE, ms=4)
    ax.set_xlabel("lag (measurements)")
    ax.set_ylabel("autocorrelation")
    ax.legend(fontsize=8, frameon=False)


# --- influence --------------------------------------------------------------------------------------------


def plot_influence(influence: Influence, ax: Any = None, *, named: int = 5) -> np.ndarray:
    """Cook's distance of every case, and DFBETAS of each coefficient; returns the two axes.

    The `named` cases with the largest distance carry their labels. Dotted: ±2/√cases, a usual guide.
    """
    axes = panels(ax, 2, columns=2, size=(4.8, 3.6))
    cook = influence.table["cook"]
    order = np.argsort(-np.nan_to_num(cook.to_numpy(), nan=-1.0), kind="stable")[:named]
    at = np.arange(len(cook))
    axes[0].vlines(at, 0, cook, color=BLUE, lw=1.6)
    axes[0].plot(at, cook, "o", color=BLUE, ms=3.5)
    for i in order:
        axes[0].annotate(str(cook.index[i]), (at[i], cook.iloc[i]), xytext=(0, 4), textcoords="offset points",
                         fontsize=7, ha="center")  # fmt: skip
    axes[0].set_ylim(0, 1.14 * float(np.nanmax(cook)))
    axes[0].set_ylabel("Cook's distance")
    axes[0].set_xlabel(f"{influence.by} left out, in the order of the data")
    axes[0].set_title(f"fit without each {influence.by}: {influence.method}", fontsize=10)
    _dfbetas(axes[1], influence, order)
    for panel in axes:
        calm(panel)
    axes[0].set_xticks([])
    return axes


def _dfbetas(ax: Axes, influence: Influence, order: np.ndarray) -> None:
    d = influence.dfbetas
    guide = 2 / np.sqrt(len(d))
    names = list(d.columns)
    ax.axvline(0, color=DATA, lw=0.8)
    for side in (-guide, guide):
        ax.axvline(side, color=DATA, lw=1, ls=":", label="±2/√cases" if side > 0 else None)
    for k, name in enumerate(names):
        values = d[name].to_numpy()
        ax.plot(values, np.full(len(values), k), "|", color=BLUE, ms=12, mew=1.2)
        i = int(np.nanargmax(np.abs(values)))
        ax.annotate(
            str(d.index[i]),
            (values[i], k),
            xytext=(0, 9),
            textcoords="offset points",
            fontsize=8,
            ha="center",
        )
    ax.set_yticks(range(len(names)), [wrapped(n, 22) for n in names])
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlabel("DFBETAS (change in standard errors)")
    ax.legend(fontsize=8, frameon=False, loc="upper right")
