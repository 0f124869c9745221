"""From what the user wrote to structures that know their data; where bad structures are refused."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ..design import Design, Term
from ..errors import CovarianceError, DataError
from .assembly import Covariance, RandomTerm
from .correlation import AR1, CompoundSymmetry, Correlation, Independent, Rows, Unstructured
from .scale import Scale
from .structure import ResidualSum, Structure

_BLOCKS: dict[str, type[Correlation]] = {
    "free": Unstructured,
    "diag": Independent,
    "cs": CompoundSymmetry,
    "ar1": AR1,
}


@dataclass(frozen=True)
class BoundResidual:
    """The residual structure on the rows of a design.

    parts: one structure a component; rows: the constants that each reads, arrays of length n; subject: code (n,) of
    the unit within which rows are correlated, None where all components are independent; weighted: the component
    that known weights apply to.
    """

    spec: ResidualSum
    parts: tuple[Structure, ...]
    rows: tuple[Rows, ...]
    subject: np.ndarray | None
    subject_name: str | None


def residual_columns(spec: ResidualSum) -> tuple[str, ...]:
    """The columns of the table that a residual structure reads."""
    if any(p.power in ("fitted", "fitted(.)") for p in spec):
        raise CovarianceError(
            "power='fitted': a standard deviation that depends on the fitted value depends on w, and then the marginal "
            "distribution of y is not normal and has no closed-form likelihood (nlme's varPower() of the fitted value "
            "is such a model). Name a positive covariate instead, as in Independent(power='Time')."
        )
    found = [c for part in spec for c in (part.column, part.subject, part.by, part.power) if c]
    return tuple(dict.fromkeys(found))


def bind(design: Design, spec: ResidualSum, *, signed: bool = False) -> tuple[Covariance, BoundResidual]:
    """Structures for every grouping factor and every residual component of a design."""
    random = tuple(_random_term(t, signed) for t in design.terms)
    residual = bind_residual(design, spec)
    return Covariance(random, residual.parts), residual


def _random_term(term: Term, signed: bool) -> RandomTerm:
    blocks = []
    correlated = [b for b in term.blocks if b.kind != "diag" and len(b.columns) > 1]
    common = [b for b in term.blocks if b.homogeneous and len(b.columns) > 1]
    for number, block in enumerate(term.blocks, 1):
        effects = tuple(term.effects[c] for c in block.columns)
        homogeneous = block.homogeneous and len(effects) > 1
        kind = Unstructured() if len(effects) == 1 and block.kind != "diag" else _BLOCKS[block.kind]()
        own = f"_{number}" if len(term.blocks) > 1 else ""
        scale = Scale(
            f"sd_{term.group}{own if common else ''}", None if homogeneous else effects, dim="effect"
        )
        suffix = f"_{term.group}{own if len(correlated) > 1 or (own and block in correlated) else ''}"
        blocks.append((Structure(kind, scale, effects, suffix, signed), tuple(block.columns)))
    return RandomTerm(term.group, term.effects, tuple(blocks))


# --- the residual -----------------------------------------------------------------------------------------


def bind_residual(design: Design, spec: ResidualSum) -> BoundResidual:
    correlated = [p for p in spec if not isinstance(p, Independent)]
    if sum(isinstance(p, Independent) for p in spec) > 1:
        raise CovarianceError("Two Independent() components cannot be told apart: keep one.")
    name, subject = _subject(design, spec, bool(correlated))
    nugget = len(correlated) < len(spec.parts)
    names = _sd_names(spec)
    weighted = next((i for i, p in enumerate(spec) if isinstance(p, Independent)), None)
    bound = [_bind_part(design, p, names[i], subject, nugget) for i, p in enumerate(spec)]
    if np.any(design.weights != 1):
        if weighted is None and len(bound) > 1:
            raise CovarianceError(
                f"weights= says which rows are measured how precisely, but {spec} has no measurement error: "
                "add `+ Independent()`."
            )
        i = weighted or 0
        bound[i] = (bound[i][0], replace(bound[i][1], weight=design.weights))
    return BoundResidual(spec, tuple(b[0] for b in bound), tuple(b[1] for b in bound), subject, name)


def _sd_names(spec: ResidualSum) -> list[str]:
    """sigma for the independent error and for a residual that is one block; sigma_serial for a process in time."""
    names: list[str] = []
    for part in spec:
        plain = not part.serial and not (len(spec.parts) > 1 and not isinstance(part, Independent))
        name = "sigma" if plain else "sigma_serial"
        count = sum(n == name or n.startswith(f"{name}_") for n in names)
        names.append(name if not count or name == "sigma" else f"{name}_{count + 1}")
    return names


def _subject(design: Design, spec: ResidualSum, needed: bool) -> tuple[str | None, np.ndarray | None]:
    """The unit within which rows are correlated: named, else the finest grouping factor of the random effects."""
    named = {p.subject for p in spec if p.subject}
    if len(named) > 1:
        raise CovarianceError(f"One residual has one subject, found {sorted(named)}: name the same in every component.")
    if not needed:
        return None, None
    if named:
        name = named.pop()
        codes, _ = pd.factorize(design.frame[name], sort=True)
        return name, codes
    if not design.terms:
        raise CovarianceError(
            f"{spec} correlates rows within a subject, and the formula has no grouping factor to take it from: "
            "name it, as in Unstructured('visit', subject='id')."
        )
    finest = [t for t in design.terms if all(nested(t.codes, u.codes) for u in design.terms)]
    if not finest:
        groups = ", ".join(t.group for t in design.terms)
        raise CovarianceError(
            f"{spec} correlates rows within a subject, but the grouping factors {groups} are crossed: "
            "say within which one, as in AR1('visit', subject=...)."
        )
    return finest[0].group, finest[0].codes


def nested(inner: np.ndarray, outer: np.ndarray) -> bool:
    """Whether every level of `inner` lies in one level of `outer`."""
    pairs = np.unique(inner.astype(np.int64) * (int(outer.max(initial=0)) + 1) + outer)
    return pairs.size == np.unique(inner).size


def _bind_part(design, part, name, subject, nugget) -> tuple[Structure, Rows]:
    levels, position, time = _places(design, part, subject, nugget)
    level = labels = dim = None
    if part.by is not None:
        labels, level = _levels(design.frame, part.by)
        dim = part.by
        _enough_rows(labels, level, part)
    elif isinstance(part, Unstructured):
        labels, level, dim = levels, position, part.column
    log_x = None if part.power is None else _log_covariate(design, part)
    scale = Scale(name, labels, dim, log_x is not None)
    suffix = "" if not name.startswith("sigma_serial_") else name.removeprefix("sigma_serial")
    rows = Rows(
        position=np.zeros(len(design.y), int) if position is None else position,
        time=time,
        level=level,
        log_covariate=log_x,
    )
    return Structure(part, scale, levels, suffix), rows


def _places(design: Design, part: Correlation, subject, nugget: bool):
    """(labels of positions, position of each row, time of each row): what orders the rows of a component."""
    if part.reads == "nothing":
        return (), None, None
    if part.reads == "time":
        time = _time(design, part)
        _no_ties(design, part, subject, time, nugget)
        return (), None, time
    if part.column is None:
        if isinstance(part, Unstructured):
            raise CovarianceError("Unstructured() needs its visit column, as in Unstructured('visit').")
        position = pd.Series(subject).groupby(subject).cumcount().to_numpy()
        return tuple(map(str, range(1, position.max() + 2))), position, None
    levels, position = _levels(design.frame, part.column)
    if len(levels) < 2:
        raise CovarianceError(f"{part}: {part.column!r} has the single value {levels[0]}; a correlation needs two.")
    _no_ties(design, part, subject, position, nugget)
    if isinstance(part, Unstructured):
        _enough_pairs(design, part, subject, levels, position)
    return levels, position, None


def _levels(frame: pd.DataFrame, column: str) -> tuple[tuple[str, ...], np.ndarray]:
    """Occurring levels in their order (categorical order, else sorted), and each row's level."""
    categories = frame[column].astype("category").cat.remove_unused_categories().cat
    labels = [str(int(c)) if isinstance(c, float) and c.is_integer() else str(c) for c in categories.categories]
    return tuple(labels), categories.codes.to_numpy().astype(int)


