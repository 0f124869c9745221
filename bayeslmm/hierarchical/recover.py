"""Random effects from draws of everything else: exact, and for as many subjects as are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from ..draws import fixed_draws, linear_draws, posterior_group
from ..errors import InferenceError
from .collapsed.effects import draw_effects
from .collapsed.target import Target
from .defaults import default_priors
from .patience import patient_bar
from .slots import effect_dim

if TYPE_CHECKING:
    from ..model import LMM

_NUMBERS = 20_000_000  # in one part of a stream


def random_effect_draws(
    model: LMM, posterior: xr.DataTree, subjects: Iterable[Any] | None = None, *, random_seed: Any = None
) -> xr.Dataset:
    """Draws of w given the draws of β and the variance parameters in a posterior, one for each of them.

    For posteriors without w: of a very large model, or of to_pymc("marginal"). subjects: levels of the first
    grouping factor, each once; all by default. Variables w_<group> (chain, draw, group, effect), as in a posterior;
    with chosen subjects those of the first factor and of all levels of the factors that cross it, without nested ones.

    Raises InferenceError for an unknown subject or none, and for a model without random effects.
    """
    source = _Source.of(model, posterior)
    return source.draw(_chosen(model, subjects), np.random.default_rng(random_seed), partly=subjects is not None)


def random_effect_chunks(
    model: LMM,
    posterior: xr.DataTree,
    subjects: Iterable[Any] | None = None,
    *,
    size: int | None = None,
    random_seed: Any = None,
) -> Iterator[xr.Dataset]:
    """Such draws as a stream, `size` subjects at a time, so that any number of subjects fits into memory.

    size: such that one part is about 20 million numbers by default. Factors that cross the subjects are in every
    part, drawn anew: given β and the variance parameters, subjects of two parts are then independent draws.

    Raises InferenceError as `random_effect_draws` does, and for a size below one.
    """
    source, chosen = _Source.of(model, posterior), _chosen(model, subjects)
    if size is not None and size < 1:
        raise InferenceError(f"size={size}: a part of the stream holds at least one subject.")
    step = size or max(1, _NUMBERS // (len(source.θ) * model.design.terms[0].Z.shape[1]))
    rng = np.random.default_rng(random_seed)
    parts = (chosen[k : k + step] for k in range(0, len(chosen), step))
    return (source.draw(part, rng, partly=True) for part in parts)


def random_effect_summary(
    model: LMM,
    posterior: xr.DataTree,
    subjects: Iterable[Any] | None = None,
    *,
    level: float = 0.95,
    random_seed: Any = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Posterior mean, sd and equal-tailed interval of the random effects of the first grouping factor.

    Read from a stream of draws: no more than one part of them is in memory. One row a level and effect.

    Raises InferenceError as `random_effect_draws` does, and for a level that is not between 0 and 1.
    """
    chosen = _chosen(model, subjects)
    term = model.design.terms[0]
    if not 0 < level < 1:
        raise InferenceError(f"level={level} is the probability of an interval, between 0 and 1.")
    tails = [(1 - level) / 2, (1 + level) / 2]
    found = []
    done = 0
    with patient_bar(progress) as tell:
        for part in random_effect_chunks(model, posterior, term.levels[chosen], random_seed=random_seed):
            w = part[f"w_{term.group}"].values
            w = w.reshape(-1, w.shape[2] * w.shape[3])
            low, high = np.quantile(w, tails, axis=0)
            found.append(np.column_stack([w.mean(axis=0), w.std(axis=0, ddof=1), low, high]))
            done += part.sizes[term.group]
            tell("Random effects", done / len(chosen))
    index = pd.MultiIndex.from_product([term.levels[chosen], list(term.effects)], names=[term.group, "effect"])
    return pd.DataFrame(np.concatenate(found), index=index, columns=["mean", "sd", "lower", "upper"])


@dataclass(frozen=True)
class _Source:
    """What w is drawn from: θ (D, K) linear coordinates, b (D, p) in the units of the blocks, and coordinates."""

    model: LMM
    target: Target
    θ: np.ndarray
    b: np.ndarray
    coords: dict[str, Any]
    shape: tuple[int, ...]

    @staticmethod
    def of(model: LMM, posterior: xr.DataTree) -> _Source:
        if not model.design.terms:
            raise InferenceError("The model has no random effects to draw.")
        draws = posterior_group(posterior)
        target = Target.of(model, default_priors(model))
        blocks, beta = target.blocks, fixed_draws(model, draws)
        b = (beta.reshape(beta.shape[0] * beta.shape[1], blocks.p) - blocks.center) / blocks.y_scale @ blocks.basis.T
        coords = {d: draws.coords[d] for d in ("chain", "draw")}
        return _Source(model, target, linear_draws(model, draws), b, coords, beta.shape[:2])

    def draw(self, chosen: np.ndarray, rng: np.random.Generator, *, partly: bool) -> xr.Dataset:
        """w of the levels `chosen` (places) of the first grouping factor, and of the others."""
        terms, blocks = self.model.design.terms, self.target.blocks
        w = draw_effects(self.target, self.θ, self.b, rng, chosen if partly else None)
        kept = [chosen, *(np.arange(len(t.levels)) for t in terms[1:])]
        found: dict[str, Any] = {}
        coords = dict(self.coords)
        for i, (term, own) in enumerate(zip(terms, w, strict=True)):
            if i and partly and {0, i} <= set(blocks.within):
                continue  # only its levels in the blocks of the chosen subjects were drawn
            dim = effect_dim(self.model, i)
            found[f"w_{term.group}"] = (("chain", "draw", term.group, dim), own.reshape(*self.shape, len(kept[i]), -1))
            coords |= {term.group: np.asarray(term.levels)[kept[i]], dim: list(term.effects)}
        return xr.Dataset(found, coords=coords)


def _chosen(model: LMM, subjects: Iterable[Any] | None) -> np.ndarray:
    """Places of the subjects among the levels of the first grouping factor."""
    if not model.design.terms:
        raise InferenceError("The model has no random effects to draw.")
    term = model.design.terms[0]
    if subjects is None:
        return np.arange(len(term.levels))
    several = isinstance(subjects, Iterable) and not isinstance(subjects, str)
    wanted = list(dict.fromkeys(str(s) for s in (subjects if several else [subjects])))
    if not wanted:
        raise InferenceError(f"subjects is empty: name levels of {term.group}, or leave it out for all of them.")
    place = {str(name): i for i, name in enumerate(term.levels)}
    unknown = [s for s in wanted if s not in place]
    if unknown:
        some = ", ".join(map(str, term.levels[:5]))
        raise InferenceError(f"{term.group} has no level {unknown[0]!r}; its levels are {some}, ...")
    return np.array([place[s] for s in wanted], dtype=int)
