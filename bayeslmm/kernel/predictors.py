"""Best linear unbiased predictors of the random effects: ŵ = G Z'V⁻¹(y - Xβ̂)."""

from __future__ import annotations

import numpy as np

from ..covariance.assembly import Covariance
from .batch import Blocks
from .moments import crossed_solution, whitened_residuals


def blups(blocks: Blocks, covariance: Covariance, θ: np.ndarray, beta: np.ndarray) -> tuple[np.ndarray, ...]:
    """ŵ of every grouping factor, (levels, q), in the units of the data; θ and beta in the units of the blocks."""
    û = crossed_solution(blocks, covariance, θ, beta)
    G = covariance.G(θ)
    out = [np.zeros((len_, len(g))) for len_, g in zip(blocks.levels, G, strict=True)]
    for t, i in enumerate(blocks.crossed):
        out[i] = û[t].reshape(-1, len(G[i]))
    for batch, α in whitened_residuals(blocks, covariance, θ, beta, û):
        for z, levels, i in zip(batch.Z, batch.levels or (), blocks.within, strict=True):
            ŵ = np.einsum("smlq,sm->slq", z[batch.owner], α) @ G[i]
            out[i][levels[levels >= 0]] = ŵ[levels >= 0]
    return tuple(w * (blocks.y_scale / s) for w, s in zip(out, blocks.z_scale, strict=True))
