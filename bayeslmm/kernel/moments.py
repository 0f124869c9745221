"""Everything the data say about θ: cross-products of [X y] with V⁻¹ and its derivatives.

With D = [X y] and linear coordinates θ, write V_j = ∂V/∂θ_j and V_jk = ∂²V/∂θ_j∂θ_k. The arrays

    M    = D'V⁻¹D                 M_j = D'V⁻¹V_jV⁻¹D         M_jk = D'V⁻¹V_jV⁻¹V_kV⁻¹D     N_jk = D'V⁻¹V_jkV⁻¹D
    logdet = log|V|               t_j = tr V⁻¹V_j            t_jk = tr V⁻¹V_jV⁻¹V_k        s_jk = tr V⁻¹V_jk

of size (p+1)² each are all that the likelihood, its derivatives, every information matrix, Satterthwaite and
Kenward-Roger need: `likelihood.py` and the tests are algebra on them. No n x n matrix is formed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from .. import jets
from ..covariance.assembly import Covariance
from .batch import Batch, Blocks
from .woodbury import inner_inverse, times_kron


@dataclass(frozen=True)
class Moments:
    """The cross-products of one θ; `order` 0 leaves out all derivatives, 1 the second ones."""

    M: np.ndarray  # (c, c)
    logdet: float
    Mj: np.ndarray  # (K, c, c)
    tj: np.ndarray  # (K,)
    Mjk: np.ndarray  # (K, K, c, c)
    tjk: np.ndarray  # (K, K)
    Njk: np.ndarray  # (K, K, c, c)
    sjk: np.ndarray  # (K, K)


class _Sum:
    """Accumulates moments over batches; [U X y] has c columns, of which the first `crossed` are U."""

    def __init__(self, K: int, c: int, order: int):
        first, second = (K if order > 0 else 0), (K if order > 1 else 0)
        self.M, self.logdet = np.zeros((c, c)), 0.0
        self.Mj, self.tj = np.zeros((first, c, c)), np.zeros(first)
        self.Mjk, self.tjk = np.zeros((second, second, c, c)), np.zeros((second, second))
        self.Njk, self.sjk = np.zeros((second, second, c, c)), np.zeros((second, second))

    def freeze(self) -> Moments:
        return Moments(self.M, self.logdet, self.Mj, self.tj, self.Mjk, self.tjk, self.Njk, self.sjk)


def moments(blocks: Blocks, covariance: Covariance, θ: np.ndarray, order: int = 2) -> Moments | None:
    """The moments at linear coordinates θ (in the units of the blocks); None where V is not positive definite."""
    found = _accumulate(blocks, covariance, np.asarray(θ, float), order)
    if found is None:
        return None
    total, G = found
    return eliminate(total, blocks, covariance, G, order) if blocks.crossed else total.freeze()


def _accumulate(blocks: Blocks, covariance: Covariance, θ: np.ndarray, order: int):
    """Sums over all blocks under V₁, and the jets of every G; None where V₁ is not positive definite."""
    total = _Sum(covariance.size, sum(blocks.widths) + blocks.p + 1, order)
    G = [_jet_of_G(covariance, i, θ) for i in range(len(covariance.random))]
    for batch in blocks.batches:
        if not _add_batch(total, batch, blocks, covariance, θ, G, order):
            return None
    for noise in blocks.noise:
        if not _add_noise(total, noise, covariance, θ, order):
            return None
    return total, G


def _jet_of_G(covariance: Covariance, i: int, θ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    term, k = covariance.random[i], covariance.term_slices()[i]
    return jets.derivatives(term.matrix(jets.variables(θ[k]), jets), term.size)


def _derivatives_of_V(batch: Batch, blocks: Blocks, covariance: Covariance, θ, G, order):
    """V (P, m, m), {j: V_j} and {(j, k): V_jk, j <= k} of one batch."""
    V: Any = 0.0
    first: dict[int, np.ndarray] = {}
    second: dict[tuple[int, int], np.ndarray] = {}
    for z, i in zip(batch.Z, blocks.within, strict=True):
        at = covariance.term_slices()[i].start
        value, d, h = G[i]
        V = V + _sandwich(z, value)
        if order > 0:
            first |= {at + j: _sandwich(z, d[j]) for j in range(len(d))}
        if order > 1 and h is not None:
            second |= {(at + j, at + k): _sandwich(z, h[j, k]) for j in range(len(d)) for k in range(j, len(d))}
    for part, k, rows in zip(covariance.residual, covariance.residual_slices(), batch.rows, strict=True):
        if order == 0:
            V = V + part.matrix(θ[k], rows)
            continue
        value, d, h = jets.derivatives(part.matrix(jets.variables(θ[k]), rows, jets), part.size)
        V = V + value
        first |= {k.start + j: d[j] for j in range(part.size)}
        if order > 1 and h is not None:
            pairs = [(a, b) for a in range(part.size) for b in range(a, part.size) if h[a, b].any()]
            second |= {(k.start + a, k.start + b): h[a, b] for a, b in pairs}
    return V, first, second


def _sandwich(z: np.ndarray, G: np.ndarray) -> np.ndarray:
    """Σ_levels Z_l G Z_l': (P, m, ℓ, q), (q, q) -> (P, m, m)."""
    P, m = z.shape[:2]
    return (z @ G).reshape(P, m, -1) @ np.swapaxes(z.reshape(P, m, -1), 1, 2)


