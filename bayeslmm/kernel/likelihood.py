"""The marginal likelihood, its gradient and its Hessian: algebra on the moments of one θ.

ℓ_ML   = -½ [ n log 2π + log|V| + r'V⁻¹r ],                            r = y - Xβ̂,  β̂ = (X'V⁻¹X)⁻¹X'V⁻¹y
ℓ_REML = -½ [ (n-p) log 2π + log|V| + log|X'V⁻¹X| + r'V⁻¹r ]           as lme4, nlme and SAS count it
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..covariance.assembly import Covariance
from .batch import Blocks
from .moments import Moments, moments

LOG_2PI = float(np.log(2 * np.pi))


@dataclass(frozen=True)
class Evaluation:
    """The likelihood at one θ, in the units of the blocks.

    value: log-likelihood; beta (p,), A_inverse (p, p) = (X'V⁻¹X)⁻¹; rss = r'V⁻¹r; score (K,) and hessian (K, K) with
    respect to linear coordinates, None where not asked for.
    """

    value: float
    beta: np.ndarray
    A_inverse: np.ndarray
    rss: float
    score: np.ndarray | None
    hessian: np.ndarray | None
    moments: Moments


def evaluate(blocks: Blocks, covariance: Covariance, θ: np.ndarray, *, reml: bool, order: int = 2) -> Evaluation | None:
    """ℓ and its derivatives at linear coordinates θ in the units of the blocks; None where V is not positive definite."""
    m = moments(blocks, covariance, θ, order)
    return None if m is None else from_moments(m, blocks, reml=reml, order=order)


def from_moments(m: Moments, blocks: Blocks, *, reml: bool, order: int) -> Evaluation | None:
    n, p = blocks.n, blocks.p
    x = slice(0, p)
    try:
        L = np.linalg.cholesky(m.M[x, x])
    except np.linalg.LinAlgError:
        return None
    half = np.linalg.inv(L)
    C = half.T @ half
    beta = C @ m.M[x, p]
    a = np.append(-beta, 1.0)  # [X y] a = r
    rss = float(a @ m.M @ a)
    logdet = m.logdet - blocks.log_weights
    value = -0.5 * (n * LOG_2PI + logdet + rss + 2 * n * np.log(blocks.y_scale))
    if reml:
        log_det_A = 2 * float(np.log(np.diag(L)).sum())
        log_basis = float(np.log(np.abs(np.diag(blocks.basis))).sum())
        value -= 0.5 * (log_det_A + 2 * log_basis - p * LOG_2PI - 2 * p * np.log(blocks.y_scale))
    score = hessian = None
    if order > 0:
        g = m.Mj @ a  # (K, c): [X y]'V⁻¹V_jV⁻¹r
        score = -0.5 * (m.tj - g @ a)
        if reml:
            CM = C @ m.Mj[:, x, x]
            score += 0.5 * np.trace(CM, axis1=1, axis2=2)
    if order > 1:
        gx = g[:, x]
        quadratic = np.einsum("jkab,a,b->jk", 2 * m.Mjk - m.Njk, a, a) - 2 * gx @ C @ gx.T
        hessian = -0.5 * (m.sjk - m.tjk + quadratic)
        if reml:
            curvature = np.einsum("ab,jkab->jk", C, 2 * m.Mjk[:, :, x, x] - m.Njk[:, :, x, x])
            hessian -= 0.5 * (curvature - np.einsum("jab,kba->jk", CM, CM))
    return Evaluation(float(value), beta, C, rss, score, hessian, m)


def residual_count(blocks: Blocks, reml: bool) -> int:
    """The number of observations that estimate the scale: n - p for REML, n for ML."""
    return blocks.n - blocks.p if reml else blocks.n


def rescale(evaluation: Evaluation, covariance: Covariance, blocks: Blocks, θ: np.ndarray, reml: bool) -> np.ndarray:
    """θ with all variances multiplied by the factor that maximises ℓ: r'V⁻¹r / (n - p), or / n for ML."""
    factor = evaluation.rss / residual_count(blocks, reml)
    return np.where(covariance.scales_with_variance, θ * factor, θ)
