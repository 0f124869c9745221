"""Many likelihoods at once: R responses with one design, each at its own θ, where V is linear in θ.

With V = Σ θ_j B_j (random effects, compound symmetry, unstructured, independent errors: everything without
ranges and nonlinear correlations) a pattern needs only the cross-products T = Σ_s D_s ⊗ D_s of its blocks,
and

    D'AD = Σ_ij A_ij T_ij       for A = V⁻¹, V⁻¹B_jV⁻¹ and V⁻¹B_jV⁻¹B_kV⁻¹

is one matrix product for all responses: the cost of a step does not depend on the number of subjects. The
formulas are those of `likelihood.py`, with a leading axis of R.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from .. import jets
from ..covariance.assembly import Covariance
from .batch import Blocks
from .likelihood import LOG_2PI
from .moments import linear_basis

_TOLERANCE = 1e-10  # Newton decrement at which a response counts as fitted
_STEPS = 100


class Many(Protocol):
    """R likelihoods to maximise side by side; constant: what log|V| and the units add to ℓ."""

    @property
    def R(self) -> int: ...
    @property
    def p(self) -> int: ...
    @property
    def constant(self) -> Any: ...
    @property
    def log_basis(self) -> float: ...
    @property
    def y_scale(self) -> float: ...
    def sums(self, θ: np.ndarray) -> Sums: ...
    def take(self, index: np.ndarray) -> Many: ...


@dataclass(frozen=True)
class Products:
    """Blocks of one size: B (K, P, m, m); count (P,); cross-products XX (P m m, p p), Xy (P m m, p, R), yy
    (P m m, R).
    """

    B: np.ndarray
    count: np.ndarray
    XX: np.ndarray
    Xy: np.ndarray
    yy: np.ndarray


@dataclass(frozen=True)
class Family:
    """All cross-products of R responses; the noise of one variance is a pattern of 1 x 1 blocks."""

    products: tuple[Products, ...]
    n: int
    p: int
    R: int
    constant: float  # what log|V| and the units add to ℓ: the same for every response
    log_basis: float
    y_scale: float

    def sums(self, θ: np.ndarray) -> Sums:
        """What the likelihood needs of every response, each at its own θ (R, K)."""
        return family_sums(self, θ)

    def take(self, index: np.ndarray) -> Family:
        """Some of the responses."""
        products = tuple(replace(x, Xy=x.Xy[..., index], yy=x.yy[..., index]) for x in self.products)
        return replace(self, products=products, R=len(index))


@dataclass(frozen=True)
class Values:
    """ℓ (R,), β (R, p), score (R, K) and Hessian (R, K, K) in linear coordinates, all in the units of the
    blocks.
    """

    value: np.ndarray
    beta: np.ndarray
    score: np.ndarray
    hessian: np.ndarray

    def put(self, index: np.ndarray, other: Values) -> None:
        """Overwrite the responses `index` by those of the other."""
        for name in ("value", "beta", "score", "hessian"):
            getattr(self, name)[index] = getattr(other, name)

    def take(self, index: np.ndarray) -> Values:
        """Some of the responses."""
        return Values(*(getattr(self, name)[index] for name in ("value", "beta", "score", "hessian")))


def family(blocks: Blocks, covariance: Covariance, θ: np.ndarray) -> Family | None:
    """The cross-products of blocks that were arranged with `responses`; None where V is not linear or terms
    cross.
    """
    if blocks.crossed or any(s.signed for s in covariance.structures):
        return None
    basis = linear_basis(blocks, covariance, θ)
    if basis is None:
        return None
    p = blocks.p
    products = [_products(batch, B, p) for batch, B in zip(blocks.batches, basis[0], strict=True)]
    for noise, b in zip(blocks.noise, basis[1], strict=True):
        products.append(
            Products(
                b[:, None, None, None],
                np.array([float(noise.count)]),
                noise.gram[:p, :p].reshape(1, -1),
                noise.gram[None, :p, p:],
                np.diag(noise.gram)[None, p:],
            )
        )
    R = products[0].yy.shape[1]
    constant = blocks.log_weights - 2 * blocks.n * np.log(blocks.y_scale) - blocks.n * LOG_2PI
    log_basis = float(np.log(np.abs(np.diag(blocks.basis))).sum())
    return Family(tuple(products), blocks.n, p, R, constant, log_basis, blocks.y_scale)


def _products(batch, B: np.ndarray, p: int) -> Products:
    S, m, c = batch.data.shape
    X, Y = batch.data[..., :p], batch.data[..., p:]
    starts = np.searchsorted(batch.owner, np.arange(len(batch.count)))

    def pooled(a):
        return np.add.reduceat(a, starts, axis=0) if len(starts) < S else a

    XX = pooled(X[:, :, None, :, None] * X[:, None, :, None, :])
    Xy = pooled(X[:, :, None, :, None] * Y[:, None, :, None, :])
    yy = pooled(Y[:, :, None, :] * Y[:, None, :, :])
    k = len(starts) * m * m
    return Products(
        B, batch.count.astype(float), XX.reshape(k, p * p), Xy.reshape(k, p, c - p), yy.reshape(k, c - p)
    )


@dataclass(frozen=True)
class Sums:
    """log|V| (R,), tr V⁻¹V_j (R, K), tr V⁻¹V_jV⁻¹V_k of the pairs j <= k (R, pairs), and XX, Xy, yy with
    the leading axes of A = V⁻¹, V⁻¹V_jV⁻¹, V⁻¹V_jV⁻¹V_kV⁻¹; bad (R,): V is not positive definite.
    """

    logdet: np.ndarray
    t: np.ndarray
    tt: np.ndarray
    XX: np.ndarray
    Xy: np.ndarray
    yy: np.ndarray
    bad: np.ndarray


def inverses(V: np.ndarray, B: np.ndarray):
    """(wrong (...), log|V| (...), tr V⁻¹B_j (K, ...), tr V⁻¹B_jV⁻¹B_k (pairs, ...), A (1 + K + pairs, ...,
    m, m)) of V (..., m, m) and B (K, ..., m, m); where V is not positive definite it counts as the identity.
    """
    j, k = np.triu_indices(len(B))
    sign, log = np.linalg.slogdet(V)
    wrong = ~np.isfinite(log) | (sign <= 0)
    V = np.where(wrong[..., None, None], np.eye(V.shape[-1]), V)
    Vi = np.linalg.inv(V)
    U = Vi[None] @ B
    first = U @ Vi
    second = U[j] @ first[k]
    A = np.concatenate([Vi[None], first, (second + np.swapaxes(second, -1, -2)) / 2])
    t, tt = np.trace(U, axis1=-2, axis2=-1), np.einsum("...mn,...nm->...", U[j], U[k])
    return wrong, np.where(wrong, 0.0, log), t, tt, A


def family_sums(f: Family, θ: np.ndarray) -> Sums:
    """The sums of all responses, each at its own θ (R, K)."""
    R, K = θ.shape
    pairs = K * (K + 1) // 2
    logdet, t, tt, bad = np.zeros(R), np.zeros((R, K)), np.zeros((R, pairs)), np.zeros(R, bool)
    XX, Xy, yy = (np.zeros((1 + K + pairs, R, *s)) for s in ((f.p, f.p), (f.p,), ()))
    for x in f.products:
        wrong, log, first, second, A = inverses(np.tensordot(θ, x.B, 1), x.B[:, None])
        bad |= wrong.any(axis=1)
        logdet += log @ x.count
        t += (first @ x.count).T
        tt += (second @ x.count).T
        A = A.reshape(len(XX), R, -1)
        XX += (A @ x.XX).reshape(XX.shape)
        Xy += np.einsum("ark,kbr->arb", A, x.Xy, optimize=True)
        yy += np.einsum("ark,kr->ar", A, x.yy)
    return Sums(logdet, t, tt, XX, Xy, yy, bad)


def evaluate_all(f: Many, θ: np.ndarray, *, reml: bool) -> Values:
    """ℓ and its derivatives for every response at its own θ (R, K); -inf where V is not positive definite."""
    R, K = θ.shape
    j, k = np.triu_indices(K)
    s = f.sums(θ)
    logdet, t, tt, XX, Xy, yy, bad = s.logdet, s.t, s.tt, s.XX, s.Xy, s.yy, s.bad
    XX[0][bad] = np.eye(f.p)
    C = np.linalg.inv(XX[0])
    β = (C @ Xy[0][..., None])[..., 0]
    quadratic = yy - 2 * np.einsum("arb,rb->ar", Xy, β) + np.einsum("arbc,rb,rc->ar", XX, β, β, optimize=True)
    value = 0.5 * (f.constant - logdet - quadratic[0])
    score = 0.5 * (quadratic[1 : K + 1].T - t)
    gx = np.moveaxis(Xy[1 : K + 1] - np.einsum("arbc,rc->arb", XX[1 : K + 1], β), 0, 1)
    pairs = 0.5 * (tt - 2 * quadratic[K + 1 :].T) + np.einsum(
        "rjb,rbc,rjc->rj", gx[:, j], C, gx[:, k], optimize=True
    )
    if reml:
        CX = np.moveaxis(C @ XX[1 : K + 1], 0, 1)
        value += 0.5 * (np.linalg.slogdet(C)[1] - 2 * f.log_basis + f.p * (LOG_2PI + 2 * np.log(f.y_scale)))
        score += 0.5 * np.trace(CX, axis1=-2, axis2=-1)
        pairs += 0.5 * np.einsum("rjab,rjba->rj", CX[:, j], CX[:, k]) - np.einsum(
            "rab,jrba->rj", C, XX[K + 1 :]
        )
    hessian = np.empty((R, K, K))
    hessian[:, j, k] = hessian[:, k, j] = pairs
    return Values(np.where(bad | ~np.isfinite(value), -np.inf, value), β, score, hessian)


@dataclass(frozen=True)
class Maxima:
    """Where every response's likelihood is largest: θ (R, K) and what was found there; left (R,): Newton
    decrements.
    """

    θ: np.ndarray
    values: Values
    left: np.ndarray


def maximise_all(f: Many, covariance: Covariance, start: np.ndarray, *, reml: bool) -> Maxima:
    """Damped Newton steps in working coordinates for all responses side by side, from one θ (K,)."""
    w = np.tile(covariance.working_from_linear(start), (f.R, 1))
    at = evaluate_all(f, _coordinates(covariance, w)[0], reml=reml)
    damping, left = np.full(f.R, 1e-6), np.full(f.R, np.inf)
    active = np.arange(f.R)
    for _ in range(_STEPS):
        step, left[active] = _newton_steps(at.take(active), covariance, w[active], damping[active])
        going = left[active] > _TOLERANCE
        active, step = active[going], step[going]
        if not active.size:
            break
        tried = evaluate_all(f.take(active), _coordinates(covariance, w[active] + step)[0], reml=reml)
        now = at.value[active]
        better = tried.value >= now - 1e-12 * np.abs(now)
        moved = active[better]
        at.put(moved, tried.take(better))
        w[moved] += step[better]
        damping[active] = np.where(better, np.maximum(damping[active] / 10, 1e-12), damping[active] * 20)
    return Maxima(_coordinates(covariance, w)[0], at, left)


def _newton_steps(at: Values, covariance: Covariance, w: np.ndarray, damping: np.ndarray):
    """Steps (R, K) uphill in working coordinates, at most three long, and the Newton decrements (R,)."""
    _, J, second = _coordinates(covariance, w)
    g = np.einsum("rj,rjw->rw", at.score, J)
    H = np.swapaxes(J, 1, 2) @ at.hessian @ J + np.einsum("rj,rjvw->rvw", at.score, second)
    curvature, axes = np.linalg.eigh(-H)
    slope = np.einsum("rvw,rv->rw", axes, g)
    largest = np.abs(curvature).max(axis=1, keepdims=True)
    size = np.maximum(np.abs(curvature), 1e-8 * np.maximum(largest, 1.0))
    step = np.einsum("rvw,rw->rv", axes, slope / (size + damping[:, None] * size.max(axis=1, keepdims=True)))
    length = np.linalg.norm(step, axis=1, keepdims=True)
    return step * np.minimum(1.0, 3.0 / np.maximum(length, 1e-300)), 0.5 * np.sum(slope**2 / size, axis=1)


def _coordinates(covariance: Covariance, w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """θ (R, K) of working coordinates w (R, K), Jacobians (R, K, K) [out, in] and second derivatives (R, K,
    K, K).
    """
    R, K = w.shape
    θ, J, second = np.empty((R, K)), np.zeros((R, K, K)), np.zeros((R, K, K, K))
    for s, at in zip(covariance.structures, covariance.slices, strict=True):
        x = w[:, at].T
        each = np.broadcast_to(np.eye(s.size)[..., None], (s.size, *x.shape))
        jet = s.linear_from_working(jets.Jet(x, each), jets)
        θ[:, at] = jet.v.T
        J[:, at, at] = np.moveaxis(jet.d, -1, 0).swapaxes(1, 2)
        if jet.h is not None:
            second[:, at, at, at] = np.moveaxis(jet.h, (3, 2), (0, 1))
    return θ, J, second
