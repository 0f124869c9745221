"""A comparison in words and formatted tables, for terminals and notebooks."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .draws import posterior_group
from .printing import number, p_value

if TYPE_CHECKING:
    from .comparison import Comparison

DF_WORDS = {
    "kenward-roger": "Kenward-Roger",
    "kenward-roger-linear": "Kenward-Roger (linear)",
    "satterthwaite": "Satterthwaite",
    "containment": "containment",
    "between-within": "between-within",
    "residual": "residual",
}


def interval_words(level: float, df: str | None = None) -> dict[str, str]:
    """What the intervals of each table are: keys "fixed", "variance" and "posterior"."""
    percent = f"{100 * level:g} %"
    reference = f"t with {DF_WORDS[df]} degrees of freedom" if df in DF_WORDS else "normal (asymptotic)"
    tail = 50 * (1 - level)
    scales = "on the log scale (sd, range) or Fisher's z (correlation)"
    quantiles = f"{tail:g} % and {100 - tail:g} % quantiles of the draws"
    return {
        "fixed": f"{percent} confidence interval, {reference}",
        "variance": f"{percent} Wald confidence interval, {scales}",
        "posterior": f"{percent} equal-tailed posterior interval ({quantiles})",
    }


def comparison_text(comparison: Comparison) -> str:
    """The four tables with what they mean, in at most 110 columns where the labels allow it."""
    fit, words = comparison.fit, comparison.intervals
    readings = f"{fit.method} and {' and '.join(comparison.posteriors)}"
    lines = [
        f"One model, {len(comparison.posteriors) + 1} readings: {readings}",
        f"  {fit.model.formula.text}",
        f"  residual: {fit.model.residual.spec}",
        "",
        "Fixed effects",
        *_indented(formatted(comparison.fixed)),
        "",
        "Variance parameters (standard deviations, correlations, ranges)",
        *_indented(formatted(comparison.variance)),
    ]
    for group in comparison.subjects:
        levels = comparison.fit.w[group].sizes[group]
        lines += [
            "",
            f"Estimates for the {levels} levels of {group}: EBLUP (plug-in), posterior mean (averaged)",
        ]
        lines += _indented(formatted(subject_summary(comparison, group)))
    lines += ["", "Diagnostics", *_indented(formatted(comparison.diagnostics)), ""]
    lines += [f"  {fit.method}: {fit.convergence.message}"]
    lines += [f"  {sentence}" for sentence in verdicts(comparison)]
    lines += ["", "Intervals", f"  {fit.method}, fixed effects: {words['fixed']}."]
    lines += [
        f"  {fit.method}, variance parameters: {words['variance']}.",
        f"  posterior: {words['posterior']}.",
    ]
    return "\n".join(lines)


def comparison_html(comparison: Comparison) -> str:
    """The tables for a notebook."""
    words = comparison.intervals
    parts = [f"<p><b>{html.escape(str(comparison.fit.model))}</b></p>"]
    parts += [html_table(comparison.fixed, f"Fixed effects. {words['fixed']}; {words['posterior']}.")]
    parts += [html_table(comparison.variance, f"Variance parameters. {words['variance']}.")]
    parts += [
        html_table(
            subject_summary(comparison, g), f"{g}: plug-in (EBLUP) and averaged (posterior mean) estimates"
        )
        for g in comparison.subjects
    ]
    parts += [html_table(comparison.diagnostics, " ".join(verdicts(comparison)))]
    return f"<div>{''.join(parts)}</div>"


def subject_summary(comparison: Comparison, group: str) -> pd.DataFrame:
    """One row an effect: the spread of the estimates and the largest difference between the engines."""
    table = comparison.subjects[group]
    by = table.index.get_level_values("effect")
    order = list(dict.fromkeys(by))
    parts = {}
    for reading in table.columns.get_level_values(0).unique():
        own = table[reading]
        if "eblup" in own:
            parts[reading] = own.groupby(by)[["eblup"]].std().rename(columns={"eblup": "spread"})
            continue
        columns = {
            "spread": own["mean"].groupby(by).std(),
            "average sd": own["sd"].groupby(by).mean(),
            "largest difference": own["difference"].abs().groupby(by).max(),
        }
        parts[reading] = pd.DataFrame(columns)
    return pd.concat(parts, axis=1).loc[order]


def verdicts(comparison: Comparison) -> list[str]:
    """One sentence a posterior: whether its draws can be relied on."""
    rows = {str(name): row for name, row in comparison.diagnostics.iterrows()}
    return [f"{name}: {_verdict(row)}{_certificate(posterior_group(comparison.posteriors[name]).attrs)}" for name, row in rows.items()]


def _certificate(facts: Mapping[str, Any]) -> str:
    """What the collapsed sampler says of itself: k̂, the escalation where there was one, and the evidence."""
    if "khat" not in facts:
        return ""
    khat = f"{facts['khat']:.2f}"
    if facts["method"] == "importance sampling":
        text = f" Draws are independent, by importance sampling with Pareto k̂ = {khat} (trusted up to 0.7)."
    else:
        text = f" Importance weights were not to be trusted (Pareto k̂ = {khat}), so that an {facts['method']} took over."
    if "log_evidence" not in facts:
        return text
    return f"{text} Log evidence {facts['log_evidence']:.2f} (error {facts['log_evidence_error']:.2g})."


def _verdict(row: pd.Series) -> str:
    trouble = []
    if row["rhat"] > 1.01:
        trouble.append(f"R-hat is {row['rhat']:.3f} (1.01 or less is wanted)")
    least = min(row["ess_bulk"], row["ess_tail"])
    if least < 400:
        trouble.append(f"the least effective sample size is {least:.0f} (400 or more is wanted)")
    if row["divergences"] > 0:
        trouble.append(f"{row['divergences']:.0f} divergent transitions")
    if trouble:
        advice = "Raise target_accept, then draw longer." if row["divergences"] > 0 else "Draw longer."
        return f"not yet to be relied on: {'; '.join(trouble)}. {advice}"
    rhat = "" if np.isnan(row["rhat"]) else f"R-hat at most {row['rhat']:.3f}, "
    none = ", no divergences" if row["divergences"] == 0 else ""
    return f"{rhat}at least {least:.0f} effective draws of every quantity{none}."


# --- formatting ---------------------------------------------------------------------------------------------

_WHOLE = {"chains", "draws", "ess_bulk", "ess_tail", "divergences"}


def formatted(table: pd.DataFrame) -> pd.DataFrame:
    """The table with readable numbers as text; a missing one is "-"."""
    shown = pd.DataFrame(index=table.index)
    columns = {i: table.iloc[:, i].map(_cell(column)) for i, column in enumerate(table.columns)}
    shown = pd.DataFrame(columns, index=table.index)
    shown.columns = table.columns.copy()
    return shown


def _cell(column):
    quantity = column[-1] if isinstance(column, tuple) else column
    if quantity in _WHOLE:
        return lambda x: "-" if np.isnan(x) else f"{x:.0f}"
    if quantity == "p":
        return p_value
    if quantity == "rhat":
        return lambda x: "-" if np.isnan(x) else f"{x:.3f}"
    if quantity in ("khat", "seconds"):
        return lambda x: "-" if np.isnan(x) else f"{x:.2f}"
    if quantity == "df":
        return lambda x: "∞" if np.isinf(x) else f"{x:.1f}"
    return number


def _indented(table: pd.DataFrame) -> list[str]:
    text = table.rename_axis(index=None).rename_axis(
        columns=None if table.columns.nlevels == 1 else [None, None], axis=1
    )
    return [f"  {line}".rstrip() for line in text.to_string().splitlines()]


def html_table(table: pd.DataFrame, caption: str = "") -> str:
    """A table as HTML with the caption above it; every text in it is escaped."""
    shown = formatted(table)
    levels, indices = shown.columns.nlevels, shown.index.nlevels
    names = [str(n or "") for n in shown.index.names]
    head = []
    for depth in range(levels):
        last = depth == levels - 1
        cells = "".join(f'<th class="label">{html.escape(n)}</th>' for n in names)
        cells = cells if last else '<th class="blank"></th>' * indices
        values = [str(c) for c in shown.columns.get_level_values(depth)]
        if not last:
            cells += "".join(
                f'<th class="group" colspan="{n}">{html.escape(v)}</th>' for v, n in _runs(values)
            )
        else:
            cells += "".join(f"<th>{html.escape(v)}</th>" for v in values)
        head.append(f"<tr>{cells}</tr>")
    body = []
    for key, row in zip(shown.index, shown.itertuples(index=False, name=None), strict=True):
        labels = key if isinstance(key, tuple) else (key,)
        cells = "".join(f'<th scope="row">{html.escape(str(x))}</th>' for x in labels)
        body.append(f"<tr>{cells}{''.join(f'<td>{html.escape(str(x))}</td>' for x in row)}</tr>")
    title = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    return f"<table>{title}<thead>{''.join(head)}</thead><tbody>{''.join(body)}</tbody></table>"


def _runs(values: list[str]) -> list[tuple[str, int]]:
    """Equal neighbours with their count."""
    out: list[tuple[str, int]] = []
    for value in values:
        if out and out[-1][0] == value:
            out[-1] = (value, out[-1][1] + 1)
        else:
            out.append((value, 1))
    return out
