"""Random effects of every grouping factor with their two variances.

    ŵ = GZ'V⁻¹(y - Xβ̂)
    Var(w | y, β) = G - GZ'V⁻¹ZG                              β known: lme4's condVar
    Var(ŵ - w)    = Var(w | y, β) + DΦD',  D = -GZ'V⁻¹X       β estimated: Henderson's prediction errors

Each effect of each level is a target whose random part is that effect alone, so that `conditional.py` does
the work, crossed effects included.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from ..covariance.correlation import Rows
from ..errors import InferenceError
from ..kernel.conditional import Crossed, Piece, pieces, solve_crossed
from ..kernel.stacked import Stacked, observed_only

if TYPE_CHECKING:
    from ..model import LMM
    from ..results import Fit

_MEANING = {
    "w": "EBLUP of the random effects",
    "conditional_variance": "Var(w | y) with β taken as known (lme4: condVar)",
    "prediction_error_variance": "Var(ŵ - w), the estimation of β included (Henderson)",
}


@dataclass(frozen=True, eq=False, repr=False)
class RandomEffects(Mapping):
    """One xarray.Dataset a grouping factor: w (level, effect), conditional_variance and
    prediction_error_variance (level, effect, effect_).
    """

    groups: dict[str, xr.Dataset]
    model: LMM

    def __getitem__(self, group: str) -> xr.Dataset:
        return self.groups[group]

    def __iter__(self) -> Iterator[str]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    def table(self, group: str | None = None) -> pd.DataFrame:
        """One row a level and effect: w, se_conditional, se_prediction; of all groups, or of one.

        Raises InferenceError for a group that is not in the model.
        """
        if group is not None and group not in self.groups:
            known = ", ".join(self.groups) or "no grouping factor"
            raise InferenceError(f"group={group!r} is not in this model, which has {known}.")
        tables = [_table(x, name) for name, x in self.groups.items() if group in (None, name)]
        return pd.concat(tables) if tables else pd.DataFrame(columns=["w", "se_conditional", "se_prediction"])

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """Caterpillar plot: see `bayeslmm.diagnostic_plots.plot_random_effects`."""
        from ..diagnostic_plots import plot_random_effects

        return plot_random_effects(self, ax, **options)

    def __repr__(self) -> str:
        return self.table().to_string(max_rows=20) if self.groups else "no random effects"


def _table(x: xr.Dataset, group: str) -> pd.DataFrame:
    variances = [np.diagonal(x[name].values, axis1=1, axis2=2) for name in list(_MEANING)[1:]]
    conditional, prediction = (np.sqrt(np.maximum(v, 0.0)).ravel() for v in variances)
    index = pd.MultiIndex.from_product(
        [[group], x[group].values, x["effect"].values], names=["group", "level", "effect"]
    )
    columns = {"w": x["w"].values.ravel(), "se_conditional": conditional, "se_prediction": prediction}
    return pd.DataFrame(columns, index=index)


def random_effects(fit: Fit) -> RandomEffects:
    """EBLUPs with conditional variance and prediction error variance, for every grouping factor."""
    terms = fit.model.design.terms
    if not terms:
        return RandomEffects({}, fit.model)
    conditional, gain = variances(fit)
    prediction = [
        c + np.einsum("gap,pr,gbr->gab", d, fit.cov_beta.values, d) for c, d in zip(conditional, gain, strict=True)
    ]
    out = {}
    for term, c, e in zip(terms, conditional, prediction, strict=True):
        group = term.group
        dims = (group, "effect", "effect_")
        values = {"w": ((group, "effect"), fit.w[group].values), "conditional_variance": (dims, c)}
        values["prediction_error_variance"] = (dims, e)
        effects = list(term.effects)
        made = xr.Dataset(values, coords={group: list(term.levels), "effect": effects, "effect_": effects})
        for name, words in _MEANING.items():
            made[name].attrs["long_name"] = words
        out[group] = made
    return RandomEffects(out, fit.model)


def variances(fit: Fit) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Var(w | y) (N, q, q) and D = ∂ŵ/∂β (N, q, p) of every grouping factor."""
    design, covariance, θ = fit.model.design, fit.model.covariance, fit.estimate.θ
    rows = _effects_as_targets(fit)
    found = list(pieces(rows, covariance, θ, fit.beta.values, full=True))
    crossed = solve_crossed(found, rows, covariance, θ)
    p = design.X.shape[1]
    q = [t.Z.shape[1] for t in design.terms]
    ends = np.cumsum([len(t.levels) * k for t, k in zip(design.terms, q, strict=True)])
    total, widest = int(ends[-1]), max(q)
    term = np.searchsorted(ends, np.arange(total), side="right")
    place = np.arange(total) - np.concatenate([[0], ends[:-1]])[term]
    width = np.array(q)[term]
    first = np.arange(total) - place % width  # the target of the level's first effect
    V, D = np.zeros((total, widest)), np.zeros((total, p))
    for x in found:
        cov, d = _piece(x, crossed, p)
        a = np.where(x.target >= 0, x.target, 0)
        level = np.where(x.target >= 0, first[a], -1 - np.arange(x.target.shape[1]))
        b, i, j = np.nonzero((level[:, :, None] == level[:, None, :]) & (x.target >= 0)[:, :, None])
        V[a[b, i], (place % width)[a[b, j]]] = cov[b, i, j]
        D[x.target[x.target >= 0]] = d[x.target >= 0]
    parts = zip(np.split(V, ends[:-1]), np.split(D, ends[:-1]), q, strict=True)
    split = [(v[:, :k].reshape(-1, k, k), d.reshape(-1, k, p)) for v, d, k in parts]
    return [v for v, _ in split], [d for _, d in split]


