"""Pictures of a comparison: each function accepts axes, returns what it drew and never shows it."""

from .chains import plot_rank, plot_trace
from .estimates import plot_estimates, plot_variance
from .profiles import plot_profiles
from .shrinkage import plot_shrinkage

__all__ = ["plot_estimates", "plot_profiles", "plot_rank", "plot_shrinkage", "plot_trace", "plot_variance"]
