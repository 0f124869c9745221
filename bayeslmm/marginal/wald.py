"""Wald t and F tests of Lβ, with every way of counting denominator degrees of freedom.

All of it is algebra on the moments of the fit (see `moments.py`): with Φ = (X'V⁻¹X)⁻¹, P_j = -X'V⁻¹V_jV⁻¹X,
Q_jk = X'V⁻¹V_jV⁻¹V_kV⁻¹X, R_jk = X'V⁻¹V_jkV⁻¹X and W the covariance of θ̂, Kenward and Roger (1997) replace Φ by

    Φ_A = Φ + 2Φ { Σ_jk W_jk (Q_jk - P_jΦP_k - ¼R_jk) } Φ

and refer λF to F(l, m), with λ and m matched to the first two moments of F. "kenward-roger-linear" leaves R_jk out.
Satterthwaite (Giesbrecht and Burns 1985; Fai and Cornelius 1996 for several rows) keeps Φ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from ..errors import InferenceError
from ..kernel.information import covariance_of_parameters
from ..kernel.likelihood import Evaluation

DF_METHODS = (
    "kenward-roger",
    "kenward-roger-linear",
    "satterthwaite",
    "containment",
    "between-within",
    "residual",
    "asymptotic",
)
_ADJUSTED = ("kenward-roger", "kenward-roger-linear")


@dataclass(frozen=True)
class WaldTest:
    """One test of Lβ = c: F = λ (Lβ-c)'(LΦL')⁻¹(Lβ-c)/l on (ndf, ddf); ddf is inf for a chi-square test."""

    statistic: float
    ndf: int
    ddf: float
    scale: float
    p: float


@dataclass(frozen=True)
class Wald:
    """What a test of Lβ needs, on the scale of the user's X.

    covariance (p, p) of β̂, adjusted where the method adjusts it; plain (p, p) is Φ; slopes (K, p, p) = -ΦP_jΦ, the
    derivatives of Φ; W (K, K). counted (p,) are the df of single coefficients where the method counts them.
    """

    method: str
    covariance: np.ndarray
    plain: np.ndarray
    slopes: np.ndarray
    W: np.ndarray
    counted: np.ndarray | None = None

    def df_of(self, l: np.ndarray) -> float:
        """Denominator df of one row of L."""
        return self.test(l[None], np.zeros(1), np.zeros(len(l))).ddf

    def test(self, L: np.ndarray, rhs: np.ndarray, beta: np.ndarray) -> WaldTest:
        """The F test of Lβ = rhs, for L of full row rank."""
        distance = L @ beta - rhs
        F = float(distance @ np.linalg.solve(L @ self.covariance @ L.T, distance)) / len(L)
        ddf, scale = self._denominator(L)
        F *= scale
        return WaldTest(F, len(L), ddf, scale, f_tail(F, len(L), ddf))

    def _denominator(self, L: np.ndarray) -> tuple[float, float]:
        if self.method == "asymptotic":
            return np.inf, 1.0
        if self.counted is not None:
            used = np.abs(L).max(axis=0) > 1e-12 * np.abs(L).max()
            return float(self.counted[used].min()), 1.0
        if self.method == "satterthwaite":
            return satterthwaite(L, self.plain, self.slopes, self.W), 1.0
        return kenward_roger(L, self.plain, self.slopes, self.W)


def f_tail(F: float, ndf: float, ddf: float) -> float:
    """P(F(ndf, ddf) > F), chi-square for infinite ddf."""
    if not np.isfinite(ddf):
        return float(stats.chi2.sf(F * ndf, ndf))
    return float(stats.f.sf(F, ndf, ddf)) if ddf > 0 else float("nan")


def check_method(df: str) -> str:
    """The df method, or InferenceError with the list of those that exist."""
    if df not in DF_METHODS:
        raise InferenceError(f"df={df!r} is not a method for degrees of freedom; there are {', '.join(DF_METHODS)}.")
    return df


def wald(
    at: Evaluation, to_user: np.ndarray, df: str, *, information: str, keep: np.ndarray,
    counted: np.ndarray | None, reml: bool,
) -> Wald:  # fmt: skip
    """Build the tests of one fit. to_user (p, p): β = centre + to_user b for b in the units of the blocks.

    keep: the parameters that count as estimated. Raises InferenceError for Kenward-Roger on an ML fit.
    """
    m, Φ = at.moments, at.A_inverse
    x = slice(0, len(Φ))
    if df in _ADJUSTED and not reml:
        raise InferenceError(
            f"df={df!r} is an approximation to REML estimates, and this is an ML fit: fit(method='REML'), or take "
            "df='satterthwaite' or 'asymptotic'."
        )
    Mj = m.Mj[keep][:, x, x]
    slopes = Φ @ Mj @ Φ
    W, adjusted = np.zeros((len(keep), len(keep))), Φ
    if df in (*_ADJUSTED, "satterthwaite"):
        W = covariance_of_parameters(at, information, keep, reml=reml)
    if df in _ADJUSTED:
        Q = m.Mjk[np.ix_(keep, keep)][..., x, x]
        inner = np.einsum("jk,jkab->ab", W, Q) - np.einsum("jk,jab,bc,kcd->ad", W, Mj, Φ, Mj, optimize=True)
        if df == "kenward-roger":
            inner = inner - 0.25 * np.einsum("jk,jkab->ab", W, m.Njk[np.ix_(keep, keep)][..., x, x])
        adjusted = Φ + 2 * Φ @ ((inner + inner.T) / 2) @ Φ
    carry = lambda A: to_user @ A @ to_user.T  # noqa: E731
    return Wald(df, carry(adjusted), carry(Φ), carry(slopes), W, counted)


def satterthwaite(L: np.ndarray, Φ: np.ndarray, slopes: np.ndarray, W: np.ndarray) -> float:
    """Denominator df: 2 v²/Var(v̂) for one row; for several, matched on the eigenvectors of LΦL'."""
    values, vectors = np.linalg.eigh(L @ Φ @ L.T)
    rows = vectors.T @ L
    g = np.einsum("ra,jab,rb->rj", rows, slopes, rows)
    variance = np.einsum("rj,jk,rk->r", g, W, g)
    with np.errstate(divide="ignore"):
        ν = np.where(variance > 0, 2 * values**2 / np.where(variance > 0, variance, 1), np.inf)
    if len(ν) == 1:
        return float(ν[0])
    if np.ptp(ν[np.isfinite(ν)]) < 1e-8 * ν[np.isfinite(ν)].max(initial=1) and np.isfinite(ν).all():
        return float(ν.mean())
    E = float(np.sum(np.where(np.isfinite(ν), ν / (ν - 2), 1.0)[ν > 2]))
    return 2 * E / (E - len(ν)) if len(ν) < E else 2.0


