"""An operation of a PyTensor graph that brings its own programs: numpy to run at once, a loop for numba."""

from __future__ import annotations

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
