"""The exact null distribution of the likelihood ratio test of the only variance component (Crainiceanu and
Ruppert 2004).

For Y ~ N(Xβ, σ²(I + λZZ')) and H0: λ = 0, with μ_s the eigenvalues of Z'(I - P_X)Z, ξ_s those of Z'Z and
independent standard normal w_s,

    RLRT = sup_λ (n - p) log(1 + N/D) - Σ_s log(1 + λμ_s)
    LRT  = sup_λ n log(1 + N/D) - Σ_s log(1 + λξ_s)  + n log(1 + Σ_j u_j² / Σ_s w_s²)

    N(λ) = Σ_s λμ_s/(1 + λμ_s) w_s²,     D(λ) = Σ_s w_s²/(1 + λμ_s) + Σ_(s > K) w_s²

with one u_j for each coefficient that is tested as well. Equal eigenvalues are drawn together, as one χ².
"""

from __future__ import annotations

import numpy as np

from ..design import Design, Term

_GRID = 240
_BATCH = 20_000


def spectral_null(
    design: Design, term: Term, tested: int, n: int, rng: np.random.Generator, *, reml: bool
) -> np.ndarray:
    """n draws of the (restricted) likelihood ratio under λ = 0; tested: coefficients that the null leaves
    out as well.
    """
    root = np.sqrt(design.weights)[:, None]
    X, rows = design.X * root, len(design.y)
    p = X.shape[1]
    gram, cross = _products(X, term, root[:, 0])
    inner = gram - np.einsum("apq,bpr->aqbr", cross, cross).reshape(gram.shape)
    μ = np.clip(np.linalg.eigvalsh(inner), 0.0, None)
    ξ = np.clip(np.linalg.eigvalsh(gram), 0.0, None)
    values, counts = _distinct(μ)
    penalty_values, penalty_counts = _distinct(μ if reml else ξ)
    scale = values.max()
    λ = np.concatenate([[0.0], np.geomspace(1e-4, 1e6, _GRID)]) / scale
    shrink = 1 / (1 + λ * values[:, None])
    penalty = penalty_counts @ np.log1p(λ * penalty_values[:, None])
    draws = []
    for size in _batches(n):
        w = rng.chisquare(counts, (size, len(values)))
        rest = rng.chisquare(rows - p - counts.sum(), size)[:, None]
        kept = w @ shrink
        total = w.sum(axis=1, keepdims=True)
        fit = np.log1p((total - kept) / (kept + rest))
        best = ((rows - p if reml else rows) * fit - penalty).max(axis=1)
        if tested and not reml:
            u = rng.chisquare(tested, size)
            best += rows * np.log1p(u / (total + rest)[:, 0])
        draws.append(best)
    return np.concatenate(draws)


def _products(X: np.ndarray, term: Term, root: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Z'Z (Nq, Nq) dense and Z'Q (N, p, q) for an orthonormal basis Q of X."""
    Q = np.linalg.qr(X)[0]
    N, q = len(term.levels), term.Z.shape[1]
    Z = term.Z * root[:, None]
    blocks = np.zeros((N, q, q))
    np.add.at(blocks, term.codes, Z[:, :, None] * Z[:, None])
    cross = np.zeros((N, Q.shape[1], q))
    np.add.at(cross, term.codes, Q[:, :, None] * Z[:, None])
    gram = np.zeros((N, q, N, q))
    gram[np.arange(N), :, np.arange(N)] = blocks
    return gram.reshape(N * q, N * q), cross


def _distinct(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positive values that differ by more than rounding, with how often each occurs."""
    kept = np.sort(values[values > 1e-9 * values.max()])
    start = np.flatnonzero(np.diff(kept, prepend=-np.inf) > 1e-9 * kept[-1])
    return kept[start], np.diff(np.append(start, len(kept))).astype(float)


def _batches(n: int) -> list[int]:
    return [_BATCH] * (n // _BATCH) + ([n % _BATCH] if n % _BATCH else [])
