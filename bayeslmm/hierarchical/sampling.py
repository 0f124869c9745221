"""Draws from the posterior of the hierarchical model, as a complete DataTree for ArviZ."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pymc as pm
import xarray as xr
from pymc.sampling.parallel import ParallelSamplingError

from ..errors import SamplingError
from .builder import build
from .groups import complete
from .overrides import resolve_priors
from .proper import require_proper_posterior
from .recover import random_effect_draws

if TYPE_CHECKING:
    from ..model import LMM

SAMPLERS = ("nuts",)
_FAILURES = (pm.exceptions.SamplingError, ParallelSamplingError, FloatingPointError, np.linalg.LinAlgError)
_LOST = (EOFError, ConnectionError)  # what the pipe to a chain's process says when that is gone
_INTERNAL = ("z_", "chol_")  # coordinates of the sampler, not quantities of the model


def sample(
    model: LMM,
    sampler: str = "nuts",
    *,
    draws: int = 1000,
    tune: int = 1000,
    chains: int = 4,
    random_seed: Any = None,
    parametrization: str = "noncentered",
    priors: Any = None,
    progressbar: bool = True,
    prior_draws: int = 500,
    **kwargs: Any,
) -> xr.DataTree:
    """Draw from the posterior by PyMC's NUTS and gather everything that ArviZ reads.

    prior_draws: how many draws of the prior and of its predictions to add. Other arguments go to `pm.sample`:
    target_accept, cores, nuts_sampler ("nutpie" or "numpyro", where they are installed), ...

    Groups: posterior, sample_stats, log_likelihood (by row, or by subject where residuals are correlated),
    log_prior, prior, prior_predictive, posterior_predictive, observed_data, constant_data.

    Raises
    ------
    SamplingError
        There is no such sampler, a prior does not fit the model, the posterior is improper, or sampling
        failed: one chain that fails or ends early is enough.
    """
    if sampler not in SAMPLERS:
        raise SamplingError(f"sampler={sampler!r}: there are 'collapsed' and 'nuts'.")
    chosen = resolve_priors(model, priors)
    require_proper_posterior(model, chosen)
    began = time.perf_counter()
    built = build(model, parametrization, chosen)
    seed = _seed(random_seed)
    tree = _run(built, {"draws": draws, "tune": tune, "chains": chains, "random_seed": seed,
                        "progressbar": progressbar, **kwargs})  # fmt: skip
    sampled = {str(name): child.to_dataset() for name, child in tree.children.items()}
    if parametrization == "marginal" and model.design.terms:
        sampled["posterior"] = sampled["posterior"].merge(random_effect_draws(model, tree, random_seed=seed))
    seconds = time.perf_counter() - began
    facts = {"sampler": f"nuts ({kwargs.get('nuts_sampler', 'pymc')})", "seconds": seconds, "seed": seed}
    return complete(model, chosen, sampled, facts, prior_draws)


def _seed(random_seed: Any) -> int:
    """One whole number that reproduces everything, drawn where none was given."""
    if isinstance(random_seed, int | np.integer):
        return int(random_seed)
    return int(np.random.default_rng(random_seed).integers(2**31))


def _run(built: pm.Model, options: dict[str, Any]) -> xr.DataTree:
    """pm.sample with our defaults; what is kept are the quantities of the model."""
    kept = [v.name for v in built.unobserved_RVs if not v.name.startswith(_INTERNAL)]
    options = {"nuts_sampler": "pymc", "target_accept": 0.9, "var_names": kept, **options}
    options.setdefault("quiet", not options["progressbar"])
    try:
        with built, _without_noise():
            tree = pm.sample(**options)
    except _LOST as error:
        raise SamplingError(
            "The process of a chain ended before its draws were complete, so there is no result: it was killed, "
            "as happens where memory runs out. Try cores=1, fewer chains at a time (cores=), or "
            "sampler='collapsed'."
        ) from error
    except _FAILURES as error:
        raise SamplingError(
            f"NUTS failed: {error}. Look at the priors (print default_priors(model)) and at the scale of the "
            "columns; parametrization='centered' may help where groups have many rows."
        ) from error
    _require_all(tree, options["chains"], options["draws"])
    posterior = tree["posterior"].to_dataset()
    inside = [name for name in posterior.data_vars if str(name).startswith(_INTERNAL)]  # nutpie keeps them
    tree["posterior"] = xr.DataTree(posterior.drop_vars(inside))
    return tree


def _require_all(tree: xr.DataTree, chains: int, draws: int) -> None:
    """A callback that raises KeyboardInterrupt, say, leaves PyMC with a part of the draws."""
    found = tree["posterior"].sizes
    if (found["chain"], found["draw"]) != (chains, draws):
        raise SamplingError(
            f"NUTS stopped early, with {found['chain']} chains of {found['draw']} draws where {chains} of {draws} were "
            "asked for: no basis for a complete result. For partial draws, call pm.sample on model.to_pymc()."
        )


@contextmanager
def _without_noise() -> Iterator[None]:
    """Silence what a user can do nothing about: BLAS for PyTensor's C backend, R̂ of constant entries."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="PyTensor could not link to a BLAS")
        warnings.filterwarnings("ignore", message="invalid value encountered in scalar divide")
        yield
