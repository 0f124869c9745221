"""Whether one model is a special case of another, and where in the larger one it lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import optimize

from ..covariance.assembly import RandomTerm, term_rows
from ..covariance.binding import BoundResidual
from ..covariance.correlation import Rows
from ..covariance.structure import Structure
from ..design import Term
from ..errors import InferenceError
from ..parameters import Interval

if TYPE_CHECKING:
    from ..model import LMM
    from ..results import Fit

_CLOSE = 1e-6
_SUBJECTS = 40  # subjects whose residual covariance is compared


@dataclass(frozen=True)
class Embedding:
    """The small model inside the large one.

    θ: linear coordinates of the large model that give the small one's V, in the units of the data; cones:
    for each set of effects that the small model leaves out, the coordinates of their variances and
    covariances, which it sets to zero; free: further parameters that it fixes inside the space; mean:
    coefficients; lost: parameters of the large model that mean nothing in the small one (the range of a
    process with variance zero); tested: in words.
    """

    θ: np.ndarray
    cones: tuple[np.ndarray, ...]
    free: int
    mean: int
    lost: tuple[str, ...]
    tested: tuple[str, ...]


@dataclass(frozen=True)
class _Piece:
    θ: np.ndarray
    cones: tuple[np.ndarray, ...] = ()
    lost: tuple[str, ...] = ()
    tested: tuple[str, ...] = ()
    named: int = 0  # free parameters that `tested` speaks of


def embed(small: Fit, large: LMM) -> Embedding:
    """Find the small model's fit inside the large model.

    Raises InferenceError with the reason where the small model is not a special case of the large one.
    """
    mean, words = _means(small.model, large)
    covariance, unit = small.model.covariance, small.estimate.blocks.unit
    moved = covariance.working_from_linear(small.estimate.θ / unit) * 1.1 + 0.05
    generic = covariance.linear_from_working(moved) * unit
    _covariance(small.model, generic, large)  # nested not only where the fit happens to be
    piece = _covariance(small.model, small.estimate.θ, large)
    cone = sum(len(c) for c in piece.cones)
    free = large.covariance.size - small.model.covariance.size - cone
    if free < 0 or mean + cone + free + len(piece.lost) == 0:
        raise InferenceError(
            "The models are the same, or the first one is the larger: pass the null model first, as in "
            "lrt(small, large)."
        )
    if free > piece.named and not piece.lost:
        more = free - piece.named
        words += (f"{more} restriction{'s' * (more > 1)} of the covariance inside its space",)
    return Embedding(piece.θ, piece.cones, free, mean, piece.lost, piece.tested + words)


def _means(small: LMM, large: LMM) -> tuple[int, tuple[str, ...]]:
    Q = np.linalg.qr(large.design.X)[0]
    X = small.design.X
    outside = np.linalg.norm(X - Q @ (Q.T @ X), axis=0) > 1e-7 * np.maximum(np.linalg.norm(X, axis=0), 1e-300)
    if outside.any():
        names = [c for c, o in zip(small.design.coefs, outside, strict=True) if o]
        raise InferenceError(
            f"The models are not nested: the fixed effects of the first have {', '.join(names)}, which "
            "those of the second cannot express. Add it to the second, or compare the two by criteria "
            "with compare_models."
        )
    extra = large.design.X.shape[1] - X.shape[1]
    if not extra:
        return 0, ()
    only = [c for c in large.design.coefs if c not in small.design.coefs]
    return extra, (
        f"zero coefficients {', '.join(only)}" if len(only) == extra else f"{extra} zero coefficients",
    )


def _covariance(small: LMM, θ: np.ndarray, large: LMM) -> _Piece:
    pieces = []
    terms = list(zip(small.design.terms, small.covariance.G(θ), small.covariance.random, strict=True))
    for term, bound in zip(large.design.terms, large.covariance.random, strict=True):
        own = [x for x in terms if np.array_equal(x[0].codes, term.codes)]
        terms = [x for x in terms if not np.array_equal(x[0].codes, term.codes)]
        pieces.append(_term(term, bound, *(own[0] if own else (None, None, None))))
    if terms:
        raise InferenceError(
            f"The models are not nested: the first has random effects of {terms[0][0].group}, the second "
            "none. A test needs all of the first model's terms in the second."
        )
    pieces.append(_residual(small, θ[small.covariance.residual_slices()[0].start :], large))
    start, cones = 0, []
    for p in pieces:
        cones += [c + start for c in p.cones]
        start += len(p.θ)
    return _Piece(
        np.concatenate([p.θ for p in pieces]),
        tuple(cones),
        tuple(x for p in pieces for x in p.lost),
        tuple(x for p in pieces for x in p.tested),
        sum(p.named for p in pieces),
    )


def _term(
    term: Term, bound: RandomTerm, own: Term | None, G: np.ndarray | None, own_bound: RandomTerm | None
) -> _Piece:
    q = len(term.effects)
    place = _columns(own, term)
    target = np.zeros((q, q))
    if G is not None:
        target[np.ix_(place, place)] = G
    θ, cones, lost, tested = [], [], [], []
    start = named = 0
    for structure, columns in bound.blocks:
        block = target[np.ix_(columns, columns)]
        missing = np.array([k for k, c in enumerate(columns) if c not in place], int)
        values, cone, gone = _block(structure, block, missing)
        θ.append(values)
        cones += [c + start for c in cone]
        lost += gone
        names = [structure.positions[k] for k in missing]
        if names:
            others = structure.free and q > 1
            tested.append(
                f"zero variance of {', '.join(names)} of {term.group}"
                + (" with its covariances" if others else "")
            )
            named += len(missing) * (len(columns) - len(missing)) if structure.free else 0
        start += structure.size
    flat = np.concatenate(θ)
    if np.abs(bound.matrix(flat) - target).max() > _CLOSE * max(np.abs(target).max(), 1e-300):
        raise InferenceError(
            f"The models are not nested: the covariance of the effects of {term.group} in the first "
            "cannot be written in the structure of the second (correlated effects, for instance, not in "
            "a diagonal one)."
        )
    return _Piece(flat, tuple(cones), tuple(lost), tuple(tested), named)


def _columns(own: Term | None, term: Term) -> list[int]:
    """Which columns of a term are those of the small model's term."""
    if own is None:
        return []
    found = []
    for z, name in zip(own.Z.T, own.effects, strict=True):
        same = [k for k in range(term.Z.shape[1]) if np.allclose(term.Z[:, k], z, rtol=1e-10, atol=0)]
        if not same:
            raise InferenceError(
                f"The models are not nested: the random effect {name} of {own.group} is in the first and "
                "not in the second."
            )
        found.append(same[0])
    return found


