"""The chi-bar-square distribution: likelihood ratio tests of variances that are zero.

Under the null hypothesis the estimate of the tested coordinates s is asymptotically the projection of z ~
N(0, J⁻¹) on the cone K of admissible directions, J their efficient information, and the likelihood ratio
statistic is

    T → χ²_f + ‖Π_K z‖²_J  ~  Σ_k w_k χ²_(f+k)

with f tested parameters that are not on the boundary (Self and Liang 1987; Stram and Lee 1994; Silvapulle
and Sen 2005, sections 3.4 and 4.3). K is a product of cones of positive semidefinite matrices: a half-line
for each variance, and the r x r matrices where r correlated effects are tested together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

_DRAWS = 20_000
_ITERATIONS = 120


@dataclass(frozen=True)
class ChiBar:
    """A mixture of χ² with df free, free + 1, ...: weights (d + 1,); draws of ‖Π_K z‖² where they were
    simulated.
    """

    free: int
    weights: np.ndarray
    draws: np.ndarray | None

    def tail(self, statistic: float) -> float:
        """P(T ≥ statistic)."""
        if statistic <= 0:
            return 1.0
        if self.draws is not None and statistic < np.quantile(self.draws, 0.99):
            left = statistic - self.draws
            if not self.free:
                return float(np.mean(left <= 0))
            return float(np.mean(np.where(left > 0, stats.chi2.sf(np.maximum(left, 0), self.free), 1.0)))
        return float(sum(w * _tail(statistic, self.free + k) for k, w in enumerate(self.weights)))

    def __str__(self) -> str:
        used = [(w, self.free + k) for k, w in enumerate(self.weights) if w > 5e-4]
        if len(used) == 1:
            return f"χ²({used[0][1]})"
        known = {0.5: "½", 0.25: "¼"}
        words = [f"{known.get(round(float(w), 6), f'{w:.3f}')} χ²({df})" for w, df in used]
        return " + ".join(words) + (" (simulated)" if self.draws is not None else "")


def _tail(x: float, df: int) -> float:
    return float(stats.chi2.sf(x, df)) if df else float(x <= 0)


def chi_bar(J: np.ndarray, cones: Sequence[int], free: int, seed: int = 0) -> ChiBar:
    """The mixture for efficient information J of the entries of cones of r x r matrices (variances, then
    covariances).

    One variance: ½, ½. Two: from the correlation of their estimates, ¼, ½, ¼ where it is zero. Else
    simulated.
    """
    d = len(J)
    if d == 0:
        return ChiBar(free, np.ones(1), None)
    if d == 1:
        return ChiBar(free, np.array([0.5, 0.5]), None)
    if d == 2 and len(cones) == 2:
        Σ = np.linalg.inv(J)
        both = 0.25 + np.arcsin(Σ[0, 1] / np.sqrt(Σ[0, 0] * Σ[1, 1])) / (2 * np.pi)
        return ChiBar(free, np.array([0.5 - both, 0.5, both]), None)
    z = np.random.default_rng(seed).multivariate_normal(
        np.zeros(d), np.linalg.inv(J), _DRAWS, method="cholesky"
    )
    s = project(z, J, cones)
    length = lambda x: np.einsum("ni,ij,nj->n", x, J, x)  # noqa: E731
    draws = np.maximum(length(z) - length(z - s), 0.0)
    if len(cones) == d:  # half-lines only: the weights are the shares of faces
        return ChiBar(free, np.bincount((s > 0).sum(axis=1), minlength=d + 1) / len(s), draws)
    return ChiBar(free, _weights(draws, d), draws)


def _weights(draws: np.ndarray, d: int) -> np.ndarray:
    """The mixture of χ²_0 to χ²_d whose distribution function is closest to that of the draws."""
    at = np.quantile(draws, np.linspace(0.02, 0.995, 60))
    tails = np.array([[_tail(x, k) if x > 0 else 1.0 for k in range(d + 1)] for x in at])
    seen = np.mean(draws[None] >= at[:, None], axis=1)
    total = 100.0  # the weights add up to one
    w = optimize.nnls(np.vstack([tails, np.full(d + 1, total)]), np.append(seen, total))[0]
    return w / w.sum()


# --- projection -------------------------------------------------------------------------------------------


def project(z: np.ndarray, J: np.ndarray, cones: Sequence[int]) -> np.ndarray:
    """The point of the cone next to each z (N, d) in the metric of J, by accelerated projected gradient
    steps.

    Coordinates are first scaled so that Euclidean distance is that of the matrices (each covariance counts
    twice) and every variance has information 1, which leaves the cone as it is.
    """
    scale = _scaling(J, cones)
    metric = J / np.outer(scale, scale)
    target = z * scale
    step = 1 / float(np.linalg.eigvalsh(metric)[-1])
    s = y = _clip(target, cones)
    momentum = 1.0
    for _ in range(_ITERATIONS):
        new = _clip(y - step * (y - target) @ metric, cones)
        faster = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        y = new + (momentum - 1) / faster * (new - s)
        s, momentum = new, faster
    return s / scale


def _scaling(J: np.ndarray, cones: Sequence[int]) -> np.ndarray:
    out, at = np.ones(len(J)), 0
    for r in cones:
        sd = np.diag(J)[at : at + r] ** 0.25
        i, j = np.tril_indices(r, -1)
        out[at : at + r] = sd**2
        out[at + r : at + r + len(i)] = np.sqrt(2) * sd[i] * sd[j]
        at += r + len(i)
    return out


def _clip(s: np.ndarray, cones: Sequence[int]) -> np.ndarray:
    """Replace every matrix by its positive semidefinite part."""
    out, at = np.empty_like(s), 0
    for r in cones:
        if r == 1:
            out[:, at] = np.maximum(s[:, at], 0.0)
            at += 1
            continue
        i, j = np.tril_indices(r, -1)
        A = np.zeros((len(s), r, r))
        A[:, np.arange(r), np.arange(r)] = s[:, at : at + r]
        A[:, i, j] = A[:, j, i] = s[:, at + r : at + r + len(i)] / np.sqrt(2)
        values, vectors = np.linalg.eigh(A)
        A = (vectors * np.maximum(values, 0.0)[:, None]) @ np.swapaxes(vectors, 1, 2)
        out[:, at : at + r] = A[:, np.arange(r), np.arange(r)]
        out[:, at + r : at + r + len(i)] = np.sqrt(2) * A[:, i, j]
        at += r + len(i)
    return out
