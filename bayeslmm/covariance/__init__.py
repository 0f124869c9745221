"""Covariance structures: a scale times a correlation, each written once for every engine."""

from .correlation import (
    AR1,
    Antedependence,
    CompoundSymmetry,
    Correlation,
    Exponential,
    Gaussian,
    Independent,
    Matern32,
    Matern52,
    Rows,
    Spherical,
    TimeCorrelation,
    Toeplitz,
    Unstructured,
)
from .scale import Scale
from .structure import ResidualSum, Structure

__all__ = [
    "AR1",
    "Antedependence",
    "CompoundSymmetry",
    "Correlation",
    "Exponential",
    "Gaussian",
    "Independent",
    "Matern32",
    "Matern52",
    "ResidualSum",
    "Rows",
    "Scale",
    "Spherical",
    "Structure",
    "TimeCorrelation",
    "Toeplitz",
    "Unstructured",
]
