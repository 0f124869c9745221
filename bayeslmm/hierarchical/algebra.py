"""Small matrix products as elementwise graphs.

PyTensor's numba backend compiles each call of BLAS for 15 seconds on first use; sums of products of a few
columns compile in one, and run as fast.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor.tensor as pt


def matvec(A: np.ndarray, x: Any) -> Any:
    """A x for a constant A (n, p)."""
    return (pt.as_tensor(A) * x).sum(axis=1)


def times_transpose(A: Any, B: Any) -> Any:
    """A B' for (n, q) and (m, q)."""
    return (A[:, None, :] * B[None, :, :]).sum(axis=2)
