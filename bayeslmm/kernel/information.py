"""Information about the variance parameters: expected, observed, and the covariance of θ̂ that follows."""

from __future__ import annotations

import numpy as np

from ..covariance.assembly import Covariance
from ..errors import InferenceError
from .likelihood import Evaluation
from .optimise import ZERO

KINDS = ("expected", "observed")


def information(at: Evaluation, kind: str, *, reml: bool) -> np.ndarray:
    """The information matrix (K, K) of θ in linear coordinates.

    observed: -∂²ℓ/∂θ∂θ'. expected: ½ tr(PV_jPV_k) for REML, ½ tr(V⁻¹V_jV⁻¹V_k) for ML.
    """
    if kind not in KINDS:
        raise InferenceError(f"information={kind!r}: it is 'expected' or 'observed'.")
    assert at.hessian is not None
    if kind == "observed":
        return -(at.hessian + at.hessian.T) / 2
    m, C = at.moments, at.A_inverse
    out = m.tjk
    if reml:
        x = slice(0, len(C))
        CM = C @ m.Mj[:, x, x]
        out = out - 2 * np.einsum("ab,jkba->jk", C, m.Mjk[:, :, x, x]) + np.einsum("jab,kba->jk", CM, CM)
    return 0.5 * out


def covariance_of_parameters(at: Evaluation, kind: str, keep: np.ndarray, *, reml: bool) -> np.ndarray:
    """W (k, k), the inverse information of the kept parameters.

    Raises InferenceError where the information is singular or not positive definite.
    """
    if not len(keep):
        return np.zeros((0, 0))
    H = information(at, kind, reml=reml)[np.ix_(keep, keep)]
    size = np.sqrt(np.abs(np.diag(H)))
    size = np.where(size > 0, size, 1.0)
    values, vectors = np.linalg.eigh(H / np.outer(size, size))
    whole = 0.5 * np.diag(at.moments.tjk)[keep]
    if values[0] <= 1e-10 or (np.diag(H) <= 1e-11 * whole).any():
        raise InferenceError(
            f"The {kind} information about the variance parameters is not positive definite: a variance is on its "
            "boundary, or two components cannot be told apart. "
            + ("Take information='expected', or a simpler model." if kind == "observed" else "Take a simpler model.")
        )
    return (vectors / values) @ vectors.T / np.outer(size, size)


def estimated_parameters(covariance: Covariance, θ: np.ndarray, rule: str) -> np.ndarray:
    """Which parameters count as estimated at a boundary; θ in the units of the blocks.

    rule "drop" (SAS): a variance at zero, and what depends on it, is known and leaves the information matrix. rule
    "keep" (pbkrtest): every parameter of a linear structure stays, as if it were inside.
    """
    if rule not in ("drop", "keep"):
        raise InferenceError(f"singular={rule!r}: it is 'drop' (as SAS) or 'keep' (as pbkrtest).")
    kept = []
    for structure, k in zip(covariance.structures, covariance.slices, strict=True):
        v, _, _ = structure.split(θ[k])
        alive = np.ones(structure.size, bool)
        zero = (np.abs(v) <= ZERO) & (not structure.signed)
        if zero.any() and (rule == "drop" or not structure.linear):
            alive[: len(v)] = ~zero
            rest = slice(structure.size - len(structure._pairs()), None) if structure.free else slice(len(v), None)
            if structure.free:
                alive[rest] = [not (zero[i] or zero[j]) for i, j in structure._pairs()]
            elif len(v) == 1:
                alive[rest] = False
        kept.append(k.start + np.flatnonzero(alive))
    return np.concatenate(kept) if kept else np.zeros(0, int)
