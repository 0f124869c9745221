"""What the commands do: from parsed arguments to output. Heavy imports wait until a command needs them."""

from __future__ import annotations

import argparse
import logging
import secrets
import time
import warnings
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import DataError

if TYPE_CHECKING:
    from rich.console import Console

    from .model import LMM
    from .results import Fit


def run_datasets(options: argparse.Namespace) -> int:
    """List the bundled data sets with units, default models and sources."""
    from .cli_output import make_console
    from .datasets import dataset_names, describe

    console = make_console()
    for name in dataset_names():
        record = describe(name)
        units = ", ".join(f"{column} ({unit})" for column, unit in record.units.items())
        console.print(f"[bold]{name}[/bold]  {record.title}: {record.rows} rows; {units}")
        residual = f"   --residual '{record.residual}'" if record.residual else ""
        console.print(f"    {record.formula}{residual}", style="blue", markup=False)
        console.print(f"    {record.source}", style="dim", markup=False)
    return 0


def run_fit(options: argparse.Namespace) -> int:
    """Fit in closed form and show the estimates."""
    from .cli_output import make_console, show_table
    from .comparison_tables import natural_intervals
    from .comparison_text import interval_words

    console = make_console()
    fit = _fitted(_model(options, console), options, console)
    table = fit.summary(options.df)

    words = interval_words(table.attrs["level"], table.attrs["df"])
    show_table(console, table, "Fixed effects", f"{words['fixed']}.")
    show_table(console, natural_intervals(fit, 0.95), "Variance parameters", f"{words['variance']}.")
    return 0


def run_compare(options: argparse.Namespace) -> int:
    """Fit, sample, show both side by side, and write the report where asked."""
    from .cli_output import make_console, show_comparison, write_files
    from .comparison import compare

    console = make_console()
    folder = _folder(options.out)
    model = _model(options, console)
    fit = _fitted(model, options, console)
    fit.summary(options.df)  # an unknown method is refused before the sampling
    seed = options.seed if options.seed is not None else _seed()
    posteriors = [_sampled(model, options, name, seed, console) for name in _samplers(options)]
    comparison = compare(fit, *posteriors, df=options.df)
    show_comparison(console, comparison)
    if folder is not None:
        with console.status("Writing the report"):
            written = write_files(comparison, folder, _code(options, seed))
        console.print(f"\nWritten to {folder}: {', '.join(p.name for p in written)}", markup=False)
    return 0


def _model(options: argparse.Namespace, console: Console) -> LMM:
    """The model of the arguments: of a bundled data set with its defaults, or of a file and a formula."""
    from .cli_input import parse_residual, parse_units, read_table
    from .datasets import dataset_names, describe, load_dataset
    from .model import LMM

    formula, residual = options.formula, options.residual
    if options.data in dataset_names():
        record, data = describe(options.data), load_dataset(options.data)
        residual = residual if residual or formula else record.residual
        formula = formula or record.formula
    else:
        data = read_table(options.data)
        if not formula:
            raise DataError(
                f"{options.data} needs a formula, such as 'y ~ time + (time | id)'; its columns are "
                f"{', '.join(map(str, data.columns))}."
            )
    if options.units:
        data.attrs["units"] = {**data.attrs.get("units", {}), **parse_units(options.units)}
    spec = parse_residual(residual) if residual else None
    model = _noted(lambda: LMM(formula, data, residual=spec, weights=options.weights), console)
    design = model.design
    console.print(f"{model.formula.text}\nresidual: {model.residual.spec}", markup=False)
    groups = "".join(f"; {len(t.levels)} levels of {t.group}" for t in design.terms)
    console.print(f"{len(design.y)} rows{groups}", markup=False)
    return model


