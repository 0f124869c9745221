"""Sandwich estimates of Var β̂ that are valid under any Var Y, and t and F tests with degrees of freedom
for them.

With Φ = (X'V⁻¹X)⁻¹ and clusters i that are independent,

    V^CR = c Φ { Σ_i X_i'V_i⁻¹A_i r_i r_i'A_i'V_i⁻¹X_i } Φ,          r_i = Y_i - X_iβ̂

    CR0   A_i = I                                     White (1980), Liang and Zeger (1986); SAS: empirical
    CR1, CR1S, CR1p   CR0 times c = J/(J-1), J(n-1)/((J-1)(n-p)), J/(J-p) for J clusters
    CR2   A_i symmetric with A_i(V_i - X_iΦX_i')A_i = V_i: unbiased if the working V is right (Bell and
    McCaffrey 2002;
          in this form Pustejovsky and Tipton 2018, section 2.2)
    CR3   A_i = (I - X_iΦX_i'V_i⁻¹)⁻¹: close to the jackknife over clusters

A cluster contributes its adjusted score s_i = h_i'r_i with h_i = A_i'V_i⁻¹X_i, and under the working model
Cov(s_i, s_j) = δ_ij h_i'V_ih_i - h_i'X_iΦX_j'h_j. All degrees of freedom are algebra on the p x p matrices
h_i'V_ih_i and h_i'X_i, linear in the number of clusters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from ..covariance.assembly import Covariance
from ..covariance.binding import nested
from ..errors import DataError, InferenceError
from ..kernel.batch import Blocks
from ..kernel.blocks import arrange
from ..kernel.moments import covariance_of_blocks
from .constraints import constraints
from .inference import contrast_table
from .wald import WaldTest, f_tail

if TYPE_CHECKING:
    from ..results import Fit

KINDS = ("CR0", "CR1", "CR1S", "CR1p", "CR2", "CR3")
_TOLERANCE = 1e-10


@dataclass(frozen=True)
class Scores:
    """What J clusters contribute: adjusted scores (J, p), h_i'V_ih_i and h_i'X_i (J, p, p)."""

    score: np.ndarray
    own: np.ndarray
    leverage: np.ndarray


@dataclass(frozen=True)
class Sandwich:
    """Tests of Lβ from a sandwich estimate; covariance (p, p), Φ (p, p) of the working model."""

    method: str
    covariance: np.ndarray
    working: np.ndarray
    scores: Scores

    def df_of(self, row: np.ndarray) -> float:
        """Satterthwaite df of one row of L (Bell and McCaffrey 2002)."""
        return wishart_df(row[None], self.working, self.scores)

    def test(self, L: np.ndarray, rhs: np.ndarray, beta: np.ndarray) -> WaldTest:
        """The approximate Hotelling test "HTZ" of Lβ = rhs (Pustejovsky and Tipton 2018, section 3.2).

        With q rows and ν matched to the total variance of L V^CR L', (ν - q + 1)/(νq) times the Wald
        statistic is referred to F(q, ν - q + 1).
        """
        q, ν = len(L), wishart_df(L, self.working, self.scores)
        distance = L @ beta - rhs
        wald = float(distance @ np.linalg.solve(L @ self.covariance @ L.T, distance))
        scale = (ν - q + 1) / ν
        if scale <= 0:
            raise InferenceError(
                f"The hypothesis has {q} rows, and the clusters carry {ν:.3g} degrees of freedom for it: "
                f"fewer than {q} cannot be tested with a sandwich estimate. Test fewer rows at once, or "
                "use the model's own F."
            )
        return WaldTest(wald * scale / q, q, ν - q + 1, scale, f_tail(wald * scale / q, q, ν - q + 1))


@dataclass(frozen=True, eq=False, repr=False)
class RobustFit:
    """A fit seen through a sandwich estimate: the same β̂, with standard errors that do not rely on the
    model's V.

    kind: "CR0" to "CR3"; cluster: the column whose levels are taken as independent; beta (coef), cov_beta
    (coef, coef_).
    """

    fit: Fit
    kind: str
    cluster: str
    clusters: int
    beta: xr.DataArray
    cov_beta: xr.DataArray
    tests: Sandwich

    def summary(self, *, level: float = 0.95) -> pd.DataFrame:
        """One row a coefficient: estimate, se, df (Satterthwaite), statistic (t), p, lower, upper."""
        rows = np.eye(len(self.beta))
        return contrast_table(
            self.tests, rows, np.zeros(len(rows)), list(self.fit.model.design.coefs), self.beta.values, level
        )

    def test(self, hypothesis: Any) -> pd.Series:
        """F test of "Days = 0, Sex = 0", of a term or of Lβ = 0, with the df of HTZ: statistic, ndf, ddf,
        scale, p, method.

        Raises InferenceError where the clusters are too few for the rows of the hypothesis.
        """
        design = self.fit.model.design
        L, c = constraints(hypothesis, design.coefs, design.encoding.fixed.terms)
        found = self.tests.test(L, c, self.beta.values)
        return pd.Series(
            {
                "statistic": found.statistic,
                "ndf": found.ndf,
                "ddf": found.ddf,
                "scale": found.scale,
                "p": found.p,
                "method": f"{self.kind}, HTZ",
            },
            name=hypothesis if isinstance(hypothesis, str) else "Lβ = 0",
        )

    def __repr__(self) -> str:
        formula = self.fit.model.formula.text
        return f"<RobustFit {self.kind} of {formula}: {self.clusters} clusters ({self.cluster})>"


def robust(fit: Fit, kind: str, cluster: str | None) -> RobustFit:
    """The sandwich view of a fit.

    Raises InferenceError for an unknown kind, for clusters that are not independent under the model, and
    for fewer than two of them; DataError for an unknown column.
    """
    if kind not in KINDS:
        raise InferenceError(f"kind={kind!r}: the sandwich estimates are {', '.join(KINDS)}.")
    name, codes = _clusters(fit, cluster)
    model, found = fit.model, fit.estimate
    blocks = arrange(model.design, model.covariance, model.residual, clusters=codes)
    at = found.evaluation
    scores = cluster_scores(blocks, model.covariance, found.θ / blocks.unit, at.beta, at.A_inverse, kind)
    J, n, p = len(scores.score), blocks.n, blocks.p
    factor = {
        "CR1": J / (J - 1),
        "CR1S": J * (n - 1) / ((J - 1) * (n - p)),
        "CR1p": J / max(J - p, 0) if p < J else 0.0,
    }
    if kind == "CR1p" and p >= J:
        raise InferenceError(
            f"CR1p divides by clusters - coefficients, and there are {J} and {p}: use CR1 or CR2."
        )
    back = blocks.y_scale * np.linalg.inv(blocks.basis)
    bread = back @ at.A_inverse
    covariance = factor.get(kind, 1.0) * bread @ (scores.score.T @ scores.score) @ bread.T
    coefs = {"coef": list(model.design.coefs), "coef_": list(model.design.coefs)}
    return RobustFit(
        fit=fit,
        kind=kind,
        cluster=name,
        clusters=J,
        beta=fit.beta,
        cov_beta=xr.DataArray(covariance, dims=("coef", "coef_"), coords=coefs, name="cov_beta"),
        tests=Sandwich(
            kind, covariance, back @ at.A_inverse @ back.T, _to_user(scores, blocks.basis / blocks.y_scale)
        ),
    )


def _to_user(scores: Scores, basis: np.ndarray) -> Scores:
    """Scores for the user's X = Q basis."""
    return Scores(scores.score @ basis, basis.T @ scores.own @ basis, basis.T @ scores.leverage @ basis)


