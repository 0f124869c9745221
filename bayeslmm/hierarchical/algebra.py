"""Products with small matrices in a PyTensor graph.

Each is one short loop when numba compiles it. BLAS, and sums over broadcast arrays, run as fast on a few columns, but
cost LLVM a tenth of a second each to compile; a model has thirty.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.link.numba.dispatch.basic import numba_njit, register_funcify_and_cache_key

from .symbolic import OwnOp, keyed


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


def take(x: Any, index: np.ndarray) -> Any:
    """x[index] for rows by number; indexing with an array itself makes PyTensor look at every number in Python."""
    return x[pt.as_tensor(index)]


def gram(A: Any) -> Any:
    """A A' for (n, k)."""
    return _gram(A)


def scale_rows(s: Any, A: Any) -> Any:
    """diag(s) A for (n,) and (n, m)."""
    n, m = A.type.shape
    return (matvec(np.repeat(np.eye(n), m, axis=0), s) * A.ravel()).reshape((n, m))


# --- loops for numba --------------------------------------------------------------------------------------

_short = numba_njit(fastmath=False)  # a loop of few steps is not worth the code that would do four at once


@numba_njit
def _row_by_row(A, x):
    n, p = A.shape
    out = np.empty(n)
    for i in range(n):
        total = 0.0
        for k in range(p):
            total += A[i, k] * x[k]
        out[i] = total
    return out


@numba_njit
def _sum_of_rows(A, x):
    n, p = A.shape
    out = np.zeros(p)
    for i in range(n):
        for k in range(p):
            out[k] += A[i, k] * x[i]
    return out


@_short
def _times(A, B):
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


@_short
def _times_transpose(A, B):
    return _times(A, B.T)


@_short
def _gram_of(A):
    return _times(A, A.T)


@_short
def _gram_derivative(A, g):
    return _times(g + g.T, A)


@register_funcify_and_cache_key(MatVec)
def _compiled_matvec(op: MatVec, node: Any = None, **_: Any) -> tuple[Any, str]:
    return keyed(_sum_of_rows if op.transpose else _row_by_row)


@register_funcify_and_cache_key(SmallDot)
def _compiled_dot(op: SmallDot, node: Any = None, **_: Any) -> tuple[Any, str]:
    return keyed(_times_transpose if op.transpose else _times)


@register_funcify_and_cache_key(Gram)
def _compiled_gram(op: Gram, node: Any, **_: Any) -> tuple[Any, str]:
    return keyed(_gram_of if len(node.inputs) == 1 else _gram_derivative)
