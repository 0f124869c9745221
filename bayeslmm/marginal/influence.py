"""What single subjects or rows do to the estimates: Cook's distance, DFBETAS, the fit without them.

    D_c = (β̂ - β̂_(c))'Φ⁻¹(β̂ - β̂_(c)) / p            DFBETAS_cj = (β̂_j - β̂_(c)j) / se_(c)j
    COVRATIO_c = |Φ_(c)| / |Φ|

β̂_(c) is the estimate without case c: "exact" with θ estimated anew, "one-step" with θ after one Newton
step from θ̂ (Pregibon 1981), "conditional" with θ̂ held. Where V is linear in θ and cases lie within
independent blocks, all cases are fitted side by side from cross-products (`deletion.py`); elsewhere one
after the other from θ̂.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..covariance.binding import nested
from ..covariance.correlation import Rows
from ..covariance.newrows import subject_labels, text_labels
from ..covariance.structure import Structure
from ..errors import DataNote, InferenceError
from ..kernel.batched import Values, _coordinates, _newton_steps, evaluate_all, maximise_all
from ..kernel.blocks import arrange, compress
from ..kernel.estimate import best_of
from ..kernel.likelihood import Evaluation, evaluate
from ..kernel.stacked import Stacked, observed_only
from ..kernel.start import starts
from .deletion import Columns, Deletions, deletions

if TYPE_CHECKING:
    from ..results import Fit

METHODS = ("exact", "one-step", "conditional")
_BATCHED = 3e9  # multiplications of one step up to which cases are fitted side by side
_LONGEST = 1000  # rows of a block up to which its V is formed whole
_NUMBERS = 2e7  # in one array: cases beyond are fitted in portions


@dataclass(frozen=True, eq=False, repr=False)
class Influence:
    """The estimates without each case.

    method: "exact", "one-step" or "conditional"; table: rows, cook, covratio of each case; beta, se, dfbetas
    (cases x coefficients); parameters (cases x variance parameters, natural scale); not_estimable: cases
    without which a coefficient has no estimate (their values are missing); not_converged: exact refits that
    did not end.
    """

    method: str
    by: str
    table: pd.DataFrame
    beta: pd.DataFrame
    se: pd.DataFrame
    dfbetas: pd.DataFrame
    parameters: pd.DataFrame
    not_estimable: tuple[str, ...]
    not_converged: tuple[str, ...]

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """Cook's distances: see `bayeslmm.diagnostic_plots.plot_influence`."""
        from ..diagnostic_plots import plot_influence

        return plot_influence(self, ax, **options)

    def __repr__(self) -> str:
        shown = self.table.join(self.dfbetas.add_prefix("dfbetas "))
        return f"Influence by {self.by} ({self.method})\n" + shown.to_string(max_rows=30)


@dataclass(frozen=True)
class Refit:
    """Estimates without each of R cases, in data units: β (R, p), Φ (R, p, p), θ (R, K), ok (R,)."""

    beta: np.ndarray
    Φ: np.ndarray
    θ: np.ndarray
    ok: np.ndarray


def influence(fit: Fit, by: str = "subject", method: str = "exact") -> Influence:
    """Influence of every case on the estimates.

    by: "subject" (independent blocks of rows), "row", or a grouping factor or column. Raises InferenceError
    for an unknown method or case, and for by="subject" where grouping factors cross.
    """
    if method not in METHODS:
        raise InferenceError(f"method={method!r}: the fit without a case is {', '.join(METHODS)}.")
    case, labels = cases(fit, by)
    possible = _estimable(fit, case, len(labels))
    if not possible.all():
        named = ", ".join(labels[~possible][:10])
        warnings.warn(
            DataNote(
                f"Without {by} {named} a coefficient cannot be estimated: their influence is without bound "
                "and left blank."
            ),
            stacklevel=3,
        )
    keep = np.flatnonzero(possible)
    found = without(fit, case, keep, method)
    return _assemble(fit, by, method, case, labels, keep, found)