def _add_batch(total: _Sum, batch: Batch, blocks, covariance, θ, G, order) -> bool:
    V, first, second = _derivatives_of_V(batch, blocks, covariance, θ, G, order)
    try:
        L = np.linalg.cholesky(V)
    except np.linalg.LinAlgError:
        return False
    diagonal = np.diagonal(L, axis1=1, axis2=2)
    if not np.isfinite(diagonal).all():
        return False
    total.logdet += 2.0 * float(batch.count @ np.log(diagonal).sum(axis=1))
    Li = np.linalg.inv(L)
    W = _whiten(Li, batch, batch.data, batch.crossed)
    total.M += W.gram(W)
    if order == 0:
        return True
    count = batch.count.astype(float)
    T = {j: _congruence(Li, Vj) for j, Vj in first.items()}
    B = {j: W.times(Tj, batch.owner) for j, Tj in T.items()}
    for j in T:
        total.Mj[j] += W.gram(B[j])
        total.tj[j] += count @ np.trace(T[j], axis1=1, axis2=2)
    if order == 1:
        return True
    for j in T:
        for k in T:
            if k < j:
                continue
            Mjk = B[j].gram(B[k])
            tjk = count @ np.einsum("pab,pab->p", T[j], T[k])
            total.Mjk[j, k] += Mjk
            total.tjk[j, k] += tjk
            if k > j:
                total.Mjk[k, j] += Mjk.T
                total.tjk[k, j] += tjk
    for (j, k), Vjk in second.items():
        Tjk = _congruence(Li, Vjk)
        N, s = W.gram(W.times(Tjk, batch.owner)), count @ np.trace(Tjk, axis1=1, axis2=2)
        for a, b in {(j, k), (k, j)}:
            total.Njk[a, b] += N
            total.sjk[a, b] += s
    return True


def _congruence(Li: np.ndarray, A: np.ndarray) -> np.ndarray:
    return Li @ A @ np.swapaxes(Li, 1, 2)


@dataclass(frozen=True)
class _Columns:
    """Whitened columns [U X y] of a batch: a dense part (S, m, c) and a sparse part (S m, u) or None."""

    dense: np.ndarray
    crossed: sparse.csr_array | None

    def times(self, T: np.ndarray, owner: np.ndarray) -> _Columns:
        """T applied to every block."""
        dense = T @ self.dense if len(T) == 1 else T[owner] @ self.dense
        return _Columns(dense, None if self.crossed is None else _block_diagonal(T[owner]) @ self.crossed)

    def gram(self, other: _Columns) -> np.ndarray:
        a = self.dense.reshape(-1, self.dense.shape[2])
        b = other.dense.reshape(a.shape)
        dense = a.T @ b
        if self.crossed is None or other.crossed is None:
            return dense
        return np.block(
            [[(self.crossed.T @ other.crossed).toarray(), self.crossed.T @ b], [(other.crossed.T @ a).T, dense]]
        )


