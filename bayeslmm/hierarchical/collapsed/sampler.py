"""The collapsed sampler from end to end: a model in, a complete tree of draws out."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ...errors import ConvergenceNote, SamplingError
from ..groups import LARGEST, complete
from ..overrides import resolve_priors
from ..patience import patient_bar
from ..proper import require_proper_posterior
from .effects import beta_of_data, draw_beta, draw_effects
from .layout import SAMPLE, Shape, posterior
from .mode import modes
from .search import Found, search
from .target import Target

if TYPE_CHECKING:
    from ...model import LMM

_EFFECTS = 50_000_000  # numbers in the draws of w that are kept without being asked for


def sample_collapsed(
    model: LMM,
    *,
    draws: int = 1000,
    chains: int = 4,
    random_seed: Any = None,
    priors: Any = None,
    effects: bool | None = None,
    prior_draws: int = 500,
    progressbar: bool = False,
) -> xr.DataTree:
    """Independent draws from the posterior: variance parameters by importance sampling, β and w exactly.

    effects: whether the tree holds w; by default unless that is more than 50 million numbers
    (`random_effect_draws` then gives those of chosen subjects). prior_draws: in the groups `prior` and
    `prior_predictive`. progressbar: show one where it takes longer than two seconds. Attributes of the tree:
    khat (Pareto k̂ of the importance weights, the certificate), ess, log_evidence with log_evidence_error, method, and the steps taken.

    Raises
    ------
    SamplingError
        A prior of β is not normal, a posterior is improper, the model has no hierarchical reading (signed),
        or nothing converged.
    """
    began = time.perf_counter()
    require_hierarchical(model, draws, chains)
    chosen = resolve_priors(model, priors)
    require_proper_posterior(model, chosen)
    seed = seed_of(random_seed)
    rng = np.random.default_rng(seed)
    target, summits = modes(Target.of(model, chosen), model)
    with patient_bar(progressbar) as tell:
        found = search(target, summits, chains * draws, rng, tell)
    if found.method != "importance":
        _say_who_took_over(found)
    shape = Shape(chains, draws)
    b = draw_beta(target, found.draws, rng)
    if effects is None:
        numbers = sum(len(t.levels) * len(t.effects) for t in model.design.terms)
        size = chains * draws * len(model.design.y)
        effects = size <= LARGEST or chains * draws * numbers <= _EFFECTS
    w = draw_effects(target, found.draws.θ, b, rng) if effects else None
    beta = beta_of_data(target.blocks, b)
    sampled = {
        "posterior": posterior(model, target.coordinates, found.draws.u, beta, w, shape),
        "sample_stats": _stats(found, shape, chosen.proper),
    }
    facts = {"sampler": "collapsed", "seconds": 0.0, "seed": seed}
    tree = complete(model, chosen, sampled, facts, prior_draws)
    own = certificate(found, chosen.proper) | {"sampling_time": time.perf_counter() - began}
    tree.attrs.update(own)
    tree["posterior"].attrs.update(own)
    return tree


def _say_who_took_over(found: Found) -> None:
    text = (
        f"Importance weights of the variance parameters were not to be trusted (Pareto k̂ = {found.khat:.2f}, and 0.7 "
        f"is the limit), so that Markov chains drew them ({found.steps[-1]}). These draws are dependent: read their effective "
        "sample sizes."
    )
    here = str(Path(__file__).parents[2])
    warnings.warn(ConvergenceNote(text), skip_file_prefixes=(here,), stacklevel=2)


def require_hierarchical(model: LMM, draws: int, chains: int) -> None:
    """Whether there is anything to sample."""
    if model.signed:
        raise SamplingError(
            "signed=True lets variances be negative: V is then valid, but no random effects have it as their "
            "distribution: the marginal model has no hierarchical one. Use fit(), or drop signed=True."
        )
    if draws < 1 or chains < 1:
        raise SamplingError(f"draws={draws} and chains={chains}: both must be at least 1.")


def seed_of(random_seed: Any) -> int:
    """One number that reproduces the draws."""
    if random_seed is None or isinstance(random_seed, np.random.SeedSequence | np.random.Generator):
        return int(np.random.default_rng(random_seed).integers(2**31))
    if isinstance(random_seed, list | tuple | np.ndarray):
        return int(np.random.default_rng([int(x) for x in random_seed]).integers(2**31))
    return int(random_seed)


def certificate(found: Found, proper: bool) -> dict[str, Any]:
    """What says how far the draws can be trusted; the evidence has a meaning under proper priors only."""
    out: dict[str, Any] = {
        "method": "importance sampling" if found.method == "importance" else "ensemble of Markov chains",
        "khat": float(found.khat),
        "ess": float(found.ess),
        "proposals": int(found.proposals),
        "steps": "; ".join(found.steps),
    }
    if proper:
        out |= {"log_evidence": found.log_evidence, "log_evidence_error": found.evidence_error}
    return out


def _stats(found: Found, shape: Shape, proper: bool) -> xr.Dataset:
    """lp: log density of the variance parameters in the sampler's coordinates, w and β integrated out."""
    level = found.log_evidence if proper else 0.0
    lp = shape.of(found.draws.value - level)
    coords = {"chain": np.arange(shape.chains), "draw": np.arange(shape.draws)}
    arrays = {"lp": lp, "log_marginal_likelihood": shape.of(found.draws.likelihood)}
    stats = xr.Dataset({name: (SAMPLE, a) for name, a in arrays.items()}, coords=coords)
    return stats.assign_attrs(certificate(found, proper))
