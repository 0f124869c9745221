"""The model: one specification that both engines read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .covariance.assembly import Covariance
from .covariance.binding import BoundResidual, bind, residual_columns
from .covariance.correlation import Correlation, Independent
from .covariance.structure import ResidualSum
from .design import Design, make_design
from .errors import InferenceError
from .formula import Formula, parse
from .identifiability import check_identifiable

if TYPE_CHECKING:
    from .results import Fit


@dataclass(frozen=True, init=False, repr=False)
class LMM:
    """A linear mixed model for repeated measurements.

    Read marginally it is Y ~ N(Xβ, V) with V = ZGZ' + R; read hierarchically it is Y|w ~ N(Xβ + Zw, R) with
    w ~ N(0, G).

    Parameters
    ----------
    formula : an lme4 formula, such as ``"Reaction ~ Days + (Days | Subject)"``. Around a bar, ``diag()``, ``cs()`` and
        ``ar1()`` choose the structure of G; ``(t || g)`` is diagonal.
    data : a pandas, polars or pyarrow table, one row a measurement. Rows with missing values in the columns that the
        model reads are left out, counted and named.
    residual : the structure of R, for example ``Exponential("Time") + Independent()``; independent with one variance
        by default.
    weights : known precision weights, a column or an array: the error variance is σ²/weight.
    signed : allow negative variance components as long as V is positive definite. Such a model is marginal only.

    Raises
    ------
    FormulaError, DataError, DesignError, CovarianceError
        Each says what was found, why it matters and what to do.
    """

    formula: Formula
    design: Design
    covariance: Covariance
    residual: BoundResidual
    signed: bool = field(default=False)

    def __init__(self, formula: str, data: Any, *, residual: Correlation | ResidualSum | None = None,
                 weights: Any = None, signed: bool = False):  # fmt: skip
        spec = ResidualSum.of(Independent() if residual is None else residual)
        parsed = parse(formula)
        design = make_design(parsed, data, weights=weights, extra_columns=residual_columns(spec))
        covariance, bound = bind(design, spec, signed=signed)
        if bound.subject is None:
            check_identifiable(design)
        for name, value in (("formula", parsed), ("design", design), ("covariance", covariance),
                            ("residual", bound), ("signed", signed)):  # fmt: skip
            object.__setattr__(self, name, value)

    def fit(self, method: str = "REML", *, start: Mapping[str, float] | None = None) -> Fit:
        """Maximise the restricted ("REML") or full ("ML") likelihood of the marginal model, in closed form for β.

        start: values on the natural scale to begin from, by name, such as ``{"range": 3.0}``. Where the likelihood can
        have several maxima, several starting points are tried in any case, and the highest summit is returned.

        Raises InferenceError for another method, and for a start that is not admissible.
        """
        from .results import Fit

        if str(method).upper() not in ("REML", "ML"):
            raise InferenceError(f"method={method!r}: the marginal model is fitted by 'REML' or 'ML'.")
        return Fit.of(self, reml=str(method).upper() == "REML", start=start)

    def to_pymc(self, parametrization: str = "noncentered", *, priors: Any = None):
        """The hierarchical model as an ordinary pm.Model, to extend, sample or inspect.

        parametrization: "noncentered" (w = D L z), "centered" (w ~ N(0, G)) or "marginal" (w integrated out;
        `random_effect_draws` finds it afterwards). priors: see `default_priors`.
        """
        from .hierarchical import build

        return build(self, parametrization, priors)

    def sample(self, sampler: str = "collapsed", *, draws: int = 1000, tune: int = 1000, chains: int = 4,
               random_seed: Any = None, parametrization: str = "noncentered", priors: Any = None,
               progressbar: bool = True, **kwargs: Any):  # fmt: skip
        """Draw from the posterior; an xarray.DataTree that every ArviZ function takes.

        sampler: "collapsed" integrates β and w out exactly and draws independent values of the variance
        parameters, with a certificate in the attributes (khat); "nuts" is PyMC. tune, parametrization and
        arguments of pm.sample are for NUTS; the collapsed sampler takes `effects` and `prior_draws`, and its bar
        appears where it takes longer than two seconds. A ConvergenceNote tells where Markov chains took over.

        Save the tree with its to_netcdf(path), or to_zarr(path) where zarr is installed. Ctrl-C ends either sampler
        with KeyboardInterrupt and without a result; pm.sample on to_pymc() returns what was drawn until then.
        """
        from .hierarchical.interrupts import interruptible

        common = {"draws": draws, "chains": chains, "random_seed": random_seed, "priors": priors, **kwargs}
        with interruptible():
            if sampler == "collapsed":
                from .hierarchical import sample_collapsed

                return sample_collapsed(self, progressbar=progressbar, **common)
            from .hierarchical import sample

            return sample(self, sampler, tune=tune, parametrization=parametrization, progressbar=progressbar, **common)

    def __str__(self) -> str:
        return f"{self.formula.text}   residual: {self.residual.spec}"

    def __repr__(self) -> str:
        design = self.design
        groups = ", ".join(f"{len(t.levels)} {t.group}" for t in design.terms) or "no grouping factor"
        return f"<LMM {self}: {len(design.y)} rows, {groups}>"
