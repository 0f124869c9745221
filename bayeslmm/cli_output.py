"""What the command line shows and writes: tables by rich, signs of life while sampling, files."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .comparison_text import formatted, subject_summary, verdicts

if TYPE_CHECKING:
    from .comparison import Comparison

_COLOURS = ("blue", "red", "green", "magenta")
_EVERY = 10.0


def make_console(*, error: bool = False) -> Console:
    """A console; wide where the output is a file or a pipe, so that tables are not folded."""
    console = Console(stderr=error, highlight=False)
    return console if console.is_terminal else Console(stderr=error, highlight=False, width=160)


def show_table(console: Console, table: pd.DataFrame, title: str, note: str = "") -> None:
    """One table; a reading's columns share a colour, and its name stands over the first of them."""
    shown = formatted(table)
    printed = Table(
        title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 1)
    )
    for name in shown.index.names:
        printed.add_column(f"\n{name or ''}" if shown.columns.nlevels > 1 else str(name or ""), no_wrap=True)
    seen: list[str] = []
    for column in shown.columns:
        if not isinstance(column, tuple):
            printed.add_column(str(column), justify="right", no_wrap=True)
            continue
        group, quantity = column[0], str(column[-1])
        head = f"{group}\n{quantity}" if group not in seen else f"\n{quantity}"
        seen += [group] if group not in seen else []
        style = _COLOURS[seen.index(group) % len(_COLOURS)]
        printed.add_column(head, justify="right", style=style, header_style=f"bold {style}", no_wrap=True)
    for key, row in zip(shown.index, shown.itertuples(index=False, name=None), strict=True):
        labels = key if isinstance(key, tuple) else (key,)
        printed.add_row(*[Text(str(x)) for x in (*labels, *row)])
    console.print()
    console.print(printed)
    if note:
        console.print(Text(note, style="dim"))


def show_comparison(console: Console, comparison: Comparison) -> None:
    """The tables of a comparison, one reading below the other where they do not fit side by side."""
    method, words = comparison.fit.method, comparison.intervals
    _fitting(console, comparison.fixed, "Fixed effects", f"{method}: {words['fixed']}.")
    _fitting(console, comparison.variance, "Variance parameters", f"{method}: {words['variance']}.")
    console.print(Text(f"Posterior: {words['posterior']}.", style="dim"))
    for group in comparison.subjects:
        note = "spread: sd over levels; largest difference: EBLUP (plug-in) minus posterior mean (averaged)."
        levels = comparison.fit.w[group].sizes[group]
        _fitting(
            console, subject_summary(comparison, group), f"Estimates for the {levels} levels of {group}", note
        )
    show_table(console, comparison.diagnostics, "Diagnostics")
    for sentence in verdicts(comparison):
        console.print(Text(sentence))


def _fitting(console: Console, table: pd.DataFrame, title: str, note: str) -> None:
    text = formatted(table).to_string().splitlines()
    readings = list(dict.fromkeys(table.columns.get_level_values(0)))
    if max(map(len, text)) + 4 <= console.width or len(readings) < 2:
        show_table(console, table, title, note)
        return
    for i, reading in enumerate(readings):
        last = i == len(readings) - 1
        show_table(
            console, table[[reading]], title if i == 0 else f"{title}, continued", note if last else ""
        )


@contextmanager
def signs_of_life(console: Console, what: str) -> Iterator[None]:
    """A plain line now and then while something runs, for output that is no terminal."""
    done = threading.Event()
    start = time.perf_counter()

    def beat() -> None:
        while not done.wait(_EVERY):
            console.print(f"  {what}: {time.perf_counter() - start:.0f} s so far")

    thread = threading.Thread(target=beat, daemon=True)
    if not console.is_terminal:
        thread.start()
    try:
        yield
    finally:
        done.set()


def write_files(comparison: Comparison, folder: Path, code: str) -> list[Path]:
    """report.html, the draws as NetCDF and the tables as CSV; their paths.

    Raises OSError where the folder cannot be written.
    """
    import matplotlib

    from .report import write_report

    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    written = [write_report(comparison, folder / "report.html", code=code)]
    for name, tree in comparison.posteriors.items():
        own = "posterior.nc" if len(comparison.posteriors) == 1 else f"posterior-{name.replace(' ', '-')}.nc"
        tree.to_netcdf(folder / own, engine="h5netcdf")
        written.append(folder / own)
    tables = {
        "fixed": comparison.fixed,
        "variance": comparison.variance,
        "diagnostics": comparison.diagnostics,
    }
    tables |= {f"subjects-{g.replace(':', '-')}": t for g, t in comparison.subjects.items()}
    for name, table in tables.items():
        flat = table.copy()
        flat.columns = pd.Index([" ".join(c) if isinstance(c, tuple) else str(c) for c in table.columns])
        flat.to_csv(folder / f"{name}.csv")
        written.append(folder / f"{name}.csv")
    return written