def _block(structure: Structure, target: np.ndarray, missing: np.ndarray):
    """(θ, cones, lost parameters) of one bar for the matrix it has to give."""
    q = len(target)
    i, j = np.tril_indices(q, -1)
    everything = len(missing) == q
    if structure.free:
        inside = np.isin(i, missing) & np.isin(j, missing)
        cone = np.concatenate([missing, q + np.flatnonzero(inside)])
        return np.concatenate([np.diag(target), target[i, j]]), [cone] if len(missing) else [], []
    if structure.diagonal:
        if structure.scale.labels is not None:
            return np.diag(target).copy(), [np.array([k]) for k in missing], []
        return np.array([target[0, 0]]), [np.array([0])] if everything else [], []
    if everything:
        names = [n for p in structure.parameters[1:] for n in p.full_names()]
        θ = structure.linear_from_natural(_guess(structure, 0.0))
        return θ, [np.arange(structure.scale.levels)], names
    return _solve(structure, [(target[None], term_rows(q))]), [], []


# --- residuals --------------------------------------------------------------------------------------------


def _residual(small: LMM, θ: np.ndarray, large: LMM) -> _Piece:
    a, b = small.residual, large.residual
    if a.subject is not None and b.subject is not None and not np.array_equal(a.subject, b.subject):
        raise InferenceError(
            f"The models are not nested: residuals are correlated within {a.subject_name} and within "
            f"{b.subject_name}."
        )
    ends = np.cumsum([s.size for s in a.parts])
    values = [θ[e - s.size : e] for e, s in zip(ends, a.parts, strict=True)]
    left = list(range(len(a.parts)))
    found: dict[int, _Piece] = {}
    for k, part in enumerate(b.parts):
        same = [
            i
            for i in left
            if str(a.parts[i].correlation) == str(part.correlation) and a.parts[i].size == part.size
        ]
        if same:
            left.remove(same[0])
            found[k] = _Piece(values[same[0]])
    for k, part in enumerate(b.parts):
        if k in found:
            continue
        if left:
            i = left.pop(0)
            found[k] = _general(a, i, values[i], b, k)
        elif part.diagonal and part.scale.labels is None:
            found[k] = _Piece(
                np.zeros(part.size), (np.array([0]),), (), ("zero variance of the independent error",)
            )
        else:
            names = tuple(n for p in part.parameters if p.role != "sd" for n in p.full_names())
            zero = part.linear_from_natural(_guess(part, 0.0))
            found[k] = _Piece(
                zero, (np.arange(part.scale.levels),), names, (f"zero variance of {part.correlation}",)
            )
    if left:
        raise InferenceError(
            f"The models are not nested: the residual of the first, {a.spec}, has a component that the "
            f"second, {b.spec}, has not."
        )
    return _Piece(
        np.concatenate([found[k].θ for k in range(len(b.parts))]),
        tuple(
            c + sum(b.parts[m].size for m in range(k)) for k in range(len(b.parts)) for c in found[k].cones
        ),
        tuple(x for k in range(len(b.parts)) for x in found[k].lost),
        tuple(x for k in range(len(b.parts)) for x in found[k].tested),
    )


