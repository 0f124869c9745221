"""Plain-text summaries of fits, as a terminal or a notebook shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from .results import Fit


def fit_text(fit: Fit) -> str:
    """The model, the data, the variance parameters, the fixed effects and how the fit ended."""
    design = fit.model.design
    lines = [
        f"Linear mixed model fitted by {fit.method}",
        f"  {fit.model.formula.text}",
        f"  residual: {fit.model.residual.spec}",
        f"  {len(design.y)} rows" + "".join(f"; {len(t.levels)} levels of {t.group}" for t in design.terms),
    ]
    if design.dropped.rows:
        lines.append(f"  {design.dropped}")
    lines += [f"  {'REML ' if fit.method == 'REML' else ''}log-likelihood {fit.loglik:.4f}", "", "Variance parameters"]
    lines += _indent(fit.parameters.map(number).to_string(header=False))
    table = fit.summary()
    lines += ["", f"Fixed effects ({table.attrs['df']})", *_indent(format_table(table))]
    lines += ["", fit.convergence.message]
    return "\n".join(lines)


def _indent(text: str) -> list[str]:
    return [f"  {line}" for line in text.splitlines()]


def number(x: float, digits: int = 4) -> str:
    """A number to `digits` significant digits, never in exponents between 1e-4 and 1e6."""
    if x is None or not np.isfinite(x):
        return "-" if x is None or np.isnan(x) else ("∞" if x > 0 else "-∞")
    if x == 0:
        return "0"
    if not 1e-4 <= abs(x) < 1e6:
        return f"{x:.{digits - 1}e}"
    return f"{x:.{max(digits - 1 - int(np.floor(np.log10(abs(x)))), 0)}f}"


def p_value(p: float) -> str:
    return "-" if np.isnan(p) else "<0.0001" if p < 1e-4 else f"{p:.4f}"


def format_table(table: pd.DataFrame) -> str:
    """A table of estimates with readable numbers."""
    shown = table.copy()
    for column in shown.columns:
        if column == "p":
            shown[column] = shown[column].map(p_value)
        elif pd.api.types.is_numeric_dtype(shown[column]):
            shown[column] = shown[column].map(number)
    return shown.to_string()