def cases(fit: Fit, by: str) -> tuple[np.ndarray, np.ndarray]:
    """(case of each row (n,), labels (R,))."""
    design, residual = fit.model.design, fit.model.residual
    if by == "row":
        return np.arange(len(design.y)), design.rows.astype(str).astype(object)
    term = next((t for t in design.terms if t.group == by), None)
    if term is not None:
        return term.codes, np.asarray(term.levels, object)
    if by != "subject":
        if by not in design.frame:
            groups = ", ".join(repr(t.group) for t in design.terms)
            raise InferenceError(f"by={by!r}: leave out 'subject', 'row', a grouping factor ({groups}) or a column.")
        labels = text_labels(design.frame[by], by)
        codes, levels = pd.factorize(labels, sort=True)
        return codes, np.asarray(levels, object)
    rows = observed_only(fit.model)
    if rows.crossed:
        raise InferenceError(
            "The grouping factors cross, so that no subject is independent of the others: name the factor "
            f"whose levels to leave out, as in by={design.terms[0].group!r}."
        )
    term = next((t for t in design.terms if np.array_equal(t.codes, rows.block)), None)
    if term is not None:
        return term.codes, np.asarray(term.levels, object)
    if residual.subject is not None:
        return residual.subject, subject_labels(design, residual)
    raise InferenceError("The model has no grouping factor, so there are no subjects: take by='row'.")


def _estimable(fit: Fit, case: np.ndarray, R: int) -> np.ndarray:
    """Whether X keeps its rank without each case."""
    Q = np.linalg.qr(fit.model.design.X)[0]
    gram = np.zeros((R, Q.shape[1], Q.shape[1]))
    np.add.at(gram, case, Q[:, :, None] * Q[:, None, :])
    left = np.linalg.eigvalsh(np.eye(Q.shape[1]) - gram)
    return left.min(axis=1, initial=1.0) > 1e-9


def without(fit: Fit, case: np.ndarray, keep: np.ndarray, method: str) -> Refit:
    """The estimates without each of the cases `keep`."""
    rows = observed_only(fit.model)
    if not rows.crossed and nested(case, rows.block):
        prepared = _prepare(fit, rows, case, method)
        if prepared is not None:
            return _side_by_side(fit, prepared.take(keep), method)
    return _one_by_one(fit, case, keep, method)


# --- side by side -----------------------------------------------------------------------------------------


def _prepare(fit: Fit, rows: Stacked, case: np.ndarray, method: str) -> Deletions | None:
    covariance, linear = fit.model.covariance, method != "conditional"
    if linear and not all(_is_linear(s) for s in covariance.structures):
        return None
    size = np.bincount(rows.block).astype(float)
    costly = (case.max() + 1) * np.sum(size**3) * covariance.size**2 > _BATCHED
    if (linear and costly and len(np.unique(size)) > 1) or size.max() > _LONGEST:
        return None
    blocks = fit.estimate.blocks
    X = np.linalg.solve(blocks.basis.T, rows.X.T).T if blocks.p else rows.X
    y = (rows.y - rows.X @ blocks.center) / blocks.y_scale
    columns = Columns(np.column_stack([X, y]), blocks.basis, blocks.center, blocks.y_scale, blocks.unit)
    return deletions(rows, covariance, fit.estimate.θ, columns, case, int(case.max()) + 1, linear=linear)


def _is_linear(structure: Structure) -> bool:
    return not structure.signed and (structure.linear or (structure.diagonal and not structure.scale.power))


def _side_by_side(fit: Fit, prepared: Deletions, method: str) -> Refit:
    K = fit.model.covariance.size
    a = 1 + K + K * (K + 1) // 2
    widest = max((x.own.shape[1] ** 2 for x in prepared.pools), default=1)
    patterns = 1 if method == "conditional" else sum(x.T.shape[0] for x in prepared.pools) / widest
    each = max(patterns * widest * a, 1)
    step = max(1, int(_NUMBERS / each))
    parts = [
        _portion(fit, prepared.take(np.arange(i, min(i + step, prepared.R))), method)
        for i in range(0, prepared.R, step)
    ]
    return _join(fit, parts)


def _join(fit: Fit, parts: list[Refit]) -> Refit:
    if not parts:
        p, K = len(fit.beta), fit.model.covariance.size
        return Refit(np.zeros((0, p)), np.zeros((0, p, p)), np.zeros((0, K)), np.zeros(0, bool))
    return Refit(*(np.concatenate([getattr(x, f) for x in parts]) for f in ("beta", "Φ", "θ", "ok")))


def _portion(fit: Fit, d: Deletions, method: str) -> Refit:
    covariance, blocks, reml = fit.model.covariance, fit.estimate.blocks, fit.method == "REML"
    start = fit.estimate.θ / blocks.unit
    ok = np.ones(d.R, bool)
    if method == "conditional":
        θ, at = np.tile(start, (d.R, 1)), np.ones((d.R, 1))
    elif method == "one-step":
        w = np.tile(covariance.working_from_linear(start), (d.R, 1))
        values = evaluate_all(d, np.tile(start, (d.R, 1)), reml=reml)
        w = w + _newton_steps(values, covariance, w, np.zeros(d.R))[0]
        θ = at = _coordinates(covariance, w)[0]
    else:
        found = maximise_all(d, covariance, start, reml=reml)
        θ = at = found.θ
        ok = found.left <= 1e-7
    XX = d.sums(at)
    Φ = np.linalg.inv(XX.XX[0])
    β = (Φ @ XX.Xy[0][..., None])[..., 0]
    back = np.linalg.inv(blocks.basis) if blocks.p else np.zeros((0, 0))
    return Refit(
        blocks.center + blocks.y_scale * β @ back.T,
        blocks.y_scale**2 * back @ Φ @ back.T,
        θ * blocks.unit,
        ok,
    )