# --- which rows form a cluster ----------------------------------------------------------------------------


def _clusters(fit: Fit, cluster: str | None) -> tuple[str, np.ndarray]:
    design, residual = fit.model.design, fit.model.residual
    units = {t.group: t.codes for t in design.terms}
    if residual.subject is not None:
        units.setdefault(str(residual.subject_name), residual.subject)
    if cluster is None:
        name, codes = _coarsest(units)
    elif cluster in units:
        name, codes = cluster, units[cluster]
    elif cluster in design.frame:
        name, codes = cluster, pd.factorize(design.frame[cluster])[0]
    else:
        raise DataError(
            f"cluster={cluster!r} is no column of the data; there are {', '.join(map(str, design.frame))}."
        )
    if (codes < 0).any():
        raise DataError(
            f"The cluster column {name!r} has missing values: every row must belong to a cluster."
        )
    across = [unit for unit, inner in units.items() if not nested(inner, codes)]
    if across:
        raise InferenceError(
            f"Levels of {across[0]} lie in several clusters of {name}, so that under this model the "
            "clusters are correlated, and a sandwich needs independent ones. Name a coarser cluster that "
            f"contains {' and '.join(across)}."
        )
    if codes.max() < 1:
        raise InferenceError(
            f"All rows are in one cluster of {name}; a sandwich needs many independent clusters."
        )
    return name, codes