def _whiten(Li: np.ndarray, batch: Batch, dense: np.ndarray, crossed) -> _Columns:
    return _Columns(dense, crossed).times(Li, batch.owner)


def _block_diagonal(T: np.ndarray):
    S, m, _ = T.shape
    return sparse.bsr_array((T, np.arange(S), np.arange(S + 1)), shape=(S * m, S * m))


def _add_noise(total: _Sum, noise, covariance: Covariance, θ, order) -> bool:
    """Independent errors of one variance v: every V⁻¹ is 1/v."""
    part, k = covariance.residual[0], covariance.residual_slices()[0]
    value, d, _ = jets.derivatives(part.matrix(jets.variables(θ[k]), noise.rows, jets), part.size)
    v, dv = float(value[0, 0, 0]), d[:, 0, 0, 0]
    if not v > 0:
        return False
    total.logdet += noise.count * np.log(v)
    total.M += noise.gram / v
    if order > 0:
        total.Mj[k] += dv[:, None, None] * noise.gram / v**2
        total.tj[k] += noise.count * dv / v
    if order > 1:
        both = dv[:, None] * dv[None]
        total.Mjk[k, k] += both[..., None, None] * noise.gram / v**3
        total.tjk[k, k] += noise.count * both / v**2
    return True


# --- crossed terms ----------------------------------------------------------------------------------------


def eliminate(total: _Sum, blocks: Blocks, covariance: Covariance, G, order: int) -> Moments | None:
    """Moments of V = V₁ + U G U' from those of [U X y] under V₁ (Woodbury).

    With S = U'V₁⁻¹U and K = (G⁻¹ + S)⁻¹: V⁻¹D = V₁⁻¹[U D] F for F = [-K U'V₁⁻¹D; I], and V⁻¹U = V₁⁻¹[U D] E
    for E = [I - K S; 0]. A singular G is no special case: K = Λ(I + Λ'SΛ)⁻¹Λ' with ΛΛ' = G.
    """
    u = sum(blocks.widths)
    S = total.M[:u, :u]
    solved = inner_inverse(S, [G[i][0] for i in blocks.crossed], blocks.widths)
    if solved is None:
        return None
    K, logdet = solved
    out = _Sum(covariance.size, blocks.p + 1, order)
    out.logdet = total.logdet + logdet
    F = np.vstack([-K @ total.M[:u, u:], np.eye(blocks.p + 1)])
    out.M[:] = total.M[u:] @ F
    if order == 0:
        return out.freeze()
    E = np.eye(u) - K @ S
    H, Q = total.M[:u] @ F, S @ E
    over = _crossed_derivatives(blocks, covariance, G)
    inner = [j for j in range(covariance.size) if j not in {a for a, _, _ in over}]
    for j in inner:
        out.Mj[j] = F.T @ total.Mj[j] @ F
        out.tj[j] = total.tj[j] - np.sum(K * total.Mj[j, :u, :u])
    applied = {k: (times_kron(H.T, B, blocks.widths, t).T, times_kron(Q, B, blocks.widths, t)) for k, t, B in over}
    for k, (BH, QB) in applied.items():
        out.Mj[k] = H.T @ BH
        out.tj[k] = np.trace(QB)
    if order == 1:
        return out.freeze()
    KMj = {j: K @ total.Mj[j, :u] for j in inner}
    for j in inner:
        FMjE, EMjE = F.T @ total.Mj[j, :, :u] @ E, E.T @ total.Mj[j, :u, :u] @ E
        for k in inner:
            out.Mjk[j, k] = F.T @ (total.Mjk[j, k] - total.Mj[j, :, :u] @ KMj[k]) @ F
            out.tjk[j, k] = (
                total.tjk[j, k]
                - 2 * np.sum(K * total.Mjk[j, k, :u, :u])
                + np.sum(KMj[j][:, :u] * KMj[k][:, :u].T)
            )
            out.Njk[j, k] = F.T @ total.Njk[j, k] @ F
            out.sjk[j, k] = total.sjk[j, k] - np.sum(K * total.Njk[j, k, :u, :u])
        for k, t, B in over:
            out.Mjk[j, k] = FMjE @ applied[k][0]
            out.Mjk[k, j] = out.Mjk[j, k].T
            out.tjk[j, k] = out.tjk[k, j] = np.trace(times_kron(EMjE, B, blocks.widths, t))
    for k, (BH, QB) in applied.items():
        for m, (BmH, QBm) in applied.items():
            out.Mjk[k, m] = BH.T @ Q @ BmH
            out.tjk[k, m] = np.sum(QB * QBm.T)
    for i, t in zip(blocks.crossed, range(len(blocks.crossed)), strict=True):
        second, at = G[i][2], covariance.term_slices()[i].start
        for a, b in [] if second is None else np.ndindex(*second.shape[:2]):
            if second[a, b].any():
                out.Njk[at + a, at + b] = H.T @ times_kron(H.T, second[a, b], blocks.widths, t).T
                out.sjk[at + a, at + b] = np.trace(times_kron(Q, second[a, b], blocks.widths, t))
    return out.freeze()


