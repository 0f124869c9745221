"""V⁻¹ and log|V| of many small symmetric matrices, as one operation of a PyTensor graph.

Their derivatives are products of V⁻¹ itself, so that a gradient never differentiates a factorisation:

    d(V⁻¹) = -V⁻¹ dV V⁻¹,      d log|V| = tr V⁻¹ dV.

The graphs inside are what JAX and others run. Compiled by numba, each is one loop over the matrices: LAPACK, called for
each of them, takes longer to compile than everything else.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.gradient import DisconnectedType
from pytensor.link.numba.dispatch.basic import numba_njit, register_funcify_and_cache_key

from ..kernel.symmetric import invert
from .symbolic import OwnOp, keyed


class Inverse(OwnOp):
    """(P, m, m) -> V⁻¹ (P, m, m) and log|V| (P,); nan where V is not positive definite."""

    def build_inner_graph(self, V: Any) -> list[Any]:
        L = pt.linalg.cholesky(V)
        eye = pt.as_tensor(np.broadcast_to(np.eye(V.type.shape[1]), V.type.shape))
        half = pt.linalg.solve_triangular(L, eye, lower=True)
        return [_product(half.mT, half), 2 * pt.log(pt.diagonal(L, axis1=1, axis2=2)).sum(axis=1)]

    def pullback(self, inputs: Any, outputs: Any, cotangents: Any) -> list[Any]:
        (Vi, logdet), (g, g_log) = outputs, cotangents
        g = pt.zeros_like(Vi) if isinstance(g.type, DisconnectedType) else g
        g_log = pt.zeros_like(logdet) if isinstance(g_log.type, DisconnectedType) else g_log
        return [_derivative(Vi, g, g_log)]

    def perform(self, node: Any, inputs: Any, outputs: Any) -> None:
        Vi, logdet = invert(np.moveaxis(inputs[0], 0, -1).copy())
        outputs[0][0] = np.ascontiguousarray(np.moveaxis(Vi, -1, 0))
        outputs[1][0] = np.where(np.isfinite(logdet), logdet, np.nan)

    def infer_shape(self, node: Any, shapes: Any) -> list[Any]:
        return [shapes[0], shapes[0][:1]]


class Derivative(OwnOp):
    """g_log V⁻¹ - V⁻¹ g V⁻¹ for the cotangents g (P, m, m) of V⁻¹ and g_log (P,) of log|V|."""

    def build_inner_graph(self, Vi: Any, g: Any, g_log: Any) -> list[Any]:
        return [g_log[:, None, None] * Vi - _product(_product(Vi, g), Vi)]

    def perform(self, node: Any, inputs: Any, outputs: Any) -> None:
        Vi, g, g_log = inputs
        outputs[0][0] = g_log[:, None, None] * Vi - Vi @ g @ Vi

    def infer_shape(self, node: Any, shapes: Any) -> list[Any]:
        return [shapes[0]]


inverse, _derivative = Inverse(), Derivative()


def _product(A: Any, B: Any) -> Any:
    return (A[:, :, :, None] * B[:, None, :, :]).sum(axis=2)


# --- loops for numba --------------------------------------------------------------------------------------


@numba_njit(error_model="numpy")
def _eliminate(V):
    """Gauss-Jordan elimination, as in `kernel.symmetric`, matrix by matrix."""
    P, m, _ = V.shape
    out, logdet, row = np.empty((P, m, m)), np.zeros(P), np.empty(m)
    for s in range(P):
        for i in range(m):
            for j in range(m):
                out[s, i, j] = V[s, i, j]
        for k in range(m):
            pivot = out[s, k, k]
            logdet[s] += np.log(pivot) if pivot > 0 else np.nan
            for j in range(m):
                row[j] = out[s, k, j] / pivot
                out[s, k, j] = row[j]
            out[s, k, k] = 1 / pivot
            for i in range(m):
                if i != k:
                    c = out[s, i, k]
                    for j in range(m):
                        out[s, i, j] -= c * row[j]
                    out[s, i, k] = -c / pivot
    return out, logdet


@numba_njit
def _derivatives(Vi, g, g_log):
    P, m, _ = Vi.shape
    out, half = np.empty((P, m, m)), np.empty((m, m))
    for s in range(P):
        for i in range(m):
            for j in range(m):
                total = 0.0
                for k in range(m):
                    total += Vi[s, i, k] * g[s, k, j]
                half[i, j] = total
        for i in range(m):
            for j in range(m):
                total = g_log[s] * Vi[s, i, j]
                for k in range(m):
                    total -= half[i, k] * Vi[s, k, j]
                out[s, i, j] = total
    return out


@register_funcify_and_cache_key(Inverse)
def _compiled_inverse(op: Inverse, node: Any = None, **_: Any) -> tuple[Any, str]:
    return keyed(_eliminate)


@register_funcify_and_cache_key(Derivative)
def _compiled_derivative(op: Derivative, node: Any = None, **_: Any) -> tuple[Any, str]:
    return keyed(_derivatives)
