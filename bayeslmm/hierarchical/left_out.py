"""What leave-one-out found, in ArviZ's format, and tables of several models by it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from arviz_stats.utils import ELPDDataLOO

from ..errors import InferenceError

if TYPE_CHECKING:
    from ..model import LMM


@dataclass(kw_only=True, repr=False)
class LeftOut(ELPDDataLOO):
    """ArviZ's ELPDData with the unit that was left out, the model, and a checksum of its data.

    exact: labels of the units that were left out by a posterior without them; their pareto_k is nan.
    """

    unit: str
    model: str
    checksum: int
    exact: tuple[Any, ...] = ()

    def __str__(self) -> str:
        said = f"\nLeft out: {self.unit}, {self.n_data_points} times."
        if self.exact:
            said += f" By a posterior without it, because of its k: {', '.join(map(str, self.exact))}."
        return super().__str__().rstrip() + "\n" + said


def checksum(model: LMM) -> int:
    """A number that two models share where they have the same response, rows and weights."""
    design = model.design
    parts = (design.response.encode(), design.y, np.asarray(design.weights, float))
    return zlib.crc32(b"".join(p if isinstance(p, bytes) else np.ascontiguousarray(p).tobytes() for p in parts))


def compare_left_out(results: dict[str, Any]) -> pd.DataFrame:
    """One row a model, best first: elpd, its standard error, p, and delta, the distance from the best.

    se_delta is the standard error of delta, √(N Var(d_k)) over the N units' differences d_k: smaller than
    the two standard errors suggest, since both models find the same units hard. khat_above counts units
    whose term cannot be trusted, exact those that were left out by a posterior without them.

    Raises InferenceError for what loo() did not make, another unit left out, or other data.
    """
    if len(results) < 2:
        raise InferenceError("compare_models needs at least two models.")
    for name, found in results.items():
        _require_comparable(name, found, *next(iter(results.items())))
    best = max(results.values(), key=lambda found: found.elpd)
    table = pd.DataFrame.from_dict({k: _row(found, best) for k, found in results.items()}, orient="index")
    table = table.sort_values("elpd", ascending=False)
    table.index.name = "model"
    table.attrs = {"unit": best.unit, "units": best.n_data_points, "better": "larger"}
    return table


def _row(found: LeftOut, best: LeftOut) -> dict[str, float | int]:
    d = best.elpd_i.to_numpy() - found.elpd_i.to_numpy()
    return {
        "elpd": found.elpd,
        "se": found.se,
        "p": found.p,
        "delta": float(d.sum()),
        "se_delta": float(np.sqrt(len(d)) * d.std()),
        "khat_above": int((found.pareto_k > found.good_k).sum()),
        "exact": len(found.exact),
    }


def _require_comparable(name: str, found: Any, first_name: str, first: Any) -> None:
    if not isinstance(found, LeftOut):
        raise InferenceError(
            f"{name} is a {type(found).__name__}: compare_models takes fits, or results of "
            "bl.loo(model, posterior, unit=...), all of one kind."
        )
    if found.unit != first.unit or found.elpd_i.dims != first.elpd_i.dims:
        raise InferenceError(
            f"{first_name} left out {first.unit} ({first.elpd_i.dims[0]}) and {name} {found.unit} "
            f"({found.elpd_i.dims[0]}): these answer different questions. Use one unit for all models."
        )
    if found.checksum != first.checksum or found.n_data_points != first.n_data_points:
        raise InferenceError(
            f"{first_name} and {name} were not computed from the same response, rows and weights: predictive "
            "densities of different data cannot be compared. A column of one may have missing values: drop those "
            "rows first."
        )
