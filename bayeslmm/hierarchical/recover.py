"""Random effects from draws of everything else: exact, and for as many subjects as are asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ..draws import fixed_draws, linear_draws, posterior_group
from ..errors import InferenceError
from .collapsed.effects import draw_effects
from .collapsed.target import Target
from .defaults import default_priors
from .slots import effect_dim

if TYPE_CHECKING:
    from ..model import LMM


def random_effect_draws(
    model: LMM, posterior: xr.DataTree, subjects: Iterable[Any] | None = None, *, random_seed: Any = None
) -> xr.Dataset:
    """Draws of w given the draws of β and the variance parameters in a posterior, one for each of them.

    For posteriors without w: of a very large model, or of to_pymc("marginal"). subjects: levels of the first
    grouping factor; all by default. Variables w_<group> (chain, draw, group, effect), as in a posterior.

    Raises InferenceError for an unknown subject, and for a model without random effects.
    """
    design = model.design
    if not design.terms:
        raise InferenceError("The model has no random effects to draw.")
    draws = posterior_group(posterior)
    target = Target.of(model, default_priors(model))
    blocks = target.blocks
    beta = fixed_draws(model, draws)
    shape = beta.shape[:2]
    b = (beta.reshape(-1, blocks.p) - blocks.center) / blocks.y_scale @ blocks.basis.T
    kept = [np.arange(len(t.levels)) for t in design.terms]
    if subjects is not None:
        kept[0] = _places(design.terms[0].levels.tolist(), design.terms[0].group, subjects)
    only = None if subjects is None else kept[0]
    w = draw_effects(target, linear_draws(model, draws), b, np.random.default_rng(random_seed), only)
    found: dict[str, Any] = {}
    coords: dict[str, Any] = {d: draws.coords[d] for d in ("chain", "draw")}
    for i, (term, own) in enumerate(zip(design.terms, w, strict=True)):
        if i and only is not None and i in blocks.within:
            continue  # of a nested factor only the levels of the chosen subjects were drawn
        dim = effect_dim(model, i)
        values = own.reshape(*shape, len(kept[i]), -1)
        found[f"w_{term.group}"] = (("chain", "draw", term.group, dim), values)
        coords |= {term.group: np.asarray(term.levels)[kept[i]], dim: list(term.effects)}
    return xr.Dataset(found, coords=coords)


def _places(levels: list[str], group: str, subjects: Iterable[Any]) -> np.ndarray:
    wanted = [str(s) for s in ([subjects] if isinstance(subjects, str) else subjects)]
    unknown = [s for s in wanted if s not in levels]
    if unknown:
        raise InferenceError(f"{group} has no level {unknown[0]!r}; its levels are {', '.join(levels[:5])}, ...")
    return np.array([levels.index(s) for s in wanted])