def _piece(x: Piece, crossed: Crossed | None, p: int) -> tuple[np.ndarray, np.ndarray]:
    """Conditional covariance (B, t, t) of the targets of a group and their D (B, t, p)."""
    B, t = x.target.shape
    cov = x.prior_u - np.swapaxes(x.au, 1, 2) @ x.au
    d = -np.swapaxes(x.au, 1, 2) @ x.white[..., :p]
    if crossed is not None and x.hu is not None and t:
        h = x.hu.toarray().reshape(B, t, -1)
        cov = cov + (h @ crossed.K) @ np.swapaxes(h, 1, 2)
        d = d - (x.hu @ crossed.KUX).reshape(B, t, p)
    return cov, d


def _effects_as_targets(fit: Fit) -> Stacked:
    """The fit's rows, and one target for each effect of each level, in the block of the level's rows."""
    base = observed_only(fit.model)
    terms = fit.model.design.terms
    outside = int(base.block.max()) + 1
    Z: list[list[np.ndarray]] = [[z] for z in base.Z]
    codes: list[list[np.ndarray]] = [[c] for c in base.codes]
    block = [base.block]
    for i, term in enumerate(terms):
        N, q = len(term.levels), term.Z.shape[1]
        own = np.repeat(np.arange(N), q)
        for k, other in enumerate(terms):
            unit = np.tile(np.eye(q), (N, 1)) if k == i else np.zeros((N * q, other.Z.shape[1]))
            Z[k].append(unit)
            codes[k].append(own if k == i else np.zeros(N * q, int))
        of_level = outside + np.arange(N)
        if i in base.within:
            of_level[term.codes] = base.block
        block.append(of_level[own])
        outside += N
    count = sum(len(b) for b in block) - base.observed
    subject = None
    if base.subject is not None:  # no serial process: each target is a subject of its own
        subject = np.concatenate([base.subject, base.subject.max() + 1 + np.arange(count)])
    repeat = lambda a: None if a is None else np.concatenate([a, np.repeat(a[:1], count, axis=0)])  # noqa: E731
    rows = tuple(
        Rows(
            repeat(r.position),
            repeat(r.time),
            repeat(r.level),
            repeat(r.log_covariate),
            weight=repeat(r.weight),
        )
        for r in base.rows
    )
    X = np.vstack([base.X, np.zeros((count, base.X.shape[1]))])
    return Stacked(X, base.y, np.append(base.offset, np.zeros(count)), tuple(map(np.concatenate, Z)),
                   tuple(map(np.concatenate, codes)), base.levels, rows, subject, np.concatenate(block),
                   base.within, base.crossed)  # fmt: skip