# --- one after the other ----------------------------------------------------------------------------------


def _one_by_one(fit: Fit, case: np.ndarray, keep: np.ndarray, method: str) -> Refit:
    parts = [_alone(fit, np.flatnonzero(case != c), method) for c in keep]
    return _join(fit, parts)


def _alone(fit: Fit, rows: np.ndarray, method: str) -> Refit:
    """The fit to some of the rows, from θ̂."""
    model, reml = fit.model, fit.method == "REML"
    design = model.design
    terms = tuple(replace(t, codes=t.codes[rows], Z=t.Z[rows]) for t in design.terms)
    design = replace(design, y=design.y[rows], X=design.X[rows], offset=design.offset[rows], terms=terms,
                     weights=design.weights[rows], rows=design.rows[rows])  # fmt: skip
    pick = lambda a: None if a is None else a[rows]  # noqa: E731
    constants = tuple(
        Rows(pick(r.position), pick(r.time), pick(r.level), pick(r.log_covariate), weight=pick(r.weight))
        for r in model.residual.rows
    )
    residual = replace(model.residual, rows=constants, subject=pick(model.residual.subject))
    blocks = compress(arrange(design, model.covariance, residual))
    start, ok = fit.estimate.θ / blocks.unit, True
    at: Evaluation | None
    if method == "exact":
        best = best_of(blocks, model.covariance, [start], reml)
        if not all(_is_linear(s) for s in model.covariance.structures):  # the summit may be another one
            again = best_of(blocks, model.covariance, starts(model.covariance, residual), reml)
            best = max(best, again, key=lambda x: x.evaluation.value)
        θ, at, ok = best.θ, best.evaluation, best.decrement < 1e-7 and not best.stuck
    else:
        θ = start
        if method == "one-step":
            first = evaluate(blocks, model.covariance, start, reml=reml)
            assert first is not None
            w = model.covariance.working_from_linear(start)[None]
            values = Values(np.array([first.value]), first.beta[None], first.score[None], first.hessian[None])  # type: ignore[index]
            θ = _coordinates(model.covariance, w + _newton_steps(values, model.covariance, w, np.zeros(1))[0])[0][0]
        at = evaluate(blocks, model.covariance, θ, reml=reml, order=0)
    assert at is not None
    back = np.linalg.inv(blocks.basis) if blocks.p else np.zeros((0, 0))
    β = blocks.center + blocks.y_scale * (back @ at.beta)
    Φ = blocks.y_scale**2 * back @ at.A_inverse @ back.T
    return Refit(β[None], Φ[None], (θ * blocks.unit)[None], np.array([ok]))


# --- the table --------------------------------------------------------------------------------------------


def _assemble(fit: Fit, by: str, method: str, case, labels, keep: np.ndarray, found: Refit) -> Influence:
    index = pd.Index(labels, name=by)
    coefs = list(fit.model.design.coefs)
    β, Φ = fit.beta.values, fit.cov_beta.values
    p = max(len(β), 1)
    change = β - found.beta
    se = np.sqrt(np.einsum("rpp->rp", found.Φ))
    cook = np.einsum("ra,ab,rb->r", change, np.linalg.inv(Φ), change) / p
    ratio = np.linalg.det(found.Φ) / np.linalg.det(Φ)
    natural = np.array([fit.model.covariance.natural_from_linear(θ) for θ in found.θ])

    def frame(values: np.ndarray, columns) -> pd.DataFrame:
        full = np.full((len(labels), len(columns)), np.nan)
        full[keep] = np.reshape(values, (len(keep), len(columns)))
        return pd.DataFrame(full, index=index, columns=columns)

    table = frame(np.column_stack([cook, ratio]), ["cook", "covratio"])
    table.insert(0, "rows", np.bincount(case, minlength=len(labels)))
    lost = np.setdiff1d(np.arange(len(labels)), keep)
    return Influence(
        method, by, table, frame(found.beta, coefs), frame(se, coefs), frame(change / se, coefs),
        frame(natural, list(fit.parameters.index)), tuple(labels[lost]), tuple(labels[keep][~found.ok]),
    )  # fmt: skip
