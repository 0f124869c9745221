"""Draws of the variance parameters: importance sampling with a certificate, and what happens when it fails.

1. Laplace: multivariate t at every summit of the log posterior.
2. Where its weights vary much, a mixture of t distributions is fitted to the weighted draws, a few times
   over.
3. Proposals are drawn until the effective sample size is three times the draws wanted, then resampled.
4. Where Pareto k̂ stays above 0.7 the weights are not to be trusted: Markov chains take over
   (`ensemble.py`), and the evidence comes from bridge sampling between them and the mixture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from ...errors import SamplingError
from ..patience import Tell, silent
from .ensemble import thinned, walk
from .mode import Mode
from .proposal import Mixture, fit
from .scouts import scouts
from .target import Evaluated, Target
from .weights import Weights, resample, weigh

KHAT = 0.7
_PILOT = 2000
_ROUNDS = (
    (2, 0.8),
    (3, 0.7),
    (4, 0.5),
    (6, 0.4),
    (8, 0.3),
)  # components, and the efficiency that ends the search
_WIDE = 4.0  # degrees of freedom of the proposals that guard the tails
_NARROW = 20.0
_GUARDS = 0.08  # share of the components at summits and ridges
_BATCH = 4000
_MOST = 8  # proposals at most this multiple of the effective sample size wanted
_EXCESS = 3.0


@dataclass(frozen=True)
class Found:
    """Equal-weight draws and how they came about.

    draws: evaluated (N); method: "importance" or "ensemble"; khat, ess: of the importance weights (k̂) and
    of the draws before resampling; log_evidence and its standard error; steps: what was done, in words.
    """

    draws: Evaluated
    method: str
    khat: float
    ess: float
    log_evidence: float
    evidence_error: float
    proposals: int
    steps: tuple[str, ...]


def search(
    target: Target, summits: list[Mode], draws: int, rng: np.random.Generator, tell: Tell = silent
) -> Found:
    """Draw the variance parameters; tell(what, share) hears how far it is.

    Raises SamplingError where Markov chains do not converge either.
    """
    mixture, guards, steps, used = _adapt(target, summits, rng)
    evaluated, weights = _collect(target, mixture, _EXCESS * draws, rng, tell)
    if weights.khat > KHAT:
        steps += (f"Pareto k̂ = {weights.khat:.2f} with {len(evaluated.u)} proposals",)
        mixture = _refined(mixture, evaluated, weights, guards, rng)
        used += len(evaluated.u)
        evaluated, weights = _collect(target, mixture, _EXCESS * draws, rng, tell)
        steps += (f"mixture fitted again: k̂ = {weights.khat:.2f}",)
    used += len(evaluated.u)
    if weights.khat <= KHAT:
        index = resample(weights.normal, draws, rng)
        return Found(evaluated.take(index), "importance", weights.khat, weights.ess, weights.log_mean,
                     weights.error, used, steps)  # fmt: skip
    return _by_chains(target, mixture, evaluated, weights, draws, used, steps, rng, tell)


# --- the proposal -----------------------------------------------------------------------------------------


def _laplace(summits: list[Mode], stretch: float, tail: float) -> Mixture:
    height = np.array([m.value for m in summits])
    logdet = np.array([np.linalg.slogdet(m.covariance)[1] for m in summits])
    mass = np.exp(height + 0.5 * logdet - logsumexp(height + 0.5 * logdet))
    scales = np.array([m.covariance for m in summits]) * stretch
    return Mixture.of(np.maximum(mass, 0.02), [m.u for m in summits], scales, [tail] * len(summits))


def _adapt(target: Target, summits: list[Mode], rng) -> tuple[Mixture, Mixture, tuple[str, ...], int]:
    """The mixture whose weights vary least, the components that guard its tails, and a log of what was tried."""
    mixtures, parts, steps = [_laplace(summits, 1.0, 6.0)], [], []
    best, guards = (-1.0, mixtures[0]), _laplace(summits, 1.5, _WIDE)
    for components, enough in (*_ROUNDS, (0, 0.0)):
        parts.append(target.many(mixtures[-1].sample(rng, _PILOT)))
        own = weigh(parts[-1].value - mixtures[-1].log_density(parts[-1].u))
        efficiency = own.ess / _PILOT
        steps.append(f"{len(mixtures[-1].tail)} components: efficiency {efficiency:.2f}, k̂ {own.khat:.2f}")
        if efficiency > best[0]:
            best = (efficiency, mixtures[-1])
        if components == 0 or (efficiency >= enough and own.khat < 0.6):
            break
        if len(parts) == 1:
            ridges = scouts(target, summits[0])
            if ridges:
                guards = guards.beside(_laplace(ridges, 1.0, _WIDE), 0.5)
                steps.append(f"{len(ridges)} points on ridges")
        pilot = Evaluated.join(parts)
        density = logsumexp([m.log_density(pilot.u) for m in mixtures], axis=0) - np.log(len(mixtures))
        weights = weigh(pilot.value - density)
        mixtures.append(_guarded(pilot.u, weights.normal, components, guards, rng))
    return best[1], guards, tuple(steps), _PILOT * len(parts)


def _guarded(u, weight, components: int, guards: Mixture, rng) -> Mixture:
    """A fitted mixture beside wide components that bound the weights in the tails."""
    near = fit(u, weight, components, _NARROW, rng)
    wide = fit(u, weight, 1, _WIDE, rng)
    stretched = Mixture(wide.log_weight, wide.mean, wide.chol * np.sqrt(3.0), wide.tail)
    return near.beside(stretched, 0.1).beside(guards, _GUARDS)


def _refined(mixture: Mixture, evaluated: Evaluated, weights: Weights, guards: Mixture, rng) -> Mixture:
    return _guarded(evaluated.u, weights.normal, 8, guards, rng).beside(mixture, 0.2)


def _collect(target: Target, mixture: Mixture, wanted: float, rng, tell: Tell) -> tuple[Evaluated, Weights]:
    """Propose until the effective sample size is what is wanted."""
    parts: list[Evaluated] = []
    most = _MOST * wanted
    step = max(_BATCH, int(wanted))
    while True:
        parts.append(target.many(mixture.sample(rng, step)))
        whole = Evaluated.join(parts)
        weights = weigh(whole.value - mixture.log_density(whole.u))
        tell("proposals", weights.ess / wanted)
        if weights.ess >= wanted or len(whole.u) >= most or weights.khat > 1:
            return whole, weights
        efficiency = max(weights.ess / len(whole.u), 0.02)
        step = int(min((wanted - weights.ess) / efficiency * 1.1 + 500, most - len(whole.u) + 1))


# --- when importance sampling fails -----------------------------------------------------------------------


def _by_chains(target, mixture, evaluated, weights, draws, used, steps, rng, tell: Tell) -> Found:
    start = evaluated.u[resample(weights.normal, 1000, rng)]
    found = walk(target, start, mixture, 1.5 * draws, rng, tell)
    if found.rhat > 1.05:
        raise SamplingError(
            f"Importance weights have k̂ = {weights.khat:.2f}, and Markov chains on the variance parameters "
            f"have not mixed after {found.steps} steps (R̂ = {found.rhat:.3f}): the posterior has separate "
            "regions or no bound. Use tighter priors, a simpler covariance, or sampler='nuts'."
        )
    chosen = target.many(thinned(found, draws, rng))
    log_evidence, error = _bridge(target, mixture, evaluated, chosen)
    words = (
        f"ensemble of Markov chains: {found.steps} steps, R̂ {found.rhat:.3f}, effective size {found.ess:.0f}"
    )
    return Found(chosen, "ensemble", weights.khat, found.ess, log_evidence, error, used, (*steps, words))


def _bridge(target, mixture: Mixture, proposed: Evaluated, drawn: Evaluated) -> tuple[float, float]:
    """log evidence from proposals and posterior draws (Meng and Wong 1996), with its standard error."""
    a = proposed.value - mixture.log_density(proposed.u)
    b = drawn.value - mixture.log_density(drawn.u)
    s, t = np.log(len(a) / (len(a) + len(b))), np.log(len(b) / (len(a) + len(b)))
    r = float(np.median(b))
    for _ in range(500):
        top = a - np.logaddexp(t + a, s + r)
        bottom = -np.logaddexp(t + b, s + r)
        new = float(logsumexp(top) - np.log(len(a)) - logsumexp(bottom) + np.log(len(b)))
        done, r = abs(new - r) < 1e-10, new
        if done:
            break
    spread = [np.exp(x - logsumexp(x)) * len(x) for x in (top, bottom)]
    return r, float(np.sqrt(sum(np.var(x) / len(x) for x in spread)))
