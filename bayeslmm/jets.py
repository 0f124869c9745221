"""Second-order forward numbers: arrays that carry their exact first and second derivatives.

A jet of K variables holds a value v of shape S, first derivatives d of shape (K, *S) and second derivatives
h of shape (K, K, *S). `d is None` means a constant and `h is None` means "linear so far": both save the work
that is zero anyway. Covariance structures are written once in arithmetic, indexing, masks and
`xp.exp/log/sqrt/tanh/sin/cos/maximum/stack`; with `xp = bayeslmm.jets` the same text gives the derivatives.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["Jet", "cos", "derivatives", "exp", "log", "maximum", "sin", "sqrt", "stack", "tanh", "variables"]


def _align(a: np.ndarray, lead: int, ndim: int) -> np.ndarray:
    """Insert axes behind the `lead` derivative axes so that the value axes broadcast from the right."""
    missing = ndim - (a.ndim - lead)
    return a.reshape(a.shape[:lead] + (1,) * missing + a.shape[lead:]) if missing > 0 else a


def _add(a, b):
    return b if a is None else a if b is None else a + b


class Jet:
    """An array with first and second derivatives with respect to K variables."""

    __slots__ = ("d", "h", "v")
    __array_ufunc__ = None  # numpy must leave `array * jet` to us

    def __init__(self, v, d=None, h=None):
        self.v, self.d, self.h = np.asarray(v, float), d, h

    shape = property(lambda self: self.v.shape)
    ndim = property(lambda self: self.v.ndim)

    def _lift(self, ndim: int) -> tuple[Any, Any]:
        return (
            None if self.d is None else _align(self.d, 1, ndim),
            None if self.h is None else _align(self.h, 2, ndim),
        )

    def __add__(self, other):
        other = _jet(other)
        v = self.v + other.v
        (d1, h1), (d2, h2) = self._lift(v.ndim), other._lift(v.ndim)
        return Jet(v, _broadcast(_add(d1, d2), 1, v.shape), _broadcast(_add(h1, h2), 2, v.shape))

    def __mul__(self, other):
        other = _jet(other)
        v = self.v * other.v
        (d1, h1), (d2, h2) = self._lift(v.ndim), other._lift(v.ndim)
        a, b = self.v, other.v
        d = _add(None if d1 is None else d1 * b, None if d2 is None else a * d2)
        h = _add(None if h1 is None else h1 * b, None if h2 is None else a * h2)
        if d1 is not None and d2 is not None:
            cross = d1[:, None] * d2[None]
            h = _add(h, cross + np.swapaxes(cross, 0, 1))
        return Jet(v, _broadcast(d, 1, v.shape), _broadcast(h, 2, v.shape))

    def __neg__(self):
        return self * -1.0

    def __sub__(self, other):
        return self + (-1.0) * _jet(other)

    def __rsub__(self, other):
        return (-self) + other

    def __truediv__(self, other):
        return self * _reciprocal(other) if isinstance(other, Jet) else self * (1.0 / np.asarray(other))

    def __rtruediv__(self, other):
        return _reciprocal(self) * other

    def __pow__(self, k: int):
        if not isinstance(k, int) or k < 0:
            raise TypeError(f"jets take whole powers only, not {k!r}: write xp.exp(k * xp.log(x))")
        out = Jet(np.ones(())) if k == 0 else self
        for _ in range(k - 1):
            out = out * self
        return out

    def __getitem__(self, index):
        index = index if isinstance(index, tuple) else (index,)
        every = slice(None)
        return Jet(
            self.v[index],
            None if self.d is None else self.d[(every, *index)],
            None if self.h is None else self.h[(every, every, *index)],
        )

    __radd__ = __add__
    __rmul__ = __mul__


def _jet(x) -> Jet:
    return x if isinstance(x, Jet) else Jet(x)


def _broadcast(a, lead, shape):
    return None if a is None else np.broadcast_to(a, a.shape[:lead] + shape)


def _apply(x: Jet, f, f1, f2) -> Jet:
    """Chain rule for an elementwise function with value f and derivatives f1, f2 at x."""
    if x.d is None:
        return Jet(f)
    h = f2 * (x.d[:, None] * x.d[None])
    return Jet(f, f1 * x.d, h if x.h is None else h + f1 * x.h)


def _reciprocal(x: Jet) -> Jet:
    f = 1.0 / x.v
    return _apply(x, f, -(f**2), 2 * f**3)


def exp(x):
    x = _jet(x)
    f = np.exp(x.v)
    return _apply(x, f, f, f)


def log(x):
    x = _jet(x)
    return _apply(x, np.log(x.v), 1.0 / x.v, -1.0 / x.v**2)


def sqrt(x):
    x = _jet(x)
    f = np.sqrt(x.v)
    return _apply(x, f, 0.5 / f, -0.25 / (f * x.v))


def tanh(x):
    x = _jet(x)
    f = np.tanh(x.v)
    return _apply(x, f, 1 - f**2, -2 * f * (1 - f**2))


def sin(x):
    x = _jet(x)
    f = np.sin(x.v)
    return _apply(x, f, np.cos(x.v), -f)


def cos(x):
    x = _jet(x)
    f = np.cos(x.v)
    return _apply(x, f, -np.sin(x.v), -f)


def maximum(x, bound: float):
    """max(x, bound) for a constant bound; derivatives are zero where the bound holds."""
    x = _jet(x)
    inside = (x.v > bound).astype(float)
    return _apply(x, np.maximum(x.v, bound), inside, 0.0)


def stack(items):
    """Join equally shaped jets along a new first axis."""
    items = [_jet(x) for x in items]
    v = np.stack([x.v for x in items])
    known = [x.d for x in items if x.d is not None]
    if not known:
        return Jet(v)
    K = known[0].shape[0]
    d = np.stack([np.zeros((K, *x.shape)) if x.d is None else x.d for x in items], axis=1)
    if all(x.h is None for x in items):
        return Jet(v, d)
    return Jet(v, d, np.stack([np.zeros((K, K, *x.shape)) if x.h is None else x.h for x in items], axis=2))


def variables(x) -> Jet:
    """Start: the vector x (K,) whose entries are the K variables themselves."""
    x = np.asarray(x, float)
    return Jet(x, np.eye(x.size))


def derivatives(x, K: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """The value (S), first (K, *S) and second derivatives (K, K, *S; None where all are zero) of a jet or array."""
    x = _jet(x)
    return x.v, np.zeros((K, *x.shape)) if x.d is None else np.ascontiguousarray(x.d), x.h
