"""An operation of a PyTensor graph that brings its own programs: numpy to run at once, a loop for numba."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from pytensor.compile.builders import FinalizedOpFromGraph, SymbolicOp
from pytensor.graph.op import Op


class OwnOp(SymbolicOp, FinalizedOpFromGraph):
    """A `SymbolicOp` with a `perform`: the graph inside is what JAX and others run, as it is, and what is differentiated
    where there is no `pullback`.
    """

    def make_thunk(self, node: Any, storage_map: Any, compute_map: Any, no_recycling: Any, impl: Any = None) -> Any:
        """Run `perform`, where a SymbolicOp would first compile the graph inside."""
        return Op.make_thunk(self, node, storage_map, compute_map, no_recycling, impl="py")


def keyed(function: Any) -> tuple[Any, str]:
    """A numba function with the key under which PyTensor keeps it on disk: another once its file is changed."""
    code = function.py_func.__code__
    return function, f"bayeslmm-{code.co_name}-{_fingerprint(code.co_filename)}"


@cache
def _fingerprint(path: str) -> str:
    return sha256(Path(path).read_bytes()).hexdigest()
