"""From what the user wrote to structures that know their data; where bad structures are refused."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ..design import Design
from ..errors import CovarianceError
from ..grouping import Term
from .assembly import Covariance, RandomTerm
from .correlation import AR1, CompoundSymmetry, Correlation, Independent, Rows, Unstructured
from .places import levels_in, log_covariate, note_gaps, order_of_rows, times_of
from .refusals import check_levels, check_pairs, check_places, check_subjects, check_sum
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

    parts: one structure a component; rows: the constants that each reads, arrays of length n; subject: code
    (n,) of the unit within which rows are correlated, None where all components are independent.
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
            "power='fitted': a standard deviation that depends on the fitted value depends on w, and then "
            "the marginal distribution of y is not normal and has no closed-form likelihood (nlme's "
            "varPower() of the fitted value is such a model). Name a positive covariate instead, as in "
            "Independent(power='Time')."
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
    """The residual structure on the rows of a design.

    Raises
    ------
    CovarianceError
        The data cannot carry the structure: see `refusals`; or no subject is named and none is to be found.
    DataError
        A time is no number, or a level is none.
    """
    check_sum(spec)
    design = replace(design, frame=design.frame.set_axis(design.rows))  # rows as in the user's table
    errors = [i for i, p in enumerate(spec) if isinstance(p, Independent)]
    name, subject = _subject(design, spec, needed=len(errors) < len(spec.parts))
    if subject is not None:
        check_subjects(subject, str(name), spec)
    error = next((p for p in spec if isinstance(p, Independent)), None)
    names = _sd_names(spec)
    bound = [_bind_part(design, p, n, subject, error) for p, n in zip(spec, names, strict=True)]
    if np.any(design.weights != 1):
        if not errors and len(bound) > 1:
            raise CovarianceError(
                f"weights= says which rows are measured how precisely, but {spec} has no measurement error: "
                "add `+ Independent()`."
            )
        i = errors[0] if errors else 0
        bound[i] = (bound[i][0], replace(bound[i][1], weight=design.weights))
    return BoundResidual(spec, tuple(b[0] for b in bound), tuple(b[1] for b in bound), subject, name)


def _sd_names(spec: ResidualSum) -> list[str]:
    """sigma for the independent error and for a residual of one block; sigma_serial for a process in time."""
    names: list[str] = []
    for part in spec:
        plain = not part.serial and not (len(spec.parts) > 1 and not isinstance(part, Independent))
        name = "sigma" if plain else "sigma_serial"
        count = sum(n == name or n.startswith(f"{name}_") for n in names)
        names.append(name if not count or name == "sigma" else f"{name}_{count + 1}")
    return names


def _subject(design: Design, spec: ResidualSum, *, needed: bool) -> tuple[str | None, np.ndarray | None]:
    """The unit within which rows are correlated: named, else the finest grouping factor of the bars."""
    named = {p.subject for p in spec if p.subject}
    if len(named) > 1:
        raise CovarianceError(
            f"One residual has one subject, found {sorted(named)}: name the same in every component."
        )
    if not needed:
        return None, None
    if named:
        name = named.pop()
        codes, _ = pd.factorize(design.frame[name], sort=True)
        return name, codes
    if not design.terms:
        raise CovarianceError(
            f"{spec} correlates rows within a subject, and the formula has no grouping factor to take it "
            "from: name it, as in Unstructured('visit', subject='id')."
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
    owner = np.zeros(int(inner.max(initial=0)) + 1, int)
    owner[inner] = outer
    return bool((owner[inner] == outer).all())


def _bind_part(
    design: Design, part: Correlation, name: str, subject: np.ndarray | None, error: Independent | None
) -> tuple[Structure, Rows]:
    levels, position, time = _places(design, part, subject, error)
    level = labels = dim = None
    if part.by is not None:
        labels, level = levels_in(design.frame, part.by)
        dim = part.by
        check_levels(part, labels, level)
    elif isinstance(part, Unstructured):
        labels, level, dim = levels, position, part.column
    log_x = None if part.power is None else log_covariate(design.frame, part)
    scale = Scale(name, labels, dim, log_x is not None)
    suffix = "" if not name.startswith("sigma_serial_") else name.removeprefix("sigma_serial")
    rows = Rows(
        position=np.zeros(len(design.y), int) if position is None else position,
        time=time,
        level=level,
        log_covariate=log_x,
    )
    return Structure(part, scale, levels, suffix), rows


def _places(
    design: Design, part: Correlation, subject: np.ndarray | None, error: Independent | None
) -> tuple[tuple[str, ...], np.ndarray | None, np.ndarray | None]:
    """(labels of positions, position of each row, time of each row): what orders the rows of a component."""
    if part.reads == "nothing":
        return (), None, None
    assert subject is not None
    if part.reads == "time":
        time = times_of(design.frame, part)
        check_places(design, part, subject, time, error=error)
        return (), None, time
    if part.column is None:
        if isinstance(part, Unstructured):
            raise CovarianceError("Unstructured() needs its visit column, as in Unstructured('visit').")
        levels, position = order_of_rows(subject)
    else:
        levels, position = levels_in(design.frame, part.column)
        note_gaps(design.frame, part)
    if len(levels) < 2:
        found = f"{part.column!r} has the single value {levels[0]}"
        raise CovarianceError(f"{part}: {found}; a correlation needs two.")
    check_places(design, part, subject, position, error=error)
    if isinstance(part, Unstructured):
        check_pairs(part, levels, subject, position)
    return levels, position, None