def _general(a: BoundResidual, i: int, θ: np.ndarray, b: BoundResidual, k: int) -> _Piece:
    """A component of the large residual that has to give a different component of the small one."""
    part = b.parts[k]
    ranges = tuple(n for p in part.parameters if p.role == "range" for n in p.full_names())
    if ranges and a.parts[i].diagonal:
        zero = part.linear_from_natural(_guess(part, float(np.sqrt(θ[0]))))
        return _Piece(zero, (), ranges, (f"no correlation of {part.correlation}",))
    subject = b.subject if b.subject is not None else a.subject
    codes = np.arange(_count(a.rows[i])) if subject is None else subject
    targets = [
        (a.parts[i].matrix(θ, _take(a.rows[i], index, a.subject)), _take(b.rows[k], index, b.subject))
        for index in _sample(codes)
    ]
    try:
        return _Piece(_solve(part, targets))
    except InferenceError:
        raise InferenceError(
            f"The models are not nested: {part.correlation} of the second cannot give "
            f"{a.parts[i].correlation} of the first."
        ) from None


def _count(rows: Rows) -> int:
    return next(len(x) for x in (rows.position, rows.time, rows.level) if x is not None)


def _sample(codes: np.ndarray):
    order = np.argsort(codes, kind="stable")
    size = np.bincount(codes)
    start = np.cumsum(size) - size
    for m in np.unique(size[size > 0]):
        yield order[start[size == m][:_SUBJECTS, None] + np.arange(m)]


def _take(rows: Rows, index: np.ndarray, subject: np.ndarray | None) -> Rows:
    pick = lambda a: None if a is None else a[index]  # noqa: E731
    same = None
    if subject is None:
        same = np.broadcast_to(np.eye(index.shape[1]), (*index.shape, index.shape[1]))
    position, time, level, covariate = (
        pick(x) for x in (rows.position, rows.time, rows.level, rows.log_covariate)
    )
    return Rows(position, time, level, covariate, same, pick(rows.weight))


def _guess(structure: Structure, sd: float) -> np.ndarray:
    """Natural parameters with all standard deviations sd and moderate correlations."""
    parameters = structure.parameters
    κ = [_moderate(p) for p in parameters if p.role not in ("sd", "power") for _ in range(len(p))]
    return np.concatenate([np.full(structure.scale.levels, sd), [0.0] * structure.scale.power, κ])


def _moderate(parameter) -> float:
    if not isinstance(parameter.domain, Interval):
        return 1.0
    return 0.1 if parameter.domain.upper > 0.2 else 0.5 * parameter.domain.upper


def _solve(structure: Structure, targets) -> np.ndarray:
    """Linear coordinates θ whose matrices are the targets [(matrix, rows)]; InferenceError where there are
    none.
    """
    size = float(np.sqrt(np.mean([np.mean(np.diagonal(t, axis1=1, axis2=2)) for t, _ in targets])))

    def distance(w):
        θ = structure.linear_from_working(w)
        return np.concatenate([(structure.matrix(θ, rows) - t).ravel() for t, rows in targets]) / size**2

    start = structure.working_from_linear(structure.linear_from_natural(_guess(structure, size)))
    found = optimize.least_squares(distance, start, xtol=1e-14, ftol=1e-14, gtol=1e-14)
    if np.abs(found.fun).max() > _CLOSE:
        raise InferenceError("The models are not nested: one covariance structure cannot give the other.")
    return structure.linear_from_working(found.x)
