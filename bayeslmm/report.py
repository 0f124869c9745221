"""A comparison as one HTML file that needs nothing else: formulas, tables, pictures, how to do it again."""

from __future__ import annotations

import base64
import io
import platform
from html import escape
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .comparison_text import html_table, subject_summary, verdicts
from .printing import number
from .report_model import model_section

if TYPE_CHECKING:
    from .comparison import Comparison

_PACKAGES = ("bayeslmm", "numpy", "scipy", "pandas", "xarray", "pymc", "pytensor", "arviz", "matplotlib")
_MOST_ROWS = 400

_CAPTIONS = {
    "estimates": "Fixed effects with their intervals. Every panel has its own scale; a grey line marks zero "
    "where it is in view.",
    "variance": "Standard deviations, correlations and ranges with their intervals. The posterior's point is "
    "its median. Few subjects make these posteriors skew: their mean then lies beyond the "
    "estimate, which is a mode.",
    "subjects": "{group}: spread is the sd over levels; the largest difference is of the EBLUP (plug-in) "
    "minus the posterior mean (averaged).",
    "shrinkage": "Shrinkage of the estimates of subjects. Each level's own least-squares estimate is drawn "
    "towards the population at zero, the more the less its own rows can tell. The EBLUP takes the"
    " variance parameters for known; the posterior mean averages over them.",
    "profiles": "Data and fitted profiles. The population's line, and each subject's by either engine; the "
    "serial process, where there is one, is not part of the line.",
    "diagnostics": "The worst over β, all variance parameters and all random effects. rhat: R-hat, 1.01 or "
    "less is wanted; ess: effective sample size in the bulk and the tails, 400 or more is wanted; khat: Pareto k̂ "
    "of importance weights, 0.7 or less is trusted; seconds: of wall time, compiling included.",
    "trace": "{name}, trace of the draws. Each chain has a colour; healthy chains look alike and wander "
    "over the same range.",
    "rank": "{name}, ranks by chain. How much each chain's ranks depart from uniform: healthy chains stay"
    " near the line; p is of the test that all chains draw from the same distribution.",
}


def write_report(comparison: Comparison, path: str | Path, *, code: str | None = None) -> Path:
    """Write a comparison as a self-contained HTML page and return its path.

    code: the Python program shown under "Do it again"; by default one that names the model and the draws.

    Raises OSError where the file cannot be written.
    """
    path = Path(path)
    page = Template(files("bayeslmm").joinpath("report.html").read_text(encoding="utf-8"))
    readings = " and ".join([comparison.fit.method, *comparison.posteriors])
    text = page.substitute(
        title=escape(comparison.fit.model.formula.text),
        lead=f"One linear mixed model, read marginally and hierarchically: {escape(readings)} side by side.",
        body="\n".join(_sections(comparison, code or default_code(comparison))),
    )
    path.write_text(text, encoding="utf-8")
    return path


def _sections(comparison: Comparison, code: str) -> list[str]:
    method, words = comparison.fit.method, comparison.intervals
    short = [agreement(comparison), f"{method}: {comparison.fit.convergence.message}", *verdicts(comparison)]
    fixed = _table(comparison.fixed, f"{method}: {words['fixed']}. Posterior: {words['posterior']}.")
    variance = _table(comparison.variance, f"{method}: {words['variance']}. Posterior: {words['posterior']}.")
    estimates = _figure(comparison.plot_estimates()[0].figure, "estimates") if len(comparison.fixed) else ""
    contents = {
        "In short": _list(short),
        "The model": model_section(comparison),
        "The data": _facts(data_facts(comparison)),
        "Fixed effects": fixed + estimates,
        "Variance parameters": variance + _figure(comparison.plot_variance()[0].figure, "variance"),
        "Subjects": _subjects(comparison),
        "Diagnostics of the draws": _diagnostics(comparison),
        "Do it again": f"<pre>{escape(code)}</pre>{_facts(versions())}",
    }
    return [f"<section><h2>{k}</h2>{v}</section>" for k, v in contents.items()]


# --- facts --------------------------------------------------------------------------------------------------


def agreement(comparison: Comparison) -> str:
    """How far the point estimates of β lie apart, in standard errors."""
    closed = comparison.fixed[comparison.fit.method]
    apart = [
        float(((comparison.fixed[name]["mean"] - closed["estimate"]) / closed["se"]).abs().max())
        for name in comparison.posteriors
    ]
    return (
        f"The posterior means of the fixed effects lie within {number(max(apart), 2)} standard errors of the "
        f"{comparison.fit.method} estimates."
    )


