"""The name of the observed variable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import SamplingError

if TYPE_CHECKING:
    from ..model import LMM


def response_name(model: LMM) -> str:
    """The response as the formula has it; a slash cannot be part of a name in a NetCDF file.

    Raises SamplingError where a parameter or a dimension has the same name.
    """
    name = model.design.response.replace("/", "÷")
    parameters = {p.name for p in model.covariance.parameters}
    groups = {t.group for t in model.design.terms}
    taken = {"beta", "obs", "coef", "chain", "draw", *parameters, *groups, *(f"w_{g}" for g in groups)}
    if name in taken:
        raise SamplingError(
            f"The response is called {name!r}, as is a part of the result: rename the column."
        )
    return name
