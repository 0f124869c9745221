"""Rows to condition on and rows to predict, as one set of arrays."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..covariance.correlation import Independent, Rows
from ..covariance.newrows import bind_new_rows, extend_codes, subject_labels, text_labels
from ..design import Term
from ..errors import DataError
from .partition import partition

if TYPE_CHECKING:
    from ..model import LMM
    from ..newdata import NewRows


@dataclass(frozen=True)
class Stacked:
    """Observed rows first, then targets.

    X (n, p); y (observed,) without its offset; offset (n,); per grouping factor Z (n, q) and codes (n,)
    into `levels` (their number); rows: one a residual component; subject (n,) of the residual or None;
    block (n,) within which rows are correlated once the `crossed` terms are set aside.
    """

    X: np.ndarray
    y: np.ndarray
    offset: np.ndarray
    Z: tuple[np.ndarray, ...]
    codes: tuple[np.ndarray, ...]
    levels: tuple[int, ...]
    rows: tuple[Rows, ...]
    subject: np.ndarray | None
    block: np.ndarray
    within: tuple[int, ...]
    crossed: tuple[int, ...]

    @property
    def observed(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Extra:
    """Rows that were not in the fit: arrays of one length, codes extended by new levels."""

    X: np.ndarray
    y: np.ndarray | None
    offset: np.ndarray
    Z: tuple[np.ndarray, ...]
    codes: tuple[np.ndarray, ...]
    rows: tuple[Rows, ...]
    subject: np.ndarray | None


def stack_new(model: LMM, given: NewRows | None, targets: NewRows) -> Stacked:
    """The fit's rows and those `given`, to condition on, and the targets.

    Raises DataError for rows that the residual cannot place, and for two observations of one place.
    """
    design, residual = model.design, model.residual
    new = [x for x in (given, targets) if x is not None]
    codes, levels = [], []
    for i, term in enumerate(design.terms):
        extended, names = extend_codes(list(term.levels), np.concatenate([x.labels[i] for x in new]))
        codes.append(_split(extended, new))
        levels.append(len(names))
    subject = _subjects(model, new, codes)
    earlier = np.zeros(0, int)
    if residual.subject is not None:
        count = 1 + max(int(residual.subject.max()), *(int(s.max()) for s in subject))
        earlier = np.bincount(residual.subject, minlength=count)
    extras = []
    for k, x in enumerate(new):
        s = None if residual.subject is None else subject[k]
        rows = bind_new_rows(design, residual, x.frame, s, earlier)
        if s is not None:
            earlier = earlier + np.bincount(s, minlength=len(earlier))
        extras.append(Extra(x.X, x.y, x.offset, x.Z, tuple(c[k] for c in codes), rows, s))
    return stack(model, extras[0] if given is not None else None, extras[-1], tuple(levels))


def _split(values: np.ndarray, new) -> list[np.ndarray]:
    return np.split(values, np.cumsum([len(x.X) for x in new])[:-1])


def _subjects(model: LMM, new, codes) -> list[np.ndarray]:
    """The residual's subject of each new row, extended."""
    residual, design = model.residual, model.design
    if residual.subject is None:
        return []
    i = next((i for i, t in enumerate(design.terms) if t.codes is residual.subject), None)
    if i is not None:
        return codes[i]
    name = residual.subject_name
    assert name is not None
    for x in new:
        if name not in x.frame:
            raise DataError(f"The new data have no column {name!r}, the subject of the residual {residual.spec}.")
    labels = np.concatenate([text_labels(x.frame[name], name) for x in new])
    return _split(extend_codes(list(subject_labels(design, residual)), labels)[0], new)


def stack_fit(model: LMM) -> Stacked:
    """The fit's rows twice: to condition on, and as targets."""
    d, r = model.design, model.residual
    own = Extra(d.X, None, d.offset, tuple(t.Z for t in d.terms), tuple(t.codes for t in d.terms), r.rows, r.subject)
    return stack(model, None, own, tuple(len(t.levels) for t in d.terms))


def stack(model: LMM, given: Extra | None, targets: Extra, levels: tuple[int, ...]) -> Stacked:
    """Put the arrays of the fit, of further observations and of targets after one another."""
    d, residual = model.design, model.residual
    parts = [x for x in (given, targets) if x is not None]
    join = lambda first, more: np.concatenate([first, *more])  # noqa: E731
    X = join(d.X, [x.X for x in parts])
    y = d.y - d.offset
    if given is not None:
        assert given.y is not None
        y = np.concatenate([y, given.y - given.offset])
    Z = tuple(join(t.Z, [x.Z[i] for x in parts]) for i, t in enumerate(d.terms))
    codes = tuple(join(t.codes, [x.codes[i] for x in parts]) for i, t in enumerate(d.terms))
    rows = tuple(_join_rows([r, *(x.rows[k] for x in parts)]) for k, r in enumerate(residual.rows))
    subject = None if residual.subject is None else join(residual.subject, [x.subject for x in parts])
    found = _partition(model, Z, codes, levels, subject, len(X))
    out = Stacked(X, y, join(d.offset, [x.offset for x in parts]), Z, codes, levels, rows, subject,
                  found.codes, found.within, found.crossed)  # fmt: skip
    if given is not None:
        _no_ties(model, out)
    return out


def _join_rows(parts: list[Rows]) -> Rows:
    arrays = {f.name: [getattr(r, f.name) for r in parts] for f in fields(Rows)}
    return Rows(**{k: None if a[0] is None else np.concatenate(a) for k, a in arrays.items()})


def _partition(model: LMM, Z, codes, levels, subject, n: int):
    terms = tuple(
        Term(t.group, t.columns, np.arange(k), c, t.effects, z, t.blocks)
        for t, z, c, k in zip(model.design.terms, Z, codes, levels, strict=True)
    )
    residual = replace(model.residual, subject=subject)
    diagonal = all(isinstance(p.correlation, Independent) for p in residual.parts)
    return partition(terms, residual, diagonal, n)


def _no_ties(model: LMM, rows: Stacked) -> None:
    """A place observed twice without measurement error has a singular V."""
    if rows.subject is None or any(p.diagonal for p in model.residual.parts):
        return
    r = rows.rows[0]
    place = r.position if r.time is None else r.time
    assert place is not None
    keys = pd.DataFrame({"subject": rows.subject, "place": place}).iloc[: rows.observed]
    tied = np.flatnonzero(keys.duplicated().to_numpy())
    if tied.size:
        raise DataError(
            f"Row {int(tied[0]) - len(model.design.y)} of condition_on is at a place where its subject is "
            f"already observed ({model.residual.spec.parts[0].column} = {place[tied[0]]:g}), and "
            f"{model.residual.spec} has no measurement error that could tell the two values apart: leave "
            "out rows that the fit has seen."
        )


def observed_only(model: LMM) -> Stacked:
    """The fit's rows, without targets."""
    d, r = model.design, model.residual
    Z, codes = tuple(t.Z for t in d.terms), tuple(t.codes for t in d.terms)
    levels = tuple(len(t.levels) for t in d.terms)
    found = _partition(model, Z, codes, levels, r.subject, len(d.y))
    return Stacked(d.X, d.y - d.offset, d.offset, Z, codes, levels, r.rows, r.subject,
                   found.codes, found.within, found.crossed)  # fmt: skip
