"""Denominator degrees of freedom that are counted from the design: residual, between-within, containment."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from ..design import Design

_TOLERANCE = 1e-9


def counted_df(design: Design, method: str) -> np.ndarray | None:
    """Degrees of freedom (p,) of each coefficient for a method that counts; None for the others."""
    if method == "residual":
        return np.full(design.X.shape[1], float(len(design.y) - design.X.shape[1]))
    if method == "between-within":
        return between_within(design)
    if method == "containment":
        return containment(design)
    return None


def between_within(design: Design) -> np.ndarray:
    """n - rank X split between subjects: N - rank X_between for what is constant in them, the rest for what varies.

    The subjects are the levels of the coarsest grouping factor (SAS: ddfm=betwithin).
    """
    n, p = design.X.shape
    if not design.terms:
        return np.full(p, float(n - p))
    term = min(design.terms, key=lambda t: len(t.levels))
    constant = np.array([_constant_within(x, term.codes) for x in design.X.T])
    between = len(term.levels) - int(constant.sum())
    return np.where(constant, float(between), float(n - p - between))


def _constant_within(x: np.ndarray, codes: np.ndarray) -> bool:
    low = np.full(codes.max() + 1, np.inf)
    high = np.full(codes.max() + 1, -np.inf)
    np.minimum.at(low, codes, x)
    np.maximum.at(high, codes, x)
    return bool(np.all(high - low <= _TOLERANCE * max(float(np.abs(x).max()), 1e-300)))


def containment(design: Design) -> np.ndarray:
    """The smallest rank that a random effect containing the coefficient adds to [X Z], else n - rank[X Z] (SAS).

    A coefficient is contained in a grouping factor's random effect if that has the same column (Days in
    (Days | Subject)), or if it is constant within the factor's levels and the factor has a random intercept.
    """
    n, p = design.X.shape
    columns = [(t, [j]) for t in range(len(design.terms)) for j in range(design.terms[t].Z.shape[1])]
    full = _rank(design, columns)
    df = np.full(p, float(n - full))
    for t, (j,) in columns:
        added = full - _rank(design, [c for c in columns if c != (t, [j])])
        term = design.terms[t]
        z = term.Z[:, j]
        for k, x in enumerate(design.X.T):
            constant = np.ptp(z) <= _TOLERANCE
            if _same_column(x, z) or (constant and design.coefs[k] != "Intercept" and _constant_within(x, term.codes)):
                df[k] = min(df[k], float(added)) if added > 0 else df[k]
    return df


def _same_column(x: np.ndarray, z: np.ndarray) -> bool:
    scale = float(x @ z) / max(float(z @ z), 1e-300)
    return bool(np.allclose(x, scale * z, rtol=0, atol=_TOLERANCE * max(float(np.abs(x).max()), 1e-300)))


def _rank(design: Design, columns) -> int:
    """rank [X Z] over the chosen columns of Z: the largest factor is eliminated level by level, the rest is dense."""
    if not columns:
        return int(np.linalg.matrix_rank(design.X))
    sizes = [len(design.terms[t].levels) for t, _ in columns]
    biggest = columns[int(np.argmax(sizes))][0]
    own = [j for t, (j,) in columns if t == biggest]
    term = design.terms[biggest]
    N, q = len(term.levels), len(own)
    Z = term.Z[:, own] / np.linalg.norm(term.Z[:, own], axis=0)
    others = [design.X / np.linalg.norm(design.X, axis=0)]
    for t, (j,) in columns:
        if t != biggest:
            other = design.terms[t]
            where = (np.arange(len(design.y)), other.codes)
            others.append(sparse.csr_array((other.Z[:, j], where), shape=(len(design.y), len(other.levels))).toarray())
    U = np.column_stack(others)
    gram = np.zeros((N, q, q))
    np.add.at(gram, term.codes, Z[:, :, None] * Z[:, None, :])
    cross = np.zeros((N, q, U.shape[1]))
    np.add.at(cross, term.codes, Z[:, :, None] * U[:, None, :])
    rank = int(np.linalg.matrix_rank(gram, tol=_TOLERANCE * gram.max(), hermitian=True).sum())
    inverse = np.linalg.pinv(gram, rcond=_TOLERANCE, hermitian=True)
    left = U.T @ U - np.einsum("nqu,nqr,nrv->uv", cross, inverse, cross, optimize=True)
    size = np.sqrt(np.maximum((U**2).sum(axis=0), 1e-300))
    return rank + int(np.linalg.matrix_rank(left / np.outer(size, size), tol=1e-8, hermitian=True))
