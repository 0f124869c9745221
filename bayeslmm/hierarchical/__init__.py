"""The hierarchical reading: priors as data, the PyMC model, and sampling from its posterior."""

from .defaults import Priors, default_priors
from .overrides import resolve_priors
from .priors import (
    LKJ,
    PC,
    Exp,
    Flat,
    Gamma,
    HalfCauchy,
    HalfNormal,
    HalfT,
    InverseGamma,
    LogNormal,
    Normal,
    Prior,
    StudentT,
    Uniform,
)

__all__ = [
    "LKJ", "PC", "Exp", "Flat", "Gamma", "HalfCauchy", "HalfNormal", "HalfT", "InverseGamma", "LogNormal",
    "Normal", "Prior", "Priors", "StudentT", "Uniform", "build", "default_priors", "resolve_priors", "sample",
    "sample_collapsed",
]  # fmt: skip


def __getattr__(name: str):
    # PyMC takes a second to import: only when a model is built or sampled.
    if name == "build":
        from .builder import build

        return build
    if name == "sample":
        from .sampling import sample

        return sample
    if name == "sample_collapsed":
        from .collapsed.sampler import sample_collapsed

        return sample_collapsed
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
