"""What is left out, given all the rest: log p(y_s | y_-s, θ) with w and β integrated out, in closed form.

The precision of y given θ is P = V⁻¹ - V⁻¹X A⁻¹X'V⁻¹ with A = X'V⁻¹X + B₀⁻¹, and Py = α = V⁻¹(y - Xb̂).
For any set s of rows

    log p(y_s | y_-s, θ) = ½ log|P_ss| - ½ α_s'P_ss⁻¹α_s - ½ |s| log 2π

so that one evaluation gives every row and every subject at once. As y'Py is the sum of the same quadratic form and
that of y_-s, α_s'P_ss⁻¹α_s is at most y'Py: where V is singular to working precision it is not, and there is no density.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ...errors import InferenceError
from ...kernel.blocks import arrange
from ...kernel.likelihood import LOG_2PI
from ...kernel.many import matrices_of_G, residual_matrices
from ...kernel.partition import partition
from ...kernel.symmetric import invert
from ...manyvalues import Many
from ..defaults import Priors
from .target import Evaluated, Target

if TYPE_CHECKING:
    from ...model import LMM

_ROUNDING = 1e-6
_NUMBERS = 1_000_000  # in one array of a chunk
_DENSE = 2500  # rows of a design with crossed factors, whose V is one block


@dataclass(frozen=True)
class Deletion:
    """The target, the units (codes (n,) of rows) to leave out, and the rows arranged in blocks of V.

    order: for each batch the rows (S, m) of the data that its blocks hold.
    """

    target: Target
    rows: Target
    units: np.ndarray
    order: tuple[np.ndarray, ...]

    @staticmethod
    def of(model: LMM, priors: Priors, units: np.ndarray) -> Deletion:
        """Raises InferenceError where crossed factors tie more rows together than fit in one matrix."""
        target = Target.of(model, priors)
        n = len(model.design.y)
        codes = _blocks(model, n)
        largest = int(np.bincount(codes).max())
        if largest > _DENSE:
            raise InferenceError(
                f"Crossed factors tie {largest} rows together, and leaving rows out in closed form takes "
                f"matrices of that size: up to {_DENSE} rows. unit='observation' does without them."
            )
        blocks = arrange(model.design, model.covariance, model.residual, clusters=codes)
        labelled = arrange(_numbered(model), model.covariance, model.residual, clusters=codes)
        order = tuple(
            np.rint(b.data[..., -1] * labelled.y_scale + b.data[..., :-1] @ (labelled.basis @ labelled.center)
                    ).astype(int) for b in labelled.batches)  # fmt: skip
        rows = Target(target.coordinates, blocks, blocks, target.products, target.information)
        return Deletion(target, rows, units, order)

    def only(self, unit: int) -> Deletion:
        """The same for one unit: the blocks that hold its rows (all others keep density zero)."""
        batches, order = [], []
        for batch, index in zip(self.rows.blocks.batches, self.order, strict=True):
            here = np.flatnonzero((self.units[index] == unit).any(axis=1))
            if here.size:
                batches.append(batch.take(here))
                order.append(index[here])
        kept = replace(self.rows, blocks=replace(self.rows.blocks, batches=tuple(batches)))
        return replace(self, rows=kept, order=tuple(order))

    def log_density(self, drawn: Evaluated) -> np.ndarray:
        """log p(y_s | y_-s, θ) of every draw and unit: (D, units); -inf where V is singular to working precision."""
        out = np.zeros((len(drawn.u), int(self.units.max()) + 1))
        p = self.target.blocks.p
        most = drawn.L[:, p, p] ** 2 * (1 + _ROUNDING)  # y'Py
        with np.errstate(all="ignore"):
            for some, index, P, α in self._pieces(drawn):
                for members in _by_size(self.units[index]):
                    _add(out[some], members, index, P, α, self.units, most[some])
        count = np.bincount(self.units, minlength=out.shape[1])
        return out - count * (0.5 * LOG_2PI + np.log(self.target.blocks.y_scale))

    def _pieces(self, drawn: Evaluated) -> Iterator[tuple[slice, np.ndarray, np.ndarray, np.ndarray]]:
        """(draws, rows (S, m), P (m, m, S, D), α (m, S, D)) in the units of the blocks."""
        blocks, covariance = self.rows.blocks, self.target.products.covariance
        p = blocks.p
        for batch, index in zip(blocks.batches, self.order, strict=True):
            S, m, _ = batch.data.shape
            X = batch.data[..., :p]
            step = max(1, _NUMBERS // (S * m * m))
            for k in range(0, len(drawn.u), step):
                some = slice(k, k + step)
                x = Many(np.ascontiguousarray((drawn.θ[some] / blocks.unit).T))
                D, L = x.a.shape[1], drawn.L[some]
                V = _V(batch, blocks, covariance, x, D)
                Vi = invert(V.reshape(m, m, -1))[0].reshape(m, m, -1, D)[:, :, batch.owner]
                half = np.linalg.inv(L[:, :p, :p]) if p else L[:, :0, :0]
                b = (np.swapaxes(half, 1, 2) @ L[:, p, :p, None])[..., 0]
                r = batch.data[..., -1:] - (X @ b.T if p else 0.0)  # (S, m, D)
                α = np.einsum("ijsd,sjd->isd", Vi, r, optimize=True)
                if p:
                    VX = np.einsum("ijsd,sjp->ipsd", Vi, X, optimize=True)
                    W = np.einsum("ipsd,dqp->iqsd", VX, half, optimize=True)
                    Vi = Vi - np.einsum("iqsd,jqsd->ijsd", W, W, optimize=True)
                yield some, index, Vi, α


def _V(batch, blocks, covariance, x: Many, D: int) -> np.ndarray:
    """V (m, m, P, D) of a batch."""
    P, m = len(batch.count), batch.data.shape[1]
    V = np.zeros((m, m, P, D))
    G = matrices_of_G(covariance, x, D)
    for z, i in zip(batch.Z, blocks.within, strict=True):
        ZG = np.einsum("pmla,abd->pmlbd", z, G[i], optimize=True)
        V += np.einsum("pmlbd,pnlb->mnpd", ZG, z, optimize=True)
    for part in residual_matrices(covariance, x, batch.rows, slice(None), D):
        V += np.moveaxis(part, 0, 2)
    return V


def _blocks(model: LMM, n: int) -> np.ndarray:
    """Codes of the blocks of V; one block where factors cross."""
    part = partition(model.design.terms, model.residual, False, n)
    return part.codes if not part.crossed else np.zeros(n, int)


def _numbered(model: LMM):
    """The design with the number of each row in the place of y: says where the rows went."""
    design = model.design
    return replace(design, y=np.arange(len(design.y), dtype=float) + design.offset)


def _by_size(units: np.ndarray) -> list[np.ndarray]:
    """Places of units within blocks (S, m): arrays (N, 1 + k) of block and places, one for each size k."""
    S, m = units.shape
    key = np.arange(S)[:, None] * (int(units.max()) + 1) + units
    flat = key.ravel()
    order = np.argsort(flat, kind="stable")
    _, start, count = np.unique(flat[order], return_index=True, return_counts=True)
    found = []
    for k in np.unique(count):
        chosen = start[count == k]
        places = order[chosen[:, None] + np.arange(k)]
        found.append(np.column_stack([places[:, 0] // m, places % m]))
    return found


def _add(out: np.ndarray, members: np.ndarray, index, P, α, units, most: np.ndarray) -> None:
    """Add the densities of units of one size to out (D, units); most (D,): what no quadratic form exceeds."""
    block, place = members[:, 0], members[:, 1:]
    Pss = P[place.T[:, None], place.T[None], block]  # (k, k, N, D)
    a = α[place.T, block]
    k, N, D = a.shape
    inverse, logdet = invert(Pss.reshape(k, k, -1).copy())
    quadratic = np.einsum("isd,ijsd,jsd->sd", a, inverse.reshape(k, k, N, D), a, optimize=True)
    quadratic[~(quadratic <= most)] = np.inf
    unit = units[index[block, place[:, 0]]]
    out[:, unit] += (0.5 * (logdet.reshape(N, D) - quadratic)).T
