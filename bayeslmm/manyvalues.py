"""Many values at once: arrays with one more axis, the last, that runs over D parameter vectors.

The fourth `xp` of the covariance structures, beside numpy, jets and pytensor: arithmetic, indexing and
`stack` act on the leading (value) axes and leave the axis of draws alone, so that one call of
`Structure.matrix` gives the matrices of D draws. The draws stand last because arrays then broadcast from the
right without any alignment.
"""

from __future__ import annotations

import numpy as np

__all__ = ["Many", "cos", "exp", "log", "maximum", "sin", "sqrt", "stack", "tanh", "values"]


class Many:
    """D arrays of one shape S: `a` (*S, D)."""

    __slots__ = ("a",)
    __array_ufunc__ = None  # numpy must leave `array * many` to us

    def __init__(self, a: np.ndarray):
        self.a = a

    shape = property(lambda self: self.a.shape[:-1])
    ndim = property(lambda self: self.a.ndim - 1)

    def __add__(self, other):
        return Many(self.a + _plain(other))

    def __mul__(self, other):
        return Many(self.a * _plain(other))

    def __sub__(self, other):
        return Many(self.a - _plain(other))

    def __rsub__(self, other):
        return Many(_plain(other) - self.a)

    def __truediv__(self, other):
        return Many(self.a / _plain(other))

    def __rtruediv__(self, other):
        return Many(_plain(other) / self.a)

    def __neg__(self):
        return Many(-self.a)

    def __pow__(self, k: int):
        return Many(self.a**k)

    def __getitem__(self, index):
        index = index if isinstance(index, tuple) else (index,)
        return Many(self.a[(*index, slice(None))] if any(i is Ellipsis for i in index) else self.a[index])

    def __len__(self) -> int:
        return self.a.shape[0]

    __radd__ = __add__
    __rmul__ = __mul__


def _plain(x) -> np.ndarray:
    """An operand with the axis of draws: constants are the same for all of them."""
    if isinstance(x, Many):
        return x.a
    x = np.asarray(x, float)
    return x[..., None] if x.ndim else x


def exp(x):
    return Many(np.exp(x.a)) if isinstance(x, Many) else np.exp(x)


def log(x):
    return Many(np.log(x.a)) if isinstance(x, Many) else np.log(x)


def sqrt(x):
    return Many(np.sqrt(x.a)) if isinstance(x, Many) else np.sqrt(x)


def tanh(x):
    return Many(np.tanh(x.a)) if isinstance(x, Many) else np.tanh(x)


def sin(x):
    return Many(np.sin(x.a)) if isinstance(x, Many) else np.sin(x)


def cos(x):
    return Many(np.cos(x.a)) if isinstance(x, Many) else np.cos(x)


def maximum(x, bound: float):
    return Many(np.maximum(x.a, bound)) if isinstance(x, Many) else np.maximum(x, bound)


def stack(items):
    """Join equally shaped arrays along a new first axis."""
    if not any(isinstance(x, Many) for x in items):
        return np.stack(items)
    return Many(np.stack(np.broadcast_arrays(*(_plain(x) for x in items))))


def values(x, draws: int) -> np.ndarray:
    """The array (*S, D) of a result that may not have depended on the parameters."""
    plain = _plain(x)
    return plain if isinstance(x, Many) else np.broadcast_to(plain, (*plain.shape[:-1], draws))
