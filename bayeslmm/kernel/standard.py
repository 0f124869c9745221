"""y, X and Z in units of order one: y centred at least squares, X orthonormal, the columns of Z scaled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..covariance.assembly import Covariance
from ..design import Design


@dataclass(frozen=True)
class Standard:
    """y, X and Z in units of order one, and the way back; R responses at once have R columns and R centres."""

    D: np.ndarray  # (n, p + 1): [Q, (y - X center) / y_scale]
    Z: tuple[np.ndarray, ...]
    z_scale: tuple[np.ndarray, ...]
    y_scale: float
    basis: np.ndarray
    center: np.ndarray


def standardize(design: Design, covariance: Covariance, responses: np.ndarray | None = None) -> Standard:
    """Centre y at least squares, orthonormalise X, scale Z. responses (n, R): in the place of y, in y's units."""
    X, y = design.X, design.y - design.offset
    Q, basis = np.linalg.qr(X)
    coefficients = Q.T @ y
    residual = y - Q @ coefficients
    scale = float(np.sqrt(residual @ residual / max(len(y) - X.shape[1], 1)))
    reference = float(np.sqrt(np.mean(y**2)))
    if scale <= 1e-13 * reference or scale == 0:
        scale = reference or 1.0
    if responses is not None:
        Y = responses - design.offset[:, None]
        coefficients = Q.T @ Y
        residual = Y - Q @ coefficients
    z_scale = []
    for term, bound in zip(design.terms, covariance.random, strict=True):
        rms = np.sqrt(np.mean(term.Z**2, axis=0))
        rms = np.where(rms > 0, rms, 1.0)
        for structure, columns in bound.blocks:
            if structure.scale.labels is None:  # one variance for all columns: one unit
                rms[list(columns)] = np.sqrt(np.mean(rms[list(columns)] ** 2))
        z_scale.append(rms)
    Z = tuple(t.Z / s for t, s in zip(design.terms, z_scale, strict=True))
    center = np.linalg.solve(basis, coefficients) if basis.size else coefficients
    return Standard(np.column_stack([Q, residual / scale]), Z, tuple(z_scale), scale, basis, center)


def unit_of(covariance: Covariance, standard: Standard) -> np.ndarray:
    """Linear coordinates of the model in terms of those in standard units."""
    units = []
    for term, z in zip(covariance.random, standard.z_scale, strict=True):
        for structure, columns in term.blocks:
            z_block = z[list(columns)] if structure.scale.labels is not None else z[list(columns)][:1]
            unit = np.ones(structure.size)
            unit[: len(z_block)] = (standard.y_scale / z_block) ** 2
            if structure.free:
                unit[len(z_block) :] = [standard.y_scale**2 / (z_block[i] * z_block[j]) for i, j in structure._pairs()]
            elif structure.linear:
                unit[len(z_block) :] = unit[0]
            units.append(unit)
    units += [np.where(s.scales_with_variance, standard.y_scale**2, 1.0) for s in covariance.residual]
    return np.concatenate(units)