def data_facts(comparison: Comparison) -> dict[str, str]:
    """Rows, groups, units, what was left out, where the data come from."""
    model = comparison.fit.model
    design, attrs = model.design, model.design.frame.attrs
    facts = {"rows": f"{len(design.y)} ({design.dropped})"}
    for term in design.terms:
        count = np.bincount(term.codes)
        per = f"{count.min()}" if count.min() == count.max() else f"{count.min()} to {count.max()}"
        facts[f"levels of {term.group}"] = f"{len(term.levels)}, with {per} rows each"
    y = design.y
    facts[f"response {design.response}"] = (
        f"mean {number(y.mean())}, sd {number(y.std(ddof=1))}, from {number(y.min())} to {number(y.max())}"
    )
    units = attrs.get("units")
    if isinstance(units, dict) and units:
        facts["units"] = ", ".join(f"{column}: {unit}" for column, unit in units.items())
    facts |= {key: str(attrs[key]) for key in ("name", "source") if attrs.get(key)}
    facts["log-likelihood"] = f"{comparison.fit.loglik:.4f} ({comparison.fit.method})"
    return facts


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {"Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}"}
    return found | {name: metadata.version(name) for name in _PACKAGES}


def default_code(comparison: Comparison) -> str:
    """A program that fits, samples and compares the same model."""
    model = comparison.fit.model
    name = model.design.frame.attrs.get("name")
    lines = ["import bayeslmm as bl", ""]
    lines += [f"data = bl.load_dataset({name!r})" if name else "data = ...  # the table of the measurements"]
    residual = " + ".join(f"bl.{part}" for part in model.residual.spec)
    given = "" if residual == "bl.Independent()" else f", residual={residual}"
    lines += [
        f"model = bl.LMM({model.formula.text!r}, data{given})",
        f"fit = model.fit({comparison.fit.method!r})",
    ]
    drawn = []
    for tree in comparison.posteriors.values():
        sizes, seed = tree["posterior"].sizes, tree.attrs.get("seed")
        sampler = str(tree.attrs.get("sampler", "nuts")).partition(" ")[0]
        words = [repr(sampler), f"draws={sizes['draw']}", f"chains={sizes['chain']}"]
        words += [] if seed is None else [f"random_seed={int(seed)}"]
        drawn.append(f"model.sample({', '.join(words)})")
    lines += [f"posteriors = [{', '.join(drawn)}]"]
    return "\n".join([*lines, "print(bl.compare(fit, *posteriors))"])


# --- pieces of the page -------------------------------------------------------------------------------------


def _subjects(comparison: Comparison) -> str:
    parts = []
    for group, table in comparison.subjects.items():
        parts.append(_table(subject_summary(comparison, group), _CAPTIONS["subjects"].format(group=group)))
        rest = f" (first {_MOST_ROWS} rows)" if len(table) > _MOST_ROWS else ""
        whole = _table(table.iloc[:_MOST_ROWS], "")
        parts.append(f"<details><summary>Every estimate of {escape(group)}{rest}</summary>{whole}</details>")
    if comparison.subjects:
        parts.append(_figure(comparison.plot_shrinkage()[0].figure, "shrinkage"))
    return "".join([*parts, _figure(comparison.plot_profiles()[0].figure, "profiles")])


def _diagnostics(comparison: Comparison) -> str:
    parts = [_table(comparison.diagnostics, _CAPTIONS["diagnostics"])]
    for name, row in comparison.diagnostics.iterrows():
        parts.append(_figure(comparison.plot_trace(str(name)), "trace", name=name))
        if row["chains"] > 1:
            parts.append(_figure(comparison.plot_rank(str(name)), "rank", name=name))
    return "".join(parts)


def _list(sentences: list[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(s)}</li>' for s in sentences)}</ul>"


def _facts(facts: dict[str, str]) -> str:
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    return f"<dl>{rows}</dl>"


def _table(table: pd.DataFrame, note: str) -> str:
    below = f"<p class='note'>{escape(note)}</p>" if note else ""
    return f"<div class='scroll'>{html_table(table)}</div>{below}"


def _figure(figure: Any, caption: str, **words: Any) -> str:
    """A picture as data inside the page, with its caption; the figure is closed."""
    import matplotlib.pyplot as plt

    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=150)
    width = round(figure.get_figwidth() * 96)
    wide = " class='wide'" if width > 640 else ""
    plt.close(figure)
    data = base64.b64encode(held.getvalue()).decode("ascii")
    text = escape(_CAPTIONS[caption].format(**words))
    return (
        f"<figure><img{wide} width='{width}' alt='{text.partition('.')[0]}' "
        f"src='data:image/png;base64,{data}'>"
        f"<figcaption>{text}</figcaption></figure>"
    )
