"""Ctrl-C while a sampler runs: it ends at once, and nothing half done is passed off as a result.

PyMC and nutpie catch KeyboardInterrupt and return the draws that they have (PyMC with cores=1 even goes on
with the next chain). An exception that they do not know ends them, chains and worker processes included.
Where an import or a compiler swallows every exception, it is raised again.
"""

from __future__ import annotations

import _thread
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_PATIENCE = 3.0  # seconds that chains have to end before they are interrupted again


class Stopped(BaseException):
    """Ctrl-C, under a name that no sampler catches."""


@contextmanager
def interruptible() -> Iterator[None]:
    """What runs inside ends with KeyboardInterrupt soon after SIGINT, whatever catches that within.

    The handler that was there is asked first, and decides whether there is an interrupt; only the main
    thread receives signals, so that elsewhere nothing changes.
    """
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed, done, owner = False, threading.Event(), os.getpid()

    def insist() -> None:
        if not done.wait(_PATIENCE):
            _thread.interrupt_main()

    def stop(number, frame) -> None:
        nonlocal pressed
        if done.is_set():
            return
        try:
            before(number, frame)
        except KeyboardInterrupt:
            pressed = True
            if os.getpid() == owner:  # a chain in a process of its own waits for this one
                threading.Thread(target=insist, daemon=True).start()
            raise Stopped from None

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    except BaseException:
        if pressed:  # also where the interrupted chains fail in another way first
            raise KeyboardInterrupt from None
        raise
    else:
        if pressed:
            raise KeyboardInterrupt
    finally:
        done.set()
        signal.signal(signal.SIGINT, before)
