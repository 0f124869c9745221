"""Ctrl-C while something samples: it ends at once, nothing half done comes out, and the process goes on.

The signal is real (SIGINT to this process); "goes on" means: the same seed gives the same draws as before.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
import xarray as xr

import bayeslmm as bl
from bayeslmm import hierarchical
from bayeslmm.hierarchical import interrupts
from bayeslmm.hierarchical import loo as loo_module

PROMPT = 10.0  # seconds on a busy machine; left alone every job below takes minutes


@contextmanager
def stopped(after=None, exception=KeyboardInterrupt, match=None):
    """What runs inside must end with the exception, soon after the interrupt, and leave nothing behind."""
    handler = signal.getsignal(signal.SIGINT)
    timer = threading.Timer(after or 0, os.kill, (os.getpid(), signal.SIGINT))
    if after is not None:
        timer.start()
    began = time.perf_counter()
    try:
        with pytest.raises(exception, match=match):
            yield
    finally:
        timer.cancel()
    if after is not None:
        assert time.perf_counter() - began < after + PROMPT
    assert multiprocessing.active_children() == []
    assert signal.getsignal(signal.SIGINT) is handler


def at_draw(number, action):
    """A callback of pm.sample that acts once, and counts the draws that follow."""
    seen = []

    def callback(trace, draw):
        seen.append(draw)
        if len(seen) == number:
            action()

    callback.seen = seen
    return callback


@pytest.fixture(scope="module")
def model():
    return bl.LMM("Yield ~ 1 + (1 | Batch)", bl.load_dataset("dyestuff"))


def collapsed(model):
    return model.sample(draws=50, chains=2, random_seed=1)["posterior"].to_dataset()


def nuts(**options):
    small = bl.LMM("Yield ~ 1", bl.load_dataset("dyestuff"))  # the least to compile
    given = {"draws": 30, "tune": 30, "chains": 2, "cores": 1, "random_seed": 1, "prior_draws": 5}
    return small.sample("nuts", progressbar=False, **(given | options))


@pytest.fixture(scope="module")
def before(model):
    """What an undisturbed process draws."""
    return {"collapsed": collapsed(model), "nuts": nuts()["posterior"].to_dataset()}


def same(found, expected):
    xr.testing.assert_equal(found, expected)


# --- the collapsed sampler, and what is built on it -------------------------------------------------------


def test_collapsed(model, before):
    with stopped(after=0.3):
        model.sample(draws=1_000_000, chains=4, random_seed=2)
    same(collapsed(model), before["collapsed"])


def test_refits_of_loo(model, before, monkeypatch):
    posterior = model.sample(draws=500, chains=4, random_seed=3)
    monkeypatch.setattr(loo_module, "GOOD_K", -10.0)  # every unit is left out in truth
    monkeypatch.setattr(loo_module, "_DRAWS", 200_000)
    with stopped(after=0.5):
        bl.loo(model, posterior, unit="subject")
    same(collapsed(model), before["collapsed"])


@pytest.mark.parametrize("workers", [1, 2])
def test_calibration(model, workers):
    alone = bl.sbc(model, 3, draws=9, seed=4).ranks
    with stopped(after=0.5 if workers == 1 else 2.0):
        bl.sbc(model, 3000, draws=9, seed=4, workers=workers)
    assert bl.sbc(model, 3, draws=9, seed=4).ranks.equals(alone)


def test_a_lost_worker_is_reported(model):
    def kill():
        while not multiprocessing.active_children():
            time.sleep(0.01)
        multiprocessing.active_children()[0].kill()

    thread = threading.Thread(target=kill)
    thread.start()
    with stopped(exception=bl.InferenceError, match="worker process ended"):
        bl.sbc(model, 3000, draws=9, seed=4, workers=2)
    thread.join()


# --- NUTS -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cores", "number"), [(1, 10), (1, 150), (2, 10)])
def test_nuts(before, cores, number):
    """In tuning and after it: PyMC alone would go on with the next chain, or return what it has."""
    callback = at_draw(number, lambda: signal.raise_signal(signal.SIGINT))
    with stopped():
        nuts(draws=100, cores=cores, callback=callback)
    assert len(callback.seen) == number
    if number == 10:
        same(nuts()["posterior"].to_dataset(), before["nuts"])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # numba's callbacks swallow it
def test_nuts_while_it_compiles():
    with stopped(after=0.1):
        nuts(draws=50_000)


def test_what_swallows_every_exception_is_interrupted_again(model, monkeypatch):
    """As an import does that tries several packages in turn."""
    monkeypatch.setattr(interrupts, "_PATIENCE", 0.1)
    swallowed = []

    def deaf(*args, **options):
        try:
            signal.raise_signal(signal.SIGINT)
        except BaseException as error:
            swallowed.append(error)
        time.sleep(60)

    monkeypatch.setattr(hierarchical, "sample", deaf, raising=False)
    with stopped(after=30):  # at the latest
        model.sample("nuts")
    assert len(swallowed) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_lost_chain_is_reported(before, number):
    def kill():
        os.kill(multiprocessing.active_children()[0].pid, number)

    words = "process of a chain ended" if number == signal.SIGKILL else "Chain . failed"
    with stopped(exception=bl.SamplingError, match=words):
        nuts(draws=3000, cores=2, callback=at_draw(5, kill))  # PyMC may hear of it when the other chain is done
    if number == signal.SIGKILL:
        same(nuts()["posterior"].to_dataset(), before["nuts"])


def test_a_part_of_the_draws_is_no_result():
    """PyMC's own way to stop from a callback: the chain ends early, and pm.sample says nothing."""

    def stop():
        raise KeyboardInterrupt

    with stopped(exception=bl.SamplingError, match="1 chains of 30 draws where 2 of 30"):
        nuts(callback=at_draw(70, stop))


def test_a_chain_that_raises_is_reported():
    class Broken(RuntimeError):
        pass

    def fail():
        raise Broken

    with stopped(exception=Broken):
        nuts(callback=at_draw(70, fail))


# --- the command line -------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["collapsed", "nuts"])
def test_the_command_line(sampler):
    options = ["--sampler", sampler, "--draws", "1000000", "--chains", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "bayeslmm", "compare", "dyestuff", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert any(line.startswith("Sampling by") for line in iter(process.stdout.readline, ""))
        time.sleep(0.5)
        began = time.perf_counter()
        os.kill(process.pid, signal.SIGINT)
        error = process.communicate(timeout=60)[1]
        assert time.perf_counter() - began < PROMPT
        assert process.returncode == 130, error
        assert "stopped on request" in error
        assert "Traceback" not in error
        with pytest.raises(ProcessLookupError):  # nobody of its group is left
            os.killpg(process.pid, 0)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