def _coarsest(units: dict[str, np.ndarray]) -> tuple[str, np.ndarray]:
    for name, codes in units.items():
        if all(nested(other, codes) for other in units.values()):
            return name, codes
    if not units:
        raise InferenceError(
            "The model has no grouping factor: name the clusters, as in robust('CR2', cluster='id')."
        )
    raise InferenceError(
        f"The grouping factors {', '.join(units)} are crossed, so that under this model no level of one "
        "is independent of all others, and a sandwich needs independent clusters. Name a column that "
        "contains them all, or use df='kenward-roger'."
    )


# --- scores -----------------------------------------------------------------------------------------------


def cluster_scores(
    blocks: Blocks, covariance: Covariance, θ: np.ndarray, beta: np.ndarray, Φ: np.ndarray, kind: str
) -> Scores:
    """Adjusted scores of all clusters in the units of the blocks, batch by batch."""
    parts = list(_scores_by_batch(blocks, covariance, θ, np.append(-beta, 1.0), Φ, kind))
    return Scores(*(np.concatenate(x) for x in zip(*parts, strict=True)))


def _scores_by_batch(
    blocks, covariance, θ, a, Φ, kind
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    for batch, V in covariance_of_blocks(blocks, covariance, θ):
        L = np.linalg.cholesky(V)
        whitened = np.linalg.solve(L[batch.owner], batch.data)
        X, r = whitened[..., :-1], whitened @ a
        H = np.swapaxes(X, 1, 2)
        if kind == "CR2":
            H = H @ _symmetric_adjustment(L[batch.owner], X, Φ)
        elif kind == "CR3":
            H = np.linalg.pinv(np.eye(len(Φ)) - (H @ X) @ Φ, rcond=_TOLERANCE) @ H
        yield (H @ r[..., None])[..., 0], H @ np.swapaxes(H, 1, 2), H @ X


def _symmetric_adjustment(L: np.ndarray, X: np.ndarray, Φ: np.ndarray) -> np.ndarray:
    """L⁻¹ A L for the symmetric A of CR2, A = L (K(I - XΦX')K)^-½ L' with V = LL', K = L'L and X whitened:
    (J, m, m).

    Directions that the fit reproduces exactly (I - XΦX' singular) get no weight, as in clubSandwich.
    """
    K = np.swapaxes(L, 1, 2) @ L
    KX = K @ X
    inside = K @ K - KX @ Φ @ np.swapaxes(KX, 1, 2)
    values, vectors = np.linalg.eigh((inside + np.swapaxes(inside, 1, 2)) / 2)
    positive = values > _TOLERANCE * values[:, -1:]
    scale = np.where(positive, 1 / np.sqrt(np.where(positive, values, 1.0)), 0.0)
    return (vectors * scale[:, None]) @ np.swapaxes(vectors, 1, 2) @ K


def wishart_df(L: np.ndarray, Φ: np.ndarray, scores: Scores) -> float:
    """ν of the Wishart distribution that L V^CR L' is matched to: q(q+1) over the total variance of its
    standard form.

    With C_ij = Cov(u_i, u_j) for u_i = ΩL Φ s_i and Ω² the inverse of E[L V^CR L'], the total variance is
    Σ_ij (tr C_ij)² + tr C_ij²; C_ij = -f_if_j' off the diagonal, so that the double sum is one over clusters.
    """
    LΦ = L @ Φ
    expected = LΦ @ (scores.own - scores.leverage @ Φ @ np.swapaxes(scores.leverage, 1, 2)) @ LΦ.T
    values, vectors = np.linalg.eigh(expected.sum(axis=0))
    root = (vectors / np.sqrt(values)) @ vectors.T
    C = root @ expected @ root
    f = root @ LΦ @ scores.leverage @ np.linalg.cholesky(Φ)
    flat = f.reshape(len(f), -1)
    T = (flat.T @ flat).reshape(*f.shape[1:], *f.shape[1:])
    across = np.sum(T**2) + np.einsum("satb,tasb->", T, T)
    ff = f @ np.swapaxes(f, 1, 2)
    own = np.sum(np.trace(C, axis1=1, axis2=2) ** 2) + np.einsum("ist,its->", C, C)
    counted = np.sum(np.trace(ff, axis1=1, axis2=2) ** 2) + np.einsum("ist,its->", ff, ff)
    q = len(L)
    return float(q * (q + 1) / (own + across - counted))
