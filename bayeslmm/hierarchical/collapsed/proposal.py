"""Mixtures of multivariate t distributions: where proposals come from, and how they learn from weighted
draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln, logsumexp

_RIDGE = 0.02  # share of the pooled covariance in that of each component
_STEPS = 25


@dataclass(frozen=True)
class Mixture:
    """Components t_ν(mean, scale): log weights (C,), means (C, K), Cholesky factors (C, K, K), tails ν
    (C,).
    """

    log_weight: np.ndarray
    mean: np.ndarray
    chol: np.ndarray
    tail: np.ndarray

    @staticmethod
    def of(weights, means, scales, tails) -> Mixture:
        """From weights, means and scale matrices; ν = inf is a normal distribution."""
        w = np.asarray(weights, float)
        return Mixture(np.log(w / w.sum()), np.asarray(means), np.linalg.cholesky(np.asarray(scales)),
                       np.asarray(tails, float))  # fmt: skip

    def beside(self, other: Mixture, share: float) -> Mixture:
        """This mixture with probability 1 - share, the other with `share`."""
        pairs = zip((self.mean, self.chol, self.tail), (other.mean, other.chol, other.tail), strict=True)
        weights = np.concatenate([self.log_weight + np.log1p(-share), other.log_weight + np.log(share)])
        return Mixture(weights, *(np.concatenate(x) for x in pairs))

    def distances(self, u: np.ndarray) -> np.ndarray:
        """Squared Mahalanobis distances (C, D) of draws u (D, K)."""
        white = np.linalg.inv(self.chol) @ (u.T[None] - self.mean[:, :, None])
        return np.einsum("ckd,ckd->cd", white, white)

    def components(self, u: np.ndarray) -> np.ndarray:
        """Log weight plus log density of each component (C, D)."""
        K, ν = u.shape[1], self.tail[:, None]
        d = self.distances(u)
        logdet = np.log(np.diagonal(self.chol, axis1=1, axis2=2)).sum(axis=1)[:, None]
        constant = gammaln((ν + K) / 2) - gammaln(ν / 2) - 0.5 * K * np.log(ν * np.pi)
        return self.log_weight[:, None] + constant - logdet - 0.5 * (ν + K) * np.log1p(d / ν)

    def log_density(self, u: np.ndarray) -> np.ndarray:
        """(D, K) -> (D,)."""
        return logsumexp(self.components(u), axis=0)

    def sample(self, rng: np.random.Generator, draws: int) -> np.ndarray:
        """Draws (draws, K), each component in its exact share (stratified)."""
        edges = np.cumsum(np.exp(self.log_weight))
        which = np.minimum(np.searchsorted(edges, (np.arange(draws) + rng.uniform()) / draws), len(edges) - 1)
        z = rng.standard_normal((draws, self.mean.shape[1], 1))
        ν = self.tail[which]
        stretch = np.sqrt(ν / rng.chisquare(ν))
        return self.mean[which] + (self.chol[which] @ z)[..., 0] * stretch[:, None]


def fit(u: np.ndarray, weight: np.ndarray, components: int, tail: float, rng: np.random.Generator) -> Mixture:
    """A mixture of t_ν fitted to weighted draws by expectation-maximisation; weights sum to one."""
    center = weight @ u
    pooled = ((u - center) * weight[:, None]).T @ (u - center)
    pooled += 1e-10 * np.trace(pooled) * np.eye(len(pooled)) + 1e-12 * np.eye(len(pooled))
    shrink = (tail - 2) / tail if np.isfinite(tail) else 1.0
    if components == 1:
        return Mixture.of([1.0], [center], [pooled * shrink], [tail])
    means = _spread(u, weight, pooled, components, rng)
    now = Mixture.of(np.ones(components), means, np.repeat(pooled[None] * shrink / 2, components, 0),
                     np.full(components, tail))  # fmt: skip
    K = u.shape[1]
    for _ in range(_STEPS):
        each = now.components(u)
        share = np.exp(each - logsumexp(each, axis=0)) * weight
        total = share.sum(axis=1)
        pull = share * (tail + K) / (tail + now.distances(u))
        means = (pull @ u) / pull.sum(axis=1, keepdims=True)
        d = u[None] - means[:, None]
        scales = np.einsum("cd,cdk,cdl->ckl", pull, d, d, optimize=True) / total[:, None, None]
        scales = (1 - _RIDGE) * scales + _RIDGE * pooled * shrink
        now = Mixture.of(np.maximum(total, 1e-3), means, scales, now.tail)
    return now


def _spread(u, weight, pooled, components, rng) -> np.ndarray:
    """Starting means: draws chosen far from each other, in proportion to weight times squared distance."""
    white = np.linalg.solve(np.linalg.cholesky(pooled), u.T).T
    chosen = [int(rng.choice(len(u), p=weight))]
    for _ in range(components - 1):
        gap = np.min([((white - white[i]) ** 2).sum(axis=1) for i in chosen], axis=0)
        score = weight * np.minimum(gap, 25.0)
        chosen.append(int(rng.choice(len(u), p=score / score.sum())))
    return u[chosen]