def kenward_roger(L: np.ndarray, Φ: np.ndarray, slopes: np.ndarray, W: np.ndarray) -> tuple[float, float]:
    """(m, λ) of Kenward and Roger (1997), section 2.3."""
    l = len(L)
    root = np.linalg.inv(np.linalg.cholesky(L @ Φ @ L.T))
    # slopes are ΦP_jΦ up to sign, which cancels in both products
    S = root @ (L @ slopes @ L.T) @ root.T
    traces = np.trace(S, axis1=1, axis2=2)
    A1 = float(traces @ W @ traces)
    A2 = float(np.einsum("jk,jab,kba->", W, S, S))
    if A2 <= 0:
        return np.inf, 1.0
    B = (A1 + 6 * A2) / (2 * l)
    g = ((l + 1) * A1 - (l + 4) * A2) / ((l + 2) * A2)
    d = 3 * l + 2 * (1 - g)
    c1, c2, c3 = g / d, (l - g) / d, (l + 2 - g) / d
    # With E* = 1/(1 - A2/l) and V* = (2/l) v0 / (v1² v2): m = 4 + (l+2)/(lρ - 1) for ρ = V*/(2 E*²). In terms of 1/ρ it
    # holds where V* is infinite too (m = 4) and beyond (Hotelling's T² with few subjects).
    v0, v1, v2 = 1 + c1 * B, 1 - c2 * B, 1 - c3 * B
    shrink = 1 - A2 / l
    if shrink <= 0 or v0 <= 0:
        return satterthwaite(L, Φ, slopes, W), 1.0
    inverse_ρ = l * v1**2 * v2 / (shrink**2 * v0)
    m = 4 + (l + 2) * inverse_ρ / (l - inverse_ρ)
    return (float(m), float(m * shrink / (m - 2))) if m > 2 else (satterthwaite(L, Φ, slopes, W), 1.0)
