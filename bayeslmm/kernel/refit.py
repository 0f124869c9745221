"""The same model fitted to many responses: what the bootstrap and simulated tests do thousands of times.

Only y changes, so that the design is arranged once. Where V is linear in its parameters all responses are
fitted side by side (`batched.py`), elsewhere one after the other from the same starting point.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np
from rich.progress import Progress

from ..covariance.assembly import Covariance
from ..covariance.binding import BoundResidual
from ..design import Design
from ..errors import InferenceError
from ..parameters import Interval
from .batch import Blocks
from .batched import family, maximise_all
from .blocks import arrange, compress
from .optimise import DECREMENT, maximise

CHUNK = 100  # responses that share one seed
_INSIDE = 1e-2  # of the variance of y: variances start at least here
_ARRAY = 20_000_000  # numbers in the largest array of a batch


@dataclass(frozen=True)
class Problem:
    """A model without its table: what a worker process needs to simulate and to fit."""

    design: Design
    covariance: Covariance
    residual: BoundResidual

    @staticmethod
    def of(model: Any) -> Problem:
        lean = replace(model.design, frame=None, encoding=None, formula=None)
        return Problem(lean, model.covariance, model.residual)


@dataclass(frozen=True)
class Refits:
    """R fits: loglik (R,), θ (R, K) linear coordinates and beta (R, p) in the units of the data, converged
    (R,).
    """

    loglik: np.ndarray
    θ: np.ndarray
    beta: np.ndarray
    converged: np.ndarray

    @staticmethod
    def join(parts: list[Refits]) -> Refits:
        return Refits(
            *(np.concatenate([getattr(p, f) for p in parts]) for f in ("loglik", "θ", "beta", "converged"))
        )


def refit(problem: Problem, responses: np.ndarray, start: np.ndarray, *, reml: bool) -> Refits:
    """Fit every column of responses (n, R), starting from linear coordinates in the units of the data."""
    parts = [_refit(problem, piece, start, reml) for piece in _pieces(problem, responses)]
    return Refits.join(parts)


def _pieces(problem: Problem, responses: np.ndarray) -> Iterator[np.ndarray]:
    n, p = problem.design.X.shape
    width = max(t.Z.shape[1] for t in problem.design.terms) if problem.design.terms else 1
    if problem.residual.subject is not None:
        width = max(width, int(np.bincount(problem.residual.subject).max()))
    step = int(np.clip(_ARRAY // (n * width * (p + 1)), 1, 1000))
    for k in range(0, responses.shape[1], step):
        yield responses[:, k : k + step]


def _refit(problem: Problem, responses: np.ndarray, start: np.ndarray, reml: bool) -> Refits:
    covariance = problem.covariance
    blocks = arrange(problem.design, covariance, problem.residual, responses=responses)
    θ0 = inside(covariance, start / blocks.unit)
    found = family(blocks, covariance, θ0)
    if found is not None:
        best = maximise_all(found, covariance, θ0, reml=reml)
        θ, value, b, left = best.θ, best.values.value, best.values.beta, best.left
    else:
        fits = [_one(blocks, covariance, r, θ0, reml) for r in range(responses.shape[1])]
        θ, value, b, left = (np.array(x) for x in zip(*fits, strict=True))
    back = np.linalg.inv(blocks.basis)
    beta = blocks.center.T + blocks.y_scale * (b @ back.T)
    return Refits(value, θ * blocks.unit, beta, left < 1e3 * DECREMENT)


def _one(blocks: Blocks, covariance: Covariance, r: int, θ0: np.ndarray, reml: bool):
    try:
        found = maximise(compress(response(blocks, r)), covariance, θ0, reml=reml)
    except FloatingPointError:
        return θ0, np.nan, np.full(blocks.p, np.nan), np.inf
    return found.θ, found.evaluation.value, found.evaluation.beta, found.decrement


def response(blocks: Blocks, r: int) -> Blocks:
    """The blocks of one of many responses."""
    p, u = blocks.p, sum(blocks.widths)
    keep = np.append(np.arange(p), p + r)
    gram = np.append(np.arange(u + p), u + p + r)
    return replace(
        blocks,
        batches=tuple(replace(b, data=b.data[..., keep]) for b in blocks.batches),
        noise=tuple(replace(x, gram=x.gram[np.ix_(gram, gram)]) for x in blocks.noise),
        center=blocks.center[:, r],
    )


def inside(covariance: Covariance, θ: np.ndarray) -> np.ndarray:
    """A starting point near θ (units of the blocks) that no boundary holds: there all slopes vanish."""
    out = θ.copy()
    for structure, k in zip(covariance.structures, covariance.slices, strict=True):
        if structure.signed:
            continue
        levels = structure.scale.levels
        part = out[k]
        if structure.free:
            part[:levels] += _INSIDE
        elif structure._reaches_zero and structure.linear and part[0] < _INSIDE:
            part[:] = 0.0
            part[0] = _INSIDE
        elif structure._reaches_zero:
            part[:levels] = np.maximum(part[:levels], _INSIDE)
        w = structure.working_from_linear(part)
        kinds = [p.domain for p in structure.parameters for _ in range(len(p))]
        bounded = np.array([isinstance(d, Interval) for d in kinds]) & (not structure.free)
        out[k] = structure.linear_from_working(np.where(bounded, np.clip(w, -1.3, 1.3), w))
    return out


# --- many chunks ------------------------------------------------------------------------------------------


def in_chunks(
    work: Callable[[int, np.random.SeedSequence], Any],
    n: int,
    *,
    seed: Any,
    workers: int,
    progress: bool,
    title: str,
    chunk: int = CHUNK,
) -> list[Any]:
    """work(size, seed) for chunks that add up to n, in order; the answer does not depend on `workers`.

    Interrupting ends it at once, with its workers. With several workers, a script needs the usual
    ``if __name__ == "__main__":``.

    Raises InferenceError for n or workers below one, and where a worker process is lost.
    """
    if n < 1 or workers < 1:
        raise InferenceError(f"n={n} and workers={workers}: both must be at least 1.")
    sizes = [chunk] * (n // chunk) + ([n % chunk] if n % chunk else [])
    root = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
    jobs = list(zip(sizes, root.spawn(len(sizes)), strict=True))
    with Progress(transient=True, disable=not progress) as bar:
        task = bar.add_task(title, total=n)

        def counted(results):
            out = []
            for size, found in zip(sizes, results, strict=True):
                out.append(found)
                bar.advance(task, size)
            return out

        if workers == 1:
            return counted(work(*job) for job in jobs)
        with _processes(workers) as pool:
            with _uninterrupted():
                results = pool.map(partial(_apply, work), jobs)
            return counted(results)


@contextmanager
def _processes(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Worker processes that do not outlive what they work for, however it ends."""
    ignore = (signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches them too: to stop them is left to this process
    pool = ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=signal.signal, initargs=ignore
    )
    try:
        yield pool
    except BaseException as error:
        for process in list(pool._processes.values()):
            process.terminate()
        if isinstance(error, BrokenProcessPool):
            raise InferenceError(
                "A worker process ended before its work was done, so there is no result: it was killed, as "
                "happens where memory runs out (use fewer workers), or it could not import the script that "
                'started it (put what the script does under if __name__ == "__main__":).'
            ) from error
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C waits for the end: within `submit` it would leave a lock closed that the pool then waits for."""
    before = signal.getsignal(signal.SIGINT)
    if before is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        signal.raise_signal(signal.SIGINT)


def _apply(work, job):
    return work(*job)
