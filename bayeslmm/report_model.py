"""The model of a comparison in formulas, with its numbers, as HTML."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from .printing import number

if TYPE_CHECKING:
    from .comparison import Comparison
    from .results import Fit

_CORRELATIONS = {
    "Exponential": "exp(−<i>u</i>/<i>r</i>)",
    "Gaussian": "exp(−(<i>u</i>/<i>r</i>)²)",
    "Matern32": "(1 + <i>h</i>) exp(−<i>h</i>), <i>h</i> = √3 <i>u</i>/<i>r</i>",
    "Matern52": "(1 + <i>h</i> + <i>h</i>²/3) exp(−<i>h</i>), <i>h</i> = √5 <i>u</i>/<i>r</i>",
    "Spherical": "1 − 1.5 <i>u</i>/<i>r</i> + 0.5 (<i>u</i>/<i>r</i>)³ up to <i>r</i>, then 0",
    "AR1": "ρ<sup>|j−k|</sup>",
    "CompoundSymmetry": "ρ for every pair of visits",
    "Unstructured": "a correlation of its own for every pair of visits",
    "Toeplitz": "one correlation for each distance between visits",
    "Antedependence": "products of the correlations of neighbouring visits",
}


def model_section(comparison: Comparison) -> str:
    """Both readings of the model, each with its own estimates."""
    return marginal_formula(comparison.fit) + "".join(
        hierarchical_formula(comparison, name) for name in comparison.posteriors
    )


def marginal_formula(fit: Fit) -> str:
    """Y ~ N(Xβ, ZGZ' + R) with the estimates of the closed form."""
    response = escape(fit.model.design.response)
    lines = [
        "<i>Y</i> ~ N(<i>X</i>β, <i>V</i>), &nbsp; <i>V</i> = <i>Z G Z</i>′ + <i>R</i>",
        f"E[{response}] = {linear_combination(fit.model.design.coefs, fit.beta.values)}"
        + (" + offset" if fit.model.design.offset.any() else ""),
        *(covariance_line(group, G.values, list(G.coords["effect"].values)) for group, G in fit.G.items()),
        *residual_lines(fit, {n: float(v) for n, v in fit.parameters.items()}),
    ]
    return (
        f"<h3>Marginal: fitted by {fit.method}</h3><p>It describes the population's mean and how "
        f"measurements vary and go together. The random effects are integrated out.</p>{_formula(lines)}"
    )


def hierarchical_formula(comparison: Comparison, name: str) -> str:
    """Y | w ~ N(Xβ + Zw, R), w ~ N(0, G) with posterior means of β and medians of the variance parameters."""
    fit = comparison.fit
    design = fit.model.design
    response = escape(design.response)
    beta = comparison.fixed[name]["mean"].to_numpy()
    median = comparison.variance[name]["median"]
    own = "".join(
        f" + {_w(term.group, effect)}" + ("" if effect == "Intercept" else f"·{escape(effect)}")
        for term in design.terms
        for effect in term.effects
    )
    lines = [
        "<i>Y</i> | <i>w</i> ~ N(<i>X</i>β + <i>Zw</i>, <i>R</i>), &nbsp; <i>w</i> ~ N(0, <i>G</i>)",
        f"E[{response} | <i>w</i>] = {linear_combination(design.coefs, beta)}{own}",
        *(_spread_line(comparison, term.group, name) for term in design.terms),
        *residual_lines(fit, {str(n): float(v) for n, v in median.items()}),
    ]
    return (
        f"<h3>Hierarchical: posterior by {escape(name)}</h3><p>It describes each subject around the "
        "population. All parameters have priors; shown are posterior means of β and medians of the rest.</p>"
        f"{_formula(lines)}"
    )


def linear_combination(labels, values: np.ndarray) -> str:
    """251.4 + 10.47·Days."""
    parts: list[str] = []
    for label, value in zip(labels, values, strict=True):
        sign = "−" if value < 0 else "+"
        term = number(abs(value)) + ("" if label == "Intercept" else f"·{escape(label)}")
        parts.append(f" {sign} {term}" if parts else ("−" if value < 0 else "") + term)
    return "".join(parts) or "0"


def covariance_line(group: str, G: np.ndarray, effects: list[str]) -> str:
    rows = "".join(f"<tr>{''.join(f'<td>{number(x)}</td>' for x in row)}</tr>" for row in G)
    return (
        f"<i>G</i><sub>{escape(group)}</sub> = <table class='matrix'>{rows}</table> "
        f"for {escape(', '.join(map(str, effects)))}"
    )


def residual_lines(fit: Fit, values: dict[str, float]) -> list[str]:
    """One line a component of R, with the values of its parameters."""
    lines = []
    subject = escape(fit.model.residual.subject_name or "subject")
    for part in fit.model.residual.parts:
        kind = type(part.correlation).__name__
        own = [n for p in part.parameters for n in p.full_names()]
        shown = ", ".join(f"{escape(n)} = {number(values[n])}" for n in own[:12])
        shown += f" and {len(own) - 12} more in the table" if len(own) > 12 else ""
        if part.diagonal:
            what = "independent error: variance σ²" + (" by level" if part.scale.labels else "")
        else:
            form = _CORRELATIONS.get(kind, "a function of the time lag <i>u</i>")
            what = f"within {subject}: {escape(str(part.correlation))}, correlation {form}"
        lines.append(f"<i>R</i>: {what}; {shown}")
    return lines


def _spread_line(comparison: Comparison, group: str, name: str) -> str:
    """Standard deviations and correlations of the effects of a grouping factor."""
    covariance = comparison.fit.model.covariance
    term = next(t for t in covariance.random if t.group == group)
    names = [n for s, _ in term.blocks for p in s.parameters for n in p.full_names()]
    median = comparison.variance[name]["median"]
    shown = ", ".join(f"{escape(n)} = {number(median[n])}" for n in names[:12])
    return f"<i>G</i><sub>{escape(group)}</sub>: {shown}"


def _w(group: str, effect: str) -> str:
    return f"<i>w</i><sub>{escape(group)}, {escape(effect)}</sub>"


def _formula(lines: list[str]) -> str:
    return f"<div class='formula'>{''.join(f'<div>{line}</div>' for line in lines)}</div>"
