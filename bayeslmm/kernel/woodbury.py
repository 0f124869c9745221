"""Small algebra of crossed terms: V = V₁ + U(I ⊗ G)U' without an n x n matrix."""

from __future__ import annotations

import numpy as np
from scipy.linalg import block_diag, solve_triangular

from ..covariance.structure import semidefinite_cholesky


def times_kron(A: np.ndarray, G: np.ndarray, widths: tuple[int, ...], term: int) -> np.ndarray:
    """A (I ⊗ G) on the columns of one crossed term, zero on the others: (r, u) -> (r, u)."""
    out = np.zeros_like(A)
    start = sum(widths[:term])
    k = slice(start, start + widths[term])
    out[:, k] = (A[:, k].reshape(len(A), -1, len(G)) @ G).reshape(len(A), -1)
    return out


def inner_inverse(S: np.ndarray, G: list[np.ndarray], widths) -> tuple[np.ndarray, float] | None:
    """K = (G⁻¹ + S)⁻¹ and log|I + G S|; None where V is not positive definite (negative variances only)."""
    if all(np.linalg.eigvalsh(g)[0] >= 0 for g in G):
        Λ = direct_sum([semidefinite_cholesky(g) for g in G], widths)
        inner = np.eye(len(S)) + Λ.T @ S @ Λ
        left, right = Λ, Λ.T
    else:
        values, vectors = np.linalg.eigh(S)
        root = vectors * np.sqrt(np.clip(values, 0, None))
        big = direct_sum(G, widths)
        inner = np.eye(len(S)) + root.T @ big @ root
        left, right = big, None
    try:
        L = np.linalg.cholesky(inner)
    except np.linalg.LinAlgError:
        return None
    logdet = 2 * float(np.log(np.diag(L)).sum())
    if right is None:
        half = solve_triangular(L, root.T @ left, lower=True)
        return left - half.T @ half, logdet
    half = solve_triangular(L, right, lower=True)
    return half.T @ half, logdet


def direct_sum(G: list[np.ndarray], widths) -> np.ndarray:
    return block_diag(*(np.kron(np.eye(w // len(g)), g) for g, w in zip(G, widths, strict=True)))
