"""Several priors as the prior of one vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from .prior import Prior


def joint(own: Sequence[Prior]) -> Prior:
    """The prior of independent entries of a vector: one family with arrays, or several families."""
    first = own[0]
    fixed = [f.name for f in fields(first) if f.kw_only or f.name == "positive"]
    if not all(
        type(p) is type(first) and all(getattr(p, f) == getattr(first, f) for f in fixed) for p in own
    ):
        return Mixed(tuple(own))
    free = [f.name for f in fields(first) if f.name not in fixed]
    arrays = {f: np.array([getattr(p, f) for p in own]) for f in free}
    return type(first)(**arrays, **{f: getattr(first, f) for f in fixed})


@dataclass(frozen=True)
class Mixed(Prior):
    """Priors of different families, one for each entry of a vector."""

    own: tuple[Prior, ...]

    def logp(self, x, xp):
        return xp.stack([p.logp(x[i], xp) for i, p in enumerate(self.own)])

    def sample(self, rng, size=None):
        return np.stack([p.sample(rng, size) for p in self.own], axis=-1)

    def dist(self, **kwargs: Any) -> Any:
        import pytensor.tensor as pt

        return pt.stack([p.dist() for p in self.own])

    def to_pymc(self, name: str, **kwargs: Any) -> Any:
        import pymc as pm
        import pytensor.tensor as pt

        positive = all(p.support == "positive" for p in self.own)
        return pm.CustomDist(
            name,
            np.zeros(len(self.own)),
            dist=lambda zero, size: self.dist() + zero,
            logp=lambda x, zero: self.logp(x, pt),
            signature="(k)->(k)",
            transform=pm.distributions.transforms.log if positive else None,
            class_name="MixedFamilies",
            **kwargs,
        )
