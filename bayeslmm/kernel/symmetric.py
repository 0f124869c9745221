"""Small symmetric matrices by the thousand: inverses, determinants and roots over a last axis of N matrices.

LAPACK spends about a microsecond on each matrix however small it is. Here every step is one operation on the
entries of all matrices, which is faster up to about a dozen rows; larger ones go to LAPACK.
"""

from __future__ import annotations

import numpy as np

_BY_HAND = 12  # rows up to which elimination over all matrices at once is faster than LAPACK


def invert(V: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """V⁻¹ and log|V| of symmetric (m, m, N); log|V| is -inf where V is not positive definite.

    V may be overwritten.
    """
    with np.errstate(all="ignore"):
        return _eliminate(V) if len(V) <= _BY_HAND else _by_lapack(V)


def _eliminate(A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Jordan elimination in place; positive definite matrices need no exchange of rows."""
    N = A.shape[-1]
    logdet, bad = np.zeros(N), np.zeros(N, bool)
    for k in range(len(A)):
        pivot = A[k, k].copy()
        wrong = ~(pivot > 0)
        if wrong.any():
            bad |= wrong
            pivot[wrong] = 1.0
        logdet += np.log(pivot)
        column, row = A[:, k].copy(), A[k] / pivot
        column[k] = 0.0
        A -= column[:, None] * row
        A[:, k] = -column / pivot
        A[k] = row
        A[k, k] = 1.0 / pivot
    logdet[bad] = -np.inf
    return A, logdet


def _by_lapack(V: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    L, bad = cholesky(np.moveaxis(V, -1, 0))
    logdet = 2 * np.log(np.diagonal(L, axis1=1, axis2=2)).sum(axis=1)
    logdet[bad] = -np.inf
    Li = np.linalg.inv(L)
    return np.moveaxis(np.swapaxes(Li, 1, 2) @ Li, 0, -1), logdet


def cholesky(A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cholesky factors of (N, m, m), and which (N,) are not positive definite (they get the identity)."""
    bad = ~np.isfinite(A).all(axis=(1, 2))
    try:
        if not bad.any():
            return np.linalg.cholesky(A), bad
    except np.linalg.LinAlgError:
        pass
    A = np.where(bad[:, None, None], np.eye(A.shape[1]), A)
    values = np.linalg.eigvalsh(A)
    bad |= values[:, 0] <= 1e-15 * np.abs(values[:, -1])
    return np.linalg.cholesky(np.where(bad[:, None, None], np.eye(A.shape[1]), A)), bad


def root(G: np.ndarray) -> np.ndarray:
    """Lower triangular Λ with ΛΛ' = G for semidefinite (q, q, N): a pivot of zero gives a column of zeros."""
    Λ = np.zeros_like(G)
    left = G.copy()
    for k in range(len(G)):
        pivot = left[k, k]
        inside = pivot > 1e-15 * np.abs(G[k, k])
        column = np.where(inside, left[k:, k] / np.sqrt(np.where(inside, pivot, 1.0)), 0.0)
        Λ[k:, k] = column
        left[k:, k:] -= column[:, None] * column
    return Λ