def _time(design: Design, part: Correlation) -> np.ndarray:
    if part.column is None:
        raise CovarianceError(f"{type(part).__name__} needs its time column, as in {type(part).__name__}('time').")
    values = design.frame[part.column]
    if pd.api.types.is_datetime64_any_dtype(values) or pd.api.types.is_timedelta64_dtype(values):
        raise DataError(
            f"The time column {part.column!r} holds dates ({values.dtype}); a range needs a unit. Turn it into numbers, "
            f"e.g. data[{part.column!r}] = (data[{part.column!r}] - data[{part.column!r}].min()).dt.days."
        )
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        raise DataError(
            f"The time column {part.column!r} is not numeric ({values.dtype}); {type(part).__name__} needs numbers. For "
            "ordered visits use AR1, Toeplitz or Unstructured."
        )
    return values.to_numpy(float)


def _no_ties(design, part, subject, place, nugget) -> None:
    """Two rows of one subject at one place are perfectly correlated: V is singular without measurement error."""
    if nugget:
        return
    keys = pd.DataFrame({"subject": subject, "place": place})
    tied = keys.duplicated(keep=False).to_numpy()
    if tied.any():
        first = keys[tied].iloc[0]
        rows = design.rows[(keys["subject"].eq(first["subject"]) & keys["place"].eq(first["place"])).to_numpy()]
        value = design.frame[part.column].iloc[int(np.flatnonzero(tied)[0])]
        raise CovarianceError(
            f"Rows {', '.join(map(str, rows[:4]))} are one subject's at the same {part.column} = {value}: under {part} "
            "their correlation is 1 and V is singular. Add measurement error (`+ Independent()`) or remove the "
            f"duplicates ({int(tied.sum())} rows are concerned)."
        )