def _crossed_derivatives(blocks: Blocks, covariance: Covariance, G) -> list[tuple[int, int, np.ndarray]]:
    """(parameter, which crossed term, dG) for every parameter of a crossed term."""
    return [
        (covariance.term_slices()[i].start + j, t, dG)
        for t, i in enumerate(blocks.crossed)
        for j, dG in enumerate(G[i][1])
    ]


# --- residuals --------------------------------------------------------------------------------------------


def crossed_solution(blocks: Blocks, covariance: Covariance, θ: np.ndarray, beta: np.ndarray) -> list[np.ndarray]:
    """BLUPs of the crossed terms, K U'V₁⁻¹(y - Xβ), one vector a term."""
    if not blocks.crossed:
        return []
    found = _accumulate(blocks, covariance, θ, 0)
    assert found is not None
    total, G = found
    u = sum(blocks.widths)
    solved = inner_inverse(total.M[:u, :u], [G[i][0] for i in blocks.crossed], blocks.widths)
    assert solved is not None
    û = solved[0] @ (total.M[:u, u:] @ np.append(-beta, 1.0))
    return np.split(û, np.cumsum(blocks.widths)[:-1])


def covariance_of_blocks(blocks: Blocks, covariance: Covariance, θ: np.ndarray) -> Iterator[tuple[Batch, np.ndarray]]:
    """(batch, V (P, m, m)) for every batch: ZGZ' of the terms within blocks, and R."""
    G = [_jet_of_G(covariance, i, θ) for i in range(len(covariance.random))]
    for batch in blocks.batches:
        yield batch, _derivatives_of_V(batch, blocks, covariance, θ, G, 0)[0]


def linear_basis(
    blocks: Blocks, covariance: Covariance, θ: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray]] | None:
    """B with V = Σ θ_j B_j: (K, P, m, m) of every batch and (K,) of every noise; None where V is not linear in θ."""
    K = covariance.size
    G = [_jet_of_G(covariance, i, θ) for i in range(len(covariance.random))]
    batches, noises = [], []
    for batch in blocks.batches:
        V, first, second = _derivatives_of_V(batch, blocks, covariance, θ, G, 2)
        B = np.stack([np.broadcast_to(first.get(j, 0.0), V.shape) for j in range(K)])
        if any(np.any(h) for h in second.values()) or np.abs(np.tensordot(θ, B, 1) - V).max() > 1e-12 * np.abs(V).max():
            return None
        batches.append(B)
    for noise in blocks.noise:
        part, k = covariance.residual[0], covariance.residual_slices()[0]
        b = np.zeros(K)
        b[k] = jets.derivatives(part.matrix(jets.variables(θ[k]), noise.rows, jets), part.size)[1][:, 0, 0, 0]
        noises.append(b)
    return batches, noises


def whitened_residuals(blocks: Blocks, covariance: Covariance, θ: np.ndarray, beta: np.ndarray, û: list[np.ndarray]):
    """(batch, α (S, m)) for every batch, α = V⁻¹(y - Xβ) on its rows."""
    a = np.append(-beta, 1.0)
    for batch, V in covariance_of_blocks(blocks, covariance, θ):
        r = batch.data @ a
        if batch.crossed is not None:
            r = r - (batch.crossed @ np.concatenate(û)).reshape(r.shape)
        yield batch, np.linalg.solve(V[batch.owner], r[..., None])[..., 0]
