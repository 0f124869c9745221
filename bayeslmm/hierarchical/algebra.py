"""Products with small matrices in a PyTensor graph.

Each is one short loop when numba compiles it. BLAS, and sums over broadcast arrays, run as fast on a few columns, but
cost LLVM a tenth of a second each to compile; a model has thirty.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.link.numba.dispatch.basic import numba_njit, register_funcify_and_cache_key

from .symbolic import OwnOp


class MatVec(OwnOp):
    """A x, or A'x, for (n, p) and a vector."""

    __props__ = ("transpose",)
    transpose: bool = False

    def build_inner_graph(self, A: Any, x: Any) -> list[Any]:
        return [(A.T if self.transpose else A) @ x]

    def pullback(self, inputs: Any, outputs: Any, cotangents: Any) -> list[Any]:
        (A, x), (g,) = inputs, cotangents
        outer = x[:, None] * g[None, :] if self.transpose else g[:, None] * x[None, :]
        return [outer, (_plain if self.transpose else _transposed)(A, g)]

    def perform(self, node: Any, inputs: Any, outputs: Any) -> None:
        A, x = inputs
        outputs[0][0] = (A.T if self.transpose else A) @ x

    def infer_shape(self, node: Any, shapes: Any) -> list[Any]:
        return [(shapes[0][1 if self.transpose else 0],)]


class SmallDot(OwnOp):
    """A B, or A B', for (n, k) and a small matrix; not a `Dot`, which PyTensor rewrites into BLAS."""

    __props__ = ("transpose",)
    transpose: bool = False

    def build_inner_graph(self, A: Any, B: Any) -> list[Any]:
        return [A @ (B.T if self.transpose else B)]

    def pullback(self, inputs: Any, outputs: Any, cotangents: Any) -> list[Any]:
        (A, B), (g,) = inputs, cotangents
        return [dot(g, B), dot(g.T, A)] if self.transpose else [times_transpose(g, B), dot(A.T, g)]

    def perform(self, node: Any, inputs: Any, outputs: Any) -> None:
        A, B = inputs
        outputs[0][0] = A @ (B.T if self.transpose else B)

    def infer_shape(self, node: Any, shapes: Any) -> list[Any]:
        return [(shapes[0][0], shapes[1][0 if self.transpose else 1])]


class Gram(OwnOp):
    """A A' for (n, k); with a (n, n) second argument g, (g + g')A, which is its derivative."""

    def build_inner_graph(self, A: Any, *g: Any) -> list[Any]:
        return [(g[0] + g[0].T) @ A] if g else [A @ A.T]

    def pullback(self, inputs: Any, outputs: Any, cotangents: Any) -> list[Any]:
        if len(inputs) == 2:
            return super().pullback(inputs, outputs, cotangents)
        return [_gram(inputs[0], cotangents[0])]

    def perform(self, node: Any, inputs: Any, outputs: Any) -> None:
        A, *g = inputs
        outputs[0][0] = (g[0] + g[0].T) @ A if g else A @ A.T

    def infer_shape(self, node: Any, shapes: Any) -> list[Any]:
        return [shapes[0] if len(shapes) == 2 else (shapes[0][0], shapes[0][0])]


_plain, _transposed = MatVec(), MatVec(transpose=True)
_dot, _dot_transposed, _gram = SmallDot(), SmallDot(transpose=True), Gram()


def matvec(A: Any, x: Any) -> Any:
    """A x for (n, p) and (p,)."""
    return _plain(pt.as_tensor(A), x)


def dot(A: Any, B: Any) -> Any:
    """A B for (n, k) and (k, m), of which one is small."""
    return _dot(A, B)


def times_transpose(A: Any, B: Any) -> Any:
    """A B' for (n, q) and (m, q)."""
    return _dot_transposed(A, B)


def gram(A: Any) -> Any:
    """A A' for (n, k)."""
    return _gram(A)


def scale_rows(s: Any, A: Any) -> Any:
    """diag(s) A for (n,) and (n, m)."""
    n, m = A.type.shape
    return (matvec(np.repeat(np.eye(n), m, axis=0), s) * A.ravel()).reshape((n, m))


@register_funcify_and_cache_key(MatVec)
def _compiled_matvec(op: MatVec, node: Any = None, **_: Any) -> tuple[Any, str]:
    if op.transpose:

        @numba_njit
        def transposed(A, x):
            n, p = A.shape
            out = np.zeros(p)
            for i in range(n):
                for k in range(p):
                    out[k] += A[i, k] * x[i]
            return out

        return transposed, "bayeslmm-transposed-1"

    @numba_njit
    def plain(A, x):
        n, p = A.shape
        out = np.empty(n)
        for i in range(n):
            total = 0.0
            for k in range(p):
                total += A[i, k] * x[k]
            out[i] = total
        return out

    return plain, "bayeslmm-plain-1"


@register_funcify_and_cache_key(SmallDot)
def _compiled_dot(op: SmallDot, node: Any = None, **_: Any) -> tuple[Any, str]:
    if op.transpose:

        @numba_njit(fastmath=False)  # a loop of few steps is not worth the code that would do four at once
        def times_transposed(A, B):
            n, p = A.shape
            m = B.shape[0]
            out = np.empty((n, m))
            for i in range(n):
                for j in range(m):
                    total = 0.0
                    for k in range(p):
                        total += A[i, k] * B[j, k]
                    out[i, j] = total
            return out

        return times_transposed, "bayeslmm-times_transposed-1"

    @numba_njit(fastmath=False)
    def times(A, B):
        n, p = A.shape
        m = B.shape[1]
        out = np.empty((n, m))
        for i in range(n):
            for j in range(m):
                total = 0.0
                for k in range(p):
                    total += A[i, k] * B[k, j]
                out[i, j] = total
        return out

    return times, "bayeslmm-times-1"


@register_funcify_and_cache_key(Gram)
def _compiled_gram(op: Gram, node: Any = None, **_: Any) -> tuple[Any, str]:
    if node is not None and len(node.inputs) == 2:

        @numba_njit(fastmath=False)
        def symmetric_times(A, g):
            n, p = A.shape
            out = np.empty((n, p))
            for i in range(n):
                for j in range(p):
                    total = 0.0
                    for k in range(n):
                        total += (g[i, k] + g[k, i]) * A[k, j]
                    out[i, j] = total
            return out

        return symmetric_times, "bayeslmm-symmetric-times-1"

    @numba_njit(fastmath=False)
    def gram_of(A):
        n, p = A.shape
        out = np.empty((n, n))
        for i in range(n):
            for j in range(n):
                total = 0.0
                for k in range(p):
                    total += A[i, k] * A[j, k]
                out[i, j] = total
        return out

    return gram_of, "bayeslmm-gram-1"
