"""Where the posterior reaches far from its summit: towards a standard deviation of zero, or a range without end.

Components of variance can stand in for one another (a short range for measurement error, casks for batches). The
posterior then has a low and long ridge towards the border where one of them is gone, which curves away from the
normal distribution at the summit: proposals from there would never see it.
"""

from __future__ import annotations

import numpy as np

from .mode import Mode, inverse_curvature
from .target import Target

_STEPS = (0.8, 1.2, 1.6, 2.0, 2.4)  # in u from the summit: factors of 2.4, 4.5, 11, 38 and 240 from it
_LOW = 10.0  # log density below the summit at which a ridge ends
_NEWTON = 5
_NEAR = 0.1  # log density that a Newton step would still gain on top of a ridge
_WIDTH = 0.4  # sd along the ridge
_FAR = 1.5  # longest step across it


def scouts(target: Target, summit: Mode) -> list[Mode]:
    """Points on the ridges along every positive number, in both directions, each with a covariance across and along."""
    found: list[Mode] = []
    for j in map(int, np.flatnonzero(target.coordinates.positive)):
        for sign in (-1.0, 1.0):
            last, along = summit.u, np.eye(len(summit.u))[j]
            for step in _STEPS:
                gap = summit.u[j] + sign * step - last[j]
                here = _top(target, last + np.clip(gap * along, -_FAR, _FAR), j)
                if here is None or here[0].value < summit.value - _LOW:
                    break
                (point, along), last = here, here[0].u
                found.append(point)
    return found


def _top(target: Target, u: np.ndarray, j: int) -> tuple[Mode, np.ndarray] | None:
    """The highest point with the j-th coordinate of u, and the direction of the ridge through it."""
    other = np.arange(len(u)) != j
    at = target.one(u)
    if at is None:
        return None
    for _ in range(_NEWTON):
        value, g, H = at
        move = inverse_curvature(H[np.ix_(other, other)]) @ g[other]
        if 0.5 * g[other] @ move < _NEAR:
            break
        for share in (1.0, 0.3, 0.1):
            new = u.copy()
            new[other] += np.clip(share * move, -_FAR, _FAR)
            there = target.one(new)
            if there is not None and there[0] > value:
                u, at = new, there
                break
        else:
            break
    value, _, H = at
    across = inverse_curvature(H[np.ix_(other, other)])
    along = np.zeros(len(u))
    along[j], along[other] = 1.0, np.clip(across @ H[other, j], -_FAR, _FAR)
    covariance = _WIDTH**2 * np.outer(along, along)
    covariance[np.ix_(other, other)] += across
    return Mode(u, float(value), covariance), along
