"""Random effects w ~ N(0, G) of every grouping factor, non-centred or centred."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from ..covariance.assembly import RandomTerm, term_rows
from .algebra import gram, scale_rows, times_transpose
from .dims import Dims
from .hyper import Hyper
from .slots import effect_dim

if TYPE_CHECKING:
    from ..model import LMM

def random_effects(model: LMM, hypers: list[Hyper], parametrization: str, dims: Dims) -> list[Any]:
    """w (N, q) of each grouping factor, with the hyperparameters of its blocks in order."""
    left = iter(hypers)
    found = []
    for i, (term, bound) in enumerate(zip(model.design.terms, model.covariance.random, strict=True)):
        own = [next(left) for _ in bound.blocks]
        shape = {
            "shape": (len(term.levels), len(term.effects)),
            "dims": (dims.of(term.group, term.levels.tolist()), dims.of(effect_dim(model, i), term.effects)),
        }
        make = _noncentered if parametrization == "noncentered" else _centered
        found.append(make(bound, [factor(h) for h in own], shape))
    return found


def factor(hyper: Hyper) -> Any:
    """Λ with ΛΛ' = G of one block: a matrix (q, q), or its diagonal (q,) for independent effects."""
    structure, q = hyper.structure, len(hyper.structure.positions)
    sd = hyper.sd if structure.scale.labels is not None else hyper.sd * np.ones(q)
    if hyper.chol is not None:
        # D L of D C D = D L L' D: a Cholesky factor of G would fail where a correlation comes close to ±1.
        return scale_rows(sd, hyper.chol)
    if structure.diagonal or q == 1:
        return sd
    return pt.linalg.cholesky(_matrix(hyper))


def covariance(hyper: Hyper) -> Any:
    """G of one block: a matrix (q, q), or its diagonal (q,) for independent effects."""
    if hyper.chol is None and not hyper.structure.diagonal and len(hyper.structure.positions) > 1:
        return _matrix(hyper)
    Λ = factor(hyper)
    return Λ * Λ if Λ.ndim == 1 else gram(Λ)


def _matrix(hyper: Hyper) -> Any:
    return hyper.structure.matrix(hyper.linear, term_rows(len(hyper.structure.positions)), pt)


def _noncentered(term: RandomTerm, factors: list[Any], shape: dict[str, Any]) -> Any:
    """w = z Λ' with z standard normal."""
    z = pm.Normal(f"z_{term.group}", **shape)
    parts = []
    for (_, columns), Λ in zip(term.blocks, factors, strict=True):
        own = z[:, columns[0] : columns[-1] + 1]
        parts.append(own * Λ if Λ.ndim == 1 else times_transpose(own, Λ))
    w = parts[0] if len(parts) == 1 else pt.concatenate(parts, axis=1)
    return pm.Deterministic(f"w_{term.group}", w, dims=shape["dims"])


def _centered(term: RandomTerm, factors: list[Any], shape: dict[str, Any]) -> Any:
    """w ~ N(0, G) itself."""
    name = f"w_{term.group}"
    if all(Λ.ndim == 1 for Λ in factors):
        return pm.Normal(name, 0.0, pt.concatenate(factors), **shape)
    whole = [pt.diag(Λ) if Λ.ndim == 1 else Λ for Λ in factors]
    Λ = whole[0] if len(whole) == 1 else pt.linalg.block_diag(*whole)
    return pm.MvNormal(name, np.zeros(len(term.effects)), chol=Λ, **shape)