def _enough_rows(labels, level, part) -> None:
    count = np.bincount(level, minlength=len(labels))
    if (count < 2).any():
        alone = [labels[i] for i in np.flatnonzero(count < 2)]
        raise CovarianceError(
            f"{part}: level {', '.join(alone)} of {part.by!r} has one row, which cannot tell its variance: merge levels "
            "or drop by=."
        )


def _enough_pairs(design, part, subject, levels, position) -> None:
    m = len(levels)
    seen = np.zeros((int(subject.max()) + 1, m))
    seen[subject, position] = 1
    together = seen.T @ seen
    i, j = np.nonzero(together == 0)
    if i.size:
        raise CovarianceError(
            f"{part}: no subject was seen at both {levels[i[0]]} and {levels[j[0]]}, so their covariance cannot be "
            f"estimated ({i.size // 2 or 1} such pairs). Use a structure with fewer parameters, such as Toeplitz or AR1."
        )
    if len(seen) <= m:
        raise CovarianceError(
            f"{part}: {m} visits need {m * (m + 1) // 2} parameters and there are {len(seen)} subjects: the estimate "
            "would be singular. Use a structure with fewer parameters, such as AR1 or Toeplitz."
        )


def _log_covariate(design: Design, part: Correlation) -> np.ndarray:
    values = design.frame[part.power]
    if not pd.api.types.is_numeric_dtype(values) or not (values.to_numpy(float) > 0).all():
        raise CovarianceError(f"{part}: power= needs a column of positive numbers, and {part.power!r} is not one.")
    return np.log(values.to_numpy(float))
