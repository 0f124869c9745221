"""The command line: `compare` both readings of a model, `fit` the closed form only, list the `datasets`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .cli_commands import run_compare, run_datasets, run_fit
from .errors import BayesLMMError

_ABOUT = """\
One linear mixed model for repeated measurements, read in two ways:

  marginal       Y ~ N(X beta, Z G Z' + R)       fitted in closed form by REML: estimates, standard errors,
                                                 t tests, predictions of the random effects (EBLUPs)
  hierarchical   Y | w ~ N(X beta + Z w, R)      sampled with PyMC: a posterior for every parameter and for
                 w ~ N(0, G)                     every subject's own deviation w
"""

_EXAMPLES = """\
examples to copy:
  python -m bayeslmm datasets
  python -m bayeslmm fit sleepstudy
  python -m bayeslmm compare sleepstudy --out results
  python -m bayeslmm compare data.csv "y ~ time * group + (time | id)"
  python -m bayeslmm compare data.csv "y ~ time + (1 | id)" --residual "Exponential(time) + Independent()"
"""

_FORMULAS = """\
formulas:
  (1 | id)         an intercept of its own for each id        (time | id)     and a slope, correlated
  (time || id)     the same, uncorrelated                     (1 | a/b)       b nested in a
  a * b            main effects and interaction               C(x)            numbers as categories
"""

_COLUMNS = """\
columns of the tables:
  estimate, se     closed-form estimate and its standard error
  df               degrees of freedom of its t distribution
  mean, median, sd of the posterior draws
  lower, upper     confidence interval (REML or ML); equal-tailed interval (posterior)
  rhat             agreement of the chains: 1.01 or less is wanted
  ess_bulk, _tail  how many independent draws the chains are worth: 400 or more are wanted
  divergences      failures of the sampler to follow the posterior: none are wanted
"""

_RESIDUAL = """\
structures for --residual (they add; columns by name):
  Independent()  Independent(by=sex)  CompoundSymmetry(visit)  Unstructured(visit)  AR1(visit)
  Toeplitz(visit) Antedependence(visit)  Exponential(time)  Gaussian(time)  Matern32(time)  Matern52(time)
  Spherical(time) Each takes by= (its sd by level), power= (its sd a power of a column) and subject=.
"""


_DF = (
    "degrees of freedom: kenward-roger (default for REML), kenward-roger-linear, satterthwaite (default for "
    "ML), containment, between-within, residual, asymptotic"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 2 after an error of the input, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except BayesLMMError as error:
        return _complain(str(error))
    except OSError as error:
        return _complain(f"{error.filename or 'Output'}: {error.strerror or error}.")
    except KeyboardInterrupt:
        print("\nbayeslmm: stopped on request.", file=sys.stderr)
        return 130


def _complain(message: str) -> int:
    print(f"bayeslmm: {message}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m bayeslmm",
        description=_ABOUT,
        epilog=_EXAMPLES + "\n" + _COLUMNS,
        formatter_class=form,
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    compare = commands.add_parser("compare", help="fit by REML, sample the posterior, show both side by side",
                                  description=_ABOUT, formatter_class=form,
                                  epilog="\n".join([_EXAMPLES, _FORMULAS, _RESIDUAL, _COLUMNS]))  # fmt: skip
    fit = commands.add_parser("fit", help="fit by REML only, without PyMC", formatter_class=form,
                              description="Fit the marginal model in closed form.",
                              epilog="\n".join([_EXAMPLES, _FORMULAS, _RESIDUAL, _COLUMNS]))  # fmt: skip
    datasets = commands.add_parser(
        "datasets", help="list the bundled data sets with units and default models"
    )
    for command in (compare, fit):
        _add_model(command)
    _add_sampling(compare)
    compare.set_defaults(run=run_compare)
    fit.set_defaults(run=run_fit)
    datasets.set_defaults(run=run_datasets)
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help="a bundled data set, or a .csv, .tsv or .parquet file")
    parser.add_argument("formula", metavar="FORMULA", nargs="?", help="the model; a bundled data set has one")
    parser.add_argument(
        "--residual", metavar="TEXT", help="structure of the errors within subjects (see below)"
    )
    parser.add_argument(
        "--weights", metavar="COLUMN", help="known precision: the error variance is sigma^2/weight"
    )
    parser.add_argument("--units", metavar="TEXT", help="units for the plots, as in 'Reaction=ms, Days=day'")
    parser.add_argument("--method", default="REML", type=str.upper, choices=("REML", "ML"))
    parser.add_argument("--df", metavar="METHOD", help=_DF)


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sampler",
        default="collapsed",
        choices=("collapsed", "nuts", "both"),
        help="collapsed: exact integrals over w and fixed effects (default); nuts: PyMC on the program; both: side by side",
    )
    parser.add_argument(
        "--draws", metavar="N", type=_positive, default=1000, help="draws kept per chain (1000)"
    )
    parser.add_argument("--tune", metavar="N", type=_positive, default=1000, help="draws for tuning (1000)")
    parser.add_argument("--chains", metavar="N", type=_positive, default=4, help="independent chains (4)")
    parser.add_argument(
        "--target-accept", metavar="X", type=float, help="of NUTS, below 1: against divergences"
    )
    parser.add_argument(
        "--seed", metavar="N", type=int, help="random seed; without it one is drawn and shown"
    )
    parser.add_argument(
        "--out", metavar="DIR", help="write report.html, posterior.nc and the tables as CSV there"
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a positive number")
    return value


def _version() -> str:
    from . import __version__

    return f"bayeslmm {__version__}"
