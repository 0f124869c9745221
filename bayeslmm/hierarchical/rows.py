"""y given β, w and θ, over many draws at once: log-likelihoods and replications.

Rows of one subject are correlated where the residual says so; their likelihood is then one number a subject.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ..kernel.many import residual_matrices
from ..kernel.symmetric import invert, root
from ..manyvalues import Many
from .patterns import Batch, batches

if TYPE_CHECKING:
    from ..model import LMM

LOG_2PI = float(np.log(2 * np.pi))
_NUMBERS = 100_000  # in one array of a chunk: it stays close to the processor


def log_likelihood(model: LMM, θ: np.ndarray, residual: np.ndarray) -> np.ndarray:
    """log p(y | β, w, θ) by row (N, n) where rows are independent, else by subject (N, subjects).

    residual (N, n): y - E[y | β, w]; θ (N, K) linear coordinates in the units of the data.
    """
    out = np.zeros((len(θ), _units(model)))
    for batch, some, L, unit in _factors(model, θ):
        if model.residual.subject is None:  # rows are independent: one batch, in their order
            sd, here = _own(L, batch).T, out[some]
            np.divide(residual[some], sd, out=here)
            np.square(here, out=here)
            here *= -0.5
            here -= np.log(sd) + 0.5 * LOG_2PI
            continue
        r = _gather(residual[some], batch)
        total = np.zeros(r.shape[1:])
        for i in range(len(r)):  # forward substitution, row by row
            own = L[i][:, batch.owner] if L.shape[2] > 1 else L[i]
            for j in range(i):
                r[i] -= own[j] * r[j]
            r[i] /= own[i]
            real = batch.inside[:, i, None]
            total += real * (-0.5 * r[i] ** 2 - np.log(own[i]) - 0.5 * LOG_2PI)
        out[some, unit] = total.T
    return out


def leave_one_out(model: LMM, θ: np.ndarray, residual: np.ndarray) -> np.ndarray:
    """log p(y_i | the other rows, β, w, θ) of every row (N, n); residual (N, n): y - E[y | β, w].

    With C = R⁻¹ and α = C(y - E[y]), y_i given the rest has the variance 1/C_ii and the error α_i/C_ii.
    """
    out = np.zeros(residual.shape)
    for batch, some, L, _ in _factors(model, θ):
        m, _, P, D = L.shape
        R = np.einsum("ikpd,jkpd->ijpd", L, L, optimize=True)
        C = invert(R.reshape(m, m, -1))[0].reshape(m, m, P, D)
        r = _gather(residual[some], batch) * batch.inside.T[..., None]
        for i in range(m):
            row = C[i][:, batch.owner] if P > 1 else C[i]
            α = sum((row[j] * r[j] for j in range(m)), np.zeros(r.shape[1:]))
            c = row[i]
            term = 0.5 * (np.log(c) - α**2 / c - LOG_2PI)
            real = batch.inside[:, i] > 0
            out[some, batch.index[real, i]] = np.broadcast_to(term, α.shape)[real].T
    return out


def replicate(model: LMM, θ: np.ndarray, mean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One new y for the same rows and the same w from every draw: (N, n)."""
    out = mean.copy()
    for batch, some, L, _ in _factors(model, θ):
        if model.residual.subject is None:  # rows are independent: one batch, in their order
            noise = rng.standard_normal(out[some].shape)
            noise *= _own(L, batch).T
            out[some] += noise
            continue
        z = rng.standard_normal((L.shape[1], len(batch.index), len(out[some])))
        for i in range(len(L)):
            own = L[i][:, batch.owner] if L.shape[2] > 1 else L[i]
            noise = np.einsum("jsd,jsd->sd", own[: i + 1], z[: i + 1]) if L.shape[2] > 1 else _row(own, z, i)
            real = batch.inside[:, i] > 0
            out[some, batch.index[real, i]] += noise[real].T
    return out


def _own(L: np.ndarray, batch: Batch) -> np.ndarray:
    """Standard deviations of independent rows (n, D); (1, D) where all are the same."""
    return L[0, 0][batch.owner] if L.shape[2] > 1 else L[0, 0]


def _row(own: np.ndarray, z: np.ndarray, i: int) -> np.ndarray:
    return sum((own[j] * z[j] for j in range(i + 1)), np.zeros(z.shape[1:]))


def _factors(model: LMM, θ: np.ndarray) -> Iterator[tuple[Batch, slice, np.ndarray, np.ndarray]]:
    """(batch, draws, L (m, m, P, D) with LL' = R, unit of each subject) in pieces of bounded size."""
    unit = unit_of_rows(model)
    covariance = model.covariance
    for batch in batches(model.residual, len(model.design.y)):
        P, m = batch.mask.shape
        step = max(1, _NUMBERS // max(P * m * m, len(batch.index) * m))
        real = (batch.mask[:, :, None] * batch.mask[:, None, :])[..., None]
        padding = (np.eye(m) * (1 - batch.mask)[:, :, None])[..., None]
        for k in range(0, len(θ), step):
            some = slice(k, k + step)
            x = Many(np.ascontiguousarray(θ[some].T))
            R = np.zeros((P, m, m, x.a.shape[1]))
            for part in residual_matrices(covariance, x, batch.rows, slice(None), x.a.shape[1]):
                R += part
            R = R * real + padding
            yield batch, some, root(np.ascontiguousarray(np.moveaxis(R, 0, 2))), unit[batch.index[:, 0]]


def _gather(residual: np.ndarray, batch: Batch) -> np.ndarray:
    """Residuals by place within the subject: (D, n) -> (m, S, D)."""
    return np.ascontiguousarray(residual.T)[batch.index.T]


def unit_of_rows(model: LMM) -> np.ndarray:
    """The unit (n,) within which rows are correlated given w; each row where they are independent."""
    own = model.residual.subject
    return np.arange(len(model.design.y)) if own is None else own


def _units(model: LMM) -> int:
    return int(unit_of_rows(model).max()) + 1
