"""A progress bar for what is usually over before one would see it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import get_console
from rich.progress import Progress, TaskID

_SECONDS = 2.0

Tell = Callable[[str, float], None]


def silent(what: str, share: float) -> None:
    """Tell nobody."""


@contextmanager
def patient_bar(show: bool) -> Iterator[Tell]:
    """tell(what, share): a bar that appears once two seconds have gone by, and is removed at the end."""
    if not show:
        yield silent
        return
    start = time.perf_counter()
    tasks: dict[str, TaskID] = {}
    console = get_console()
    bar = Progress(transient=True, disable=not (console.is_terminal or console.is_jupyter))

    def tell(what: str, share: float) -> None:
        if time.perf_counter() - start < _SECONDS:
            return
        if not tasks:
            bar.start()
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=1.0)
        bar.update(tasks[what], completed=min(share, 1.0))

    try:
        yield tell
    finally:
        if tasks:
            bar.stop()