def _fitted(model: LMM, options: argparse.Namespace, console: Console) -> Fit:
    import_module(".results", __package__)  # not to be counted in the time of the fit

    start = time.perf_counter()
    with console.status(f"Fitting by {options.method}"):
        fit: Fit = _noted(lambda: model.fit(options.method), console)
    took = time.perf_counter() - start
    said = f"{fit.method} log-likelihood {fit.loglik:.4f}. {fit.convergence.message}"
    console.print(f"{said} ({took:.2f} s)", markup=False)
    return fit


def _samplers(options: argparse.Namespace) -> tuple[str, ...]:
    return ("collapsed", "nuts") if options.sampler == "both" else (options.sampler,)


def _sampled(model: LMM, options: argparse.Namespace, sampler: str, seed: int, console: Console) -> Any:
    from .cli_output import signs_of_life
    from .hierarchical.interrupts import interruptible

    tuning = f"{options.tune} + " if sampler == "nuts" else ""
    plan = f"{options.chains} chains of {tuning}{options.draws} draws, seed {seed}"
    console.print(f"\nSampling by {sampler}: {plan}", markup=False)
    logger = logging.getLogger("pymc")
    start = time.perf_counter()
    logger.addFilter(_errors_only)
    try:
        with interruptible(), signs_of_life(console, "sampling"):
            posterior = _noted(
                lambda: model.sample(
                    sampler, **_sampling(options, sampler, seed), progressbar=console.is_terminal
                ),
                console,
            )
    finally:
        logger.removeFilter(_errors_only)
    console.print(f"Done in {time.perf_counter() - start:.1f} s, compiling included.")
    return posterior


def _errors_only(record: logging.LogRecord) -> bool:
    """What PyMC says and warns of while it samples stands in the diagnostics."""
    return record.levelno >= logging.ERROR


def _sampling(options: argparse.Namespace, sampler: str, seed: int) -> dict[str, Any]:
    """Arguments of `LMM.sample`, as the command was given them; tuning is NUTS's alone."""
    asked = {"draws": options.draws, "chains": options.chains, "random_seed": seed}
    if sampler != "nuts":
        return asked
    asked["tune"] = options.tune
    return asked | ({"target_accept": options.target_accept} if options.target_accept else {})


def _noted(action: Any, console: Console) -> Any:
    """Run something and show its warnings as notes."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = action()
    for text in dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, UserWarning)):
        console.print(f"Note: {text}", style="yellow", markup=False)
    return result


def _folder(out: str | None) -> Path | None:
    """The output folder, tried before anything long is started."""
    if out is None:
        return None
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _seed() -> int:
    return secrets.randbelow(2**31)


def _code(options: argparse.Namespace, seed: int) -> str:
    """The Python program that does what the command did."""
    from .cli_input import parse_residual
    from .datasets import dataset_names, describe

    bundled = options.data in dataset_names()
    record = describe(options.data) if bundled else None
    formula = options.formula or (record.formula if record else "")
    residual = options.residual or (record.residual if record and not options.formula else None)
    reader = "read_parquet" if options.data.lower().endswith((".parquet", ".pq")) else "read_csv"
    lines = ["import bayeslmm as bl", *([] if bundled else ["import pandas as pd"]), ""]
    lines += [
        f"data = bl.load_dataset({options.data!r})" if bundled else f"data = pd.{reader}({options.data!r})"
    ]
    words = [repr(formula), "data"]
    words += [f"residual={' + '.join(f'bl.{part}' for part in parse_residual(residual))}"] if residual else []
    words += [f"weights={options.weights!r}"] if options.weights else []
    lines += [f"model = bl.LMM({', '.join(words)})", f"fit = model.fit({options.method!r})"]
    names: list[str] = []
    for sampler in _samplers(options):
        given = ", ".join(f"{k}={v!r}" for k, v in _sampling(options, sampler, seed).items())
        names.append("posterior" if not names else sampler)
        lines += [f"{names[-1]} = model.sample({sampler!r}, {given})"]
    df = f", df={options.df!r}" if options.df else ""
    return "\n".join([*lines, f"print(bl.compare(fit, {', '.join(names)}{df}))"])
