"""Ctrl-C while a sampler runs: it ends at once, and nothing half done is passed off as a result.

PyMC and nutpie catch KeyboardInterrupt and return the draws that they have (PyMC with cores=1 even goes on
with the next chain). An exception that they do not know ends them, chains and worker processes included.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Stopped(BaseException):
    """Ctrl-C, under a name that no sampler catches."""


@contextmanager
def interruptible() -> Iterator[None]:
    """What runs inside ends with KeyboardInterrupt as soon as SIGINT arrives, whatever catches that within.

    The handler that was there is asked first, and decides whether there is an interrupt; only the main
    thread receives signals, so that elsewhere nothing changes.
    """
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed = False

    def stop(number, frame) -> None:
        nonlocal pressed
        try:
            before(number, frame)
        except KeyboardInterrupt:
            pressed = True
            raise Stopped from None

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    except BaseException:
        if pressed:  # also where the interrupted chains fail in another way first
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.signal(signal.SIGINT, before)
