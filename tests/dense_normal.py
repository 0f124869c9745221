"""Predictions straight from the definition: n x n matrices of the joint normal distribution, numerical
derivatives.
"""

from dataclasses import dataclass

import numpy as np

import bayeslmm as bl
from bayeslmm.kernel.blocks import arrange
from bayeslmm.kernel.estimate import assemble
from bayeslmm.kernel.likelihood import evaluate
from bayeslmm.kernel.optimise import Optimum
from bayeslmm.results import Fit, label


def fit_at(model: bl.LMM, θ, method: str = "REML") -> Fit:
    """The model with its linear variance parameters set to θ instead of estimated, β by generalised least
    squares.
    """
    blocks = arrange(model.design, model.covariance, model.residual)
    inner = np.asarray(θ, float) / blocks.unit
    found = evaluate(blocks, model.covariance, inner, reml=method == "REML")
    optimum = Optimum(inner, found, 0.0, 0, False)
    return label(model, assemble(blocks, model.covariance, model.residual, optimum, method == "REML"))


@dataclass
class Dense:
    """Σ of Ω over all rows (observed first), its parts, the error variance of all rows, X and y."""

    u: np.ndarray
    w: np.ndarray
    error: np.ndarray
    X: np.ndarray
    y: np.ndarray

    @property
    def n(self):
        return len(self.y)

    def solve(self, beta=None):
        """(prediction of Ω + Xβ at all rows, β̂, Φ, variances of the prediction error by part)."""
        n, Σ = self.n, self.u + self.w
        V = Σ[:n, :n] + np.diag(self.error[:n])
        Xo = self.X[:n]
        ViX = np.linalg.solve(V, Xo)
        Φ = np.linalg.inv(Xo.T @ ViX)
        b = Φ @ ViX.T @ self.y if beta is None else beta
        A = np.linalg.solve(V, Σ[:n]).T
        d = self.X - A @ Xo
        part = lambda a, c: np.diag(a) * (a is c) - np.einsum("tn,nt->t", a[:, :n], np.linalg.solve(V, c[:n]))  # noqa: E731
        parts = {"u": part(self.u, self.u), "w": part(self.w, self.w),
                 "cov": -np.einsum("tn,nt->t", self.u[:, :n], np.linalg.solve(V, self.w[:n])),
                 "beta": np.einsum("ta,ab,tb->t", d, Φ, d)}  # fmt: skip
        parts["mean"] = parts["u"] + parts["w"] + 2 * parts["cov"] + parts["beta"]
        return self.X @ b + A @ (self.y - Xo @ b), b, Φ, parts


def same(codes) -> np.ndarray:
    codes = np.asarray(codes)
    return (codes[:, None] == codes[None]).astype(float)
