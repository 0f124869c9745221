"""Degrees of freedom of predictions, and what estimating the variance parameters adds to their variance.

With v(θ) the prediction variance, g = ∂v/∂θ and W the covariance of θ̂, Satterthwaite's ν is 2v²/(g'Wg). With
e_j = ∂k/∂θ_j - k'V⁻¹V_j the derivatives come from the covariances alone:

    ∂v/∂θ_j = ∂Σ(t,t)/∂θ_j - ∂k'/∂θ_j V⁻¹k - e_jV⁻¹k + 2ḋ_j'Φd + d'ΦX'V⁻¹V_jV⁻¹XΦd,     ḋ_j = -X'V⁻¹e_j'

Kenward-Roger adds to v twice the variance that θ̂ causes in the predictor, Σ W_jk f_jPf_k' with
f_j = e_j - d'ΦX'V⁻¹V_j and P = V⁻¹ - V⁻¹XΦX'V⁻¹ (Kackar and Harville 1984; Prasad and Rao 1990): for a
population mean that is exactly the adjusted covariance of Kenward and Roger (1997).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import block_diag

from .. import jets
from ..covariance.assembly import Covariance
from ..errors import InferenceError
from ..kernel.conditional import Conditional
from ..kernel.padded import Batch, Group, groups, local_Z, make_batch, take_rows
from ..kernel.stacked import Stacked
from .inference import counted_as_estimated, wald_of
from .wald import Wald, check_method

if TYPE_CHECKING:
    from ..results import Fit

_DENSE = 3000  # rows up to which a block (crossed effects make one of all rows) is treated whole


@dataclass(frozen=True)
class Uncertainty:
    """Φ (p, p), df (T,) and, for Kenward-Roger, var_theta (T,); x (T, p) is the fixed part of the targets."""

    Φ: np.ndarray
    df: np.ndarray
    var_theta: np.ndarray | None
    x: np.ndarray


def uncertainty(fit: Fit, rows: Stacked, found: Conditional, options: Any) -> Uncertainty:
    """What a df method says about each target."""
    Φ, x = fit.cov_beta.values, rows.X[rows.observed :]
    infinite = np.full(len(x), np.inf)
    if options.df is None or check_method(options.df) == "asymptotic":
        return Uncertainty(Φ, infinite, None, x)
    tests = wald_of(fit, options.df, options.information)
    if tests.counted is not None:
        used = np.abs(x) > 1e-12 * np.abs(x).max(axis=1, keepdims=True)
        return Uncertainty(Φ, np.where(used, tests.counted, np.inf).min(axis=1), None, x)
    kr = options.df.startswith("kenward-roger")
    W, slopes = in_data_units(fit, tests)
    variance = np.einsum("ta,ab,tb->t", found.d, Φ, found.d) + found.var_u + found.var_w + 2 * found.cov_uw
    gradient = np.einsum("ta,jab,tb->tj", found.d, slopes, found.d)
    extra = np.einsum("ta,ab,tb->t", found.d, tests.covariance - Φ, found.d) if kr else None
    if options.level == "subject":
        own, theta = sensitivity(rows, fit.model.covariance, fit.estimate.θ, found, Φ, W, slopes, kr)
        gradient = gradient + own
        extra = None if extra is None else extra + 2 * theta
    elif options.what == "response":
        gradient = gradient + prior_gradient(rows, fit.model.covariance, fit.estimate.θ)
    if options.what == "response":
        value, slope = error_gradient(rows, fit.model.covariance, fit.estimate.θ)
        variance, gradient = variance + value, gradient + slope
    spread = np.einsum("tj,jk,tk->t", gradient, W, gradient)
    with np.errstate(divide="ignore", invalid="ignore"):
        df = np.where(spread > 0, 2 * variance**2 / spread, np.inf)
    return Uncertainty(Φ, df, extra, x)


def in_data_units(fit: Fit, tests: Wald) -> tuple[np.ndarray, np.ndarray]:
    """W (K, K) and slopes (K, p, p) in the units of the data; zero for parameters that count as known."""
    unit, K = fit.estimate.blocks.unit, fit.model.covariance.size
    keep = counted_as_estimated(fit, "drop")
    W, slopes = np.zeros((K, K)), np.zeros((K, *tests.plain.shape))
    W[np.ix_(keep, keep)] = tests.W * np.outer(unit[keep], unit[keep])
    slopes[keep] = tests.slopes / unit[keep][:, None, None]
    return W, slopes


# --- derivatives ------------------------------------------------------------------------------------------


def sensitivity(rows: Stacked, covariance: Covariance, θ, found: Conditional, Φ, W, slopes, kr: bool):
    """(∂v/∂θ (T, K) without d'(∂Φ)d, Σ W_jk (f_jPf_k' without its d'Φ..Φd part) (T,) for Kenward-Roger)."""
    if rows.crossed:
        rows = _one_block(rows)
    largest = int(np.bincount(rows.block[: rows.observed]).max(initial=0))
    if largest > _DENSE:
        raise InferenceError(
            "Degrees of freedom of predictions need the covariance of all rows that are correlated, here "
            f"{largest} (the limit is {_DENSE}): leave out df=; with so many rows normal quantiles serve."
        )
    T, K = len(found.u), covariance.size
    gradient, theta = np.zeros((T, K)), np.zeros(T)
    for group, b, first in differentiated(rows, covariance, θ, 2_000_000):
        V = b.V()
        Li = np.linalg.inv(np.linalg.cholesky(V)) if V.shape[1] else V
        k = b.Zt @ b.G @ np.swapaxes(b.Zo, 1, 2) + b.cross
        A = Li @ np.swapaxes(k, 1, 2)
        a = np.swapaxes(A, 1, 2) @ Li
        real = group.observed >= 0
        white = Li @ np.where(real[..., None], rows.X[np.maximum(group.observed, 0)], 0.0)
        inside = group.targets >= 0
        at = group.targets[inside] - rows.observed
        d = np.zeros((*group.targets.shape, rows.X.shape[1]))
        d[inside] = found.d[at]
        E = {j: Li @ np.swapaxes(kj - a @ Vj, 1, 2) for j, (Vj, kj, _) in first.items()}
        XE = {j: np.einsum("bmp,bmt->btp", white, e) for j, e in E.items()}
        for j, (_, kj, prior) in first.items():
            slope = prior - np.einsum("btm,btm->bt", kj, a) - np.einsum("bmt,bmt->bt", E[j], A)
            slope -= 2 * np.einsum("btp,pq,btq->bt", XE[j], Φ, d)
            gradient[at, j] = slope[inside]
        if kr:
            theta[at] += _theta_part(Li, white, d, E, XE, first, Φ, W, slopes)[inside]
    return gradient, theta


def _theta_part(Li, white, d, E, XE, first, Φ, W, slopes) -> np.ndarray:
    """Σ W_jk [e_jPe_k' - 2 d'ΦX'V⁻¹V_jPe_k'] of each target."""
    total = np.zeros(d.shape[:2])
    for j, (Vj, _, _) in first.items():
        dΦ = d @ Φ
        Tj = Li @ Vj @ np.swapaxes(Li, 1, 2)
        WE = sum(W[j, k] * e for k, e in E.items())
        WXE = sum(W[j, k] * x for k, x in XE.items())
        total += np.einsum("bmt,bmt->bt", E[j], WE) - np.einsum("btp,pq,btq->bt", XE[j], Φ, WXE)
        total -= 2 * np.einsum("btp,bmp,bmt->bt", dΦ, white, Tj @ WE, optimize=True)
        total += 2 * np.einsum("btp,pq,btq->bt", d, slopes[j], WXE)
    return total


def _one_block(rows: Stacked) -> Stacked:
    """Crossed effects as effects within one block of all rows."""
    return replace(rows, block=np.zeros(len(rows.X), int), within=tuple(range(len(rows.Z))), crossed=())


def differentiated(
    rows: Stacked, covariance: Covariance, θ: np.ndarray, numbers: int, *, every: bool = False
) -> Iterator[tuple[Group, Batch, dict]]:
    """Every group with {j: (V_j, ∂k/∂θ_j, diagonal of ∂Σ(t,t)/∂θ_j)}; `every`: all blocks, unpadded."""
    for group in groups(rows, numbers // max(covariance.size, 1), every=every, exact=every):
        batch = make_batch(rows, group, covariance, θ)
        yield (
            group,
            batch,
            _random_first(rows, group, covariance, θ) | _residual_first(rows, group, covariance, θ),
        )


def _random_first(rows: Stacked, group: Group, covariance: Covariance, θ) -> dict:
    Zo, Zt, counts = local_Z(rows, group)
    out, at = {}, 0
    for i, count in zip(rows.within, counts, strict=True):
        k, term = covariance.term_slices()[i], covariance.random[i]
        _, dG, _ = jets.derivatives(term.matrix(jets.variables(θ[k]), jets), term.size)
        width = count * dG.shape[-1]
        zo, zt = Zo[..., at : at + width], Zt[..., at : at + width]
        for j in range(term.size):
            wide = block_diag(*[dG[j]] * count)
            ZG = zt @ wide
            out[k.start + j] = (
                zo @ wide @ np.swapaxes(zo, 1, 2),
                ZG @ np.swapaxes(zo, 1, 2),
                (ZG * zt).sum(axis=2),
            )
        at += width
    return out


def _residual_first(rows: Stacked, group: Group, covariance: Covariance, θ) -> dict:
    index = np.concatenate([group.observed, group.targets], axis=1)
    m = group.observed.shape[1]
    filled = np.where(index >= 0, index, index.max(axis=1, keepdims=True))
    real = (index >= 0).astype(float)
    both = real[:, :, None] * real[:, None, :]
    out = {}
    for part, k, constants in zip(covariance.residual, covariance.residual_slices(), rows.rows, strict=True):
        chosen = take_rows(constants, filled, None if part.diagonal else rows.subject)
        _, d, _ = jets.derivatives(part.matrix(jets.variables(θ[k]), chosen, jets), part.size)
        for j in range(part.size):
            S = d[j] * both
            if part.diagonal:  # a new measurement has an error of its own
                S = S * np.pad(np.ones((m, m)), (0, index.shape[1] - m))
            own = np.diagonal(S[:, m:, m:], axis1=1, axis2=2)
            out[k.start + j] = (S[:, :m, :m], S[:, m:, :m], own)
    return out


def prior_gradient(rows: Stacked, covariance: Covariance, θ) -> np.ndarray:
    """∂[z'Gz + σ²]/∂θ (T, K) of each target."""
    out = np.zeros((len(rows.X) - rows.observed, covariance.size))
    for i, (term, k) in enumerate(zip(covariance.random, covariance.term_slices(), strict=True)):
        _, dG, _ = jets.derivatives(term.matrix(jets.variables(θ[k]), jets), term.size)
        z = rows.Z[i][rows.observed :]
        out[:, k] = np.einsum("ta,jab,tb->tj", z, dG, z)
    return out + _variance_gradient(rows, covariance, θ, diagonal=False)[1]


def error_gradient(rows: Stacked, covariance: Covariance, θ) -> tuple[np.ndarray, np.ndarray]:
    """Measurement error variance (T,) of the targets and its gradient (T, K)."""
    return _variance_gradient(rows, covariance, θ, diagonal=True)


def _variance_gradient(rows: Stacked, covariance: Covariance, θ, *, diagonal: bool):
    T = len(rows.X) - rows.observed
    value, slope = np.zeros(T), np.zeros((T, covariance.size))
    each = np.arange(rows.observed, len(rows.X))[:, None]
    for part, k, constants in zip(covariance.residual, covariance.residual_slices(), rows.rows, strict=True):
        if part.diagonal is diagonal:
            Σ = part.matrix(jets.variables(θ[k]), take_rows(constants, each, None), jets)
            v, d, _ = jets.derivatives(Σ, part.size)
            value = value + v.reshape(-1)
            slope[:, k] = d.reshape(part.size, -1).T
    return value, slope
