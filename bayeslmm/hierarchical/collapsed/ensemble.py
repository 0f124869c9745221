"""Markov chains on the variance parameters, for posteriors that no mixture of t distributions follows.

Four independent ensembles of walkers move by differential evolution, stretches and independent proposals
from the best mixture; one half of an ensemble moves at a time, with the other half to look at, so that
every move leaves the posterior invariant. All walkers are evaluated together.

Source: ter Braak (2006), Statistics and Computing 16, 239-249; Goodman and Weare (2010), CAMCoS 5, 65-80.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..patience import Tell, silent
from .proposal import Mixture
from .target import Target

CHAINS = 4
_WALKERS = 128
_BURN = 150
_STEPS = (300, 600, 1200, 2400)
_STRETCH = 2.0
_RHAT = 1.01


@dataclass(frozen=True)
class Walk:
    """u (steps, CHAINS, walkers, K) after burn-in, the least effective sample size and the largest R̂ over
    u.
    """

    u: np.ndarray
    ess: float
    rhat: float
    steps: int

    @property
    def converged(self) -> bool:
        return self.rhat < _RHAT


def walk(
    target: Target,
    start: np.ndarray,
    mixture: Mixture,
    wanted: float,
    rng: np.random.Generator,
    tell: Tell = silent,
) -> Walk:
    """Walk until the effective sample size reaches `wanted`; start (n, K): draws near the posterior."""
    K = start.shape[1]
    x = start[rng.integers(len(start), size=(CHAINS, _WALKERS))]
    x = x + 1e-6 * rng.standard_normal(x.shape)
    state = _State(x, *_evaluate(target, mixture, x.reshape(-1, K), x.shape[:2]))
    for _ in range(_BURN):
        state = _sweep(target, mixture, state, rng)
    kept: list[np.ndarray] = []
    for steps in _STEPS:
        while len(kept) < steps:
            state = _sweep(target, mixture, state, rng)
            kept.append(state.x.copy())
            tell(f"{steps} steps of Markov chains", len(kept) / steps)
        found = _summarise(np.array(kept))
        if found.ess >= wanted and found.converged:
            break
    return found


@dataclass(frozen=True)
class _State:
    """Walkers x (CHAINS, walkers, K), their log posterior and their log density under the mixture."""

    x: np.ndarray
    value: np.ndarray
    q: np.ndarray


def _evaluate(target, mixture, u, shape):
    return target.many(u).value.reshape(shape), mixture.log_density(u).reshape(shape)


def _sweep(target: Target, mixture: Mixture, state: _State, rng) -> _State:
    """One move of every walker: first half, then second half."""
    half = _WALKERS // 2
    for own, other in ((slice(0, half), slice(half, None)), (slice(half, None), slice(0, half))):
        state = _move(target, mixture, state, own, state.x[:, other], rng)
    return state


def _move(target, mixture, state, own, others, rng) -> _State:
    x = state.x[:, own]
    C, W, K = x.shape
    kind = rng.choice(3, size=(C, W), p=[0.45, 0.2, 0.35])
    rows = np.arange(C)[:, None]
    i = rng.integers(W, size=(C, W))
    j = (i + rng.integers(1, W, size=(C, W))) % W
    a, b = others[rows, i], others[rows, j]
    γ = np.where(rng.uniform(size=(C, W)) < 0.1, 1.0, 2.38 / np.sqrt(2 * K) * rng.uniform(0.3, 1.2, (C, W)))
    evolve = x + γ[..., None] * (a - b) + 1e-4 * rng.standard_normal(x.shape)
    z = (1 + (_STRETCH - 1) * rng.uniform(size=(C, W))) ** 2 / _STRETCH
    stretch = a + z[..., None] * (x - a)
    fresh = rng.permutation(mixture.sample(rng, C * W)).reshape(x.shape)
    new = np.where((kind == 0)[..., None], evolve, np.where((kind == 1)[..., None], stretch, fresh))
    value, q = _evaluate(target, mixture, new.reshape(-1, K), (C, W))
    with np.errstate(invalid="ignore"):  # from outside the support to outside: nan, which is never accepted
        log_ratio = value - state.value[:, own]
    log_ratio += np.where(kind == 1, (K - 1) * np.log(z), 0.0) + np.where(kind == 2, state.q[:, own] - q, 0.0)
    accept = np.log(rng.uniform(size=(C, W))) < log_ratio
    out = _State(state.x.copy(), state.value.copy(), state.q.copy())
    out.x[:, own] = np.where(accept[..., None], new, x)
    out.value[:, own] = np.where(accept, value, state.value[:, own])
    out.q[:, own] = np.where(accept, q, state.q[:, own])
    return out


def _summarise(u: np.ndarray) -> Walk:
    """R̂ between ensembles, and the effective sample size with every walker as a chain."""
    from arviz_stats.base import array_stats

    steps, C, W, K = u.shape
    ess, rhat = np.inf, 0.0
    for k in range(K):
        walkers = np.moveaxis(u[..., k], 0, -1)
        ess = min(ess, float(array_stats.ess(walkers.reshape(C * W, steps), method="mean")))
        chains = np.swapaxes(walkers, 1, 2).reshape(C, steps * W)
        rhat = max(rhat, float(array_stats.rhat(chains)))
    return Walk(u, ess, rhat, steps)


def thinned(found: Walk, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Draws (draws, K), in equal parts from the ensembles in turn, as far apart in time as can be."""
    steps, C, W, K = found.u.shape
    each = -(-draws // C)
    time = np.linspace(0, steps - 1, each).round().astype(int)
    out = np.stack([found.u[time, c, rng.permutation(np.resize(np.arange(W), each))] for c in range(C)])
    return out.reshape(-1, K)[:draws]
