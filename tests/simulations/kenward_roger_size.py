"""Size of the Kenward-Roger F at 5 %: 10 subjects x 4 visits under the null hypothesis, three designs.

python tests/simulations/kenward_roger_size.py 10000
"""

import sys

import numpy as np
import pandas as pd
from rich.progress import track

import bayeslmm as bl
from bayeslmm.kernel.blocks import arrange
from bayeslmm.kernel.information import estimated_parameters
from bayeslmm.kernel.likelihood import evaluate
from bayeslmm.kernel.refit import Problem, refit, response
from bayeslmm.marginal.wald import wald

VISIT, SUBJECT = np.tile(np.arange(4.0), 10), np.repeat(np.arange(10), 4)
DATA = pd.DataFrame({
    "t": VISIT - 1.5, "v": VISIT.astype(int).astype(str), "id": SUBJECT.astype(str),
    "arm": np.where(SUBJECT < 5, "a", "b"), "y": np.arange(40.0) % 7,
})  # fmt: skip
# name: (formula, residual, sd of the random intercept and slope, hypothesis as columns of X)
DESIGNS = {
    "visits, random intercept": ("y ~ v + (1 | id)", None, (1.0, 0.0), slice(1, 4)),
    "visits, unstructured (Hotelling)": ("y ~ v", bl.Unstructured("v", subject="id"), (1.0, 0.4), slice(1, 4)),
    "arm x time, random intercept and slope": ("y ~ t * arm + (t | id)", None, (1.0, 0.4), slice(3, 4)),
}


def p_values(name: str, count: int, seed: int = 20261122) -> pd.DataFrame:
    """Kenward-Roger and chi-square p-values of the hypothesis in `count` sets."""
    formula, residual, (a, b), tested = DESIGNS[name]
    model = bl.LMM(formula, DATA, residual=residual)
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(10, 2, count)) * np.array([a, b])[:, None]
    Y = w[SUBJECT, 0] + w[SUBJECT, 1] * DATA["t"].to_numpy()[:, None] + rng.normal(size=(40, count))
    blocks = arrange(model.design, model.covariance, model.residual, responses=Y)
    start = model.covariance.linear_from_natural(_start(model))
    fits = refit(Problem.of(model), Y, start, reml=True)
    p = blocks.p
    L = np.eye(p)[tested]
    rows = []
    for r in track(range(count), description=name, disable=count < 500):
        one = response(blocks, r)
        θ = fits.θ[r] / one.unit
        at = evaluate(one, model.covariance, θ, reml=True)
        keep = estimated_parameters(model.covariance, θ, "drop")
        back = one.y_scale * np.linalg.inv(one.basis)
        tests = [wald(at, back, df, information="expected", keep=keep, counted=None, reml=True)
                 for df in ("kenward-roger", "asymptotic")]  # fmt: skip
        rows.append([*(x.test(L, np.zeros(len(L)), fits.beta[r]).p for x in tests), fits.converged[r]])
    return pd.DataFrame(rows, columns=["kenward_roger", "chi_square", "converged"])


def _start(model) -> np.ndarray:
    return np.concatenate([
        np.where([p.role == "sd" for p in s.parameters for _ in range(len(p))], 1.0, 0.0) for s in model.covariance.structures
    ])  # fmt: skip


def main(count: int) -> None:
    for name in DESIGNS:
        table = p_values(name, count)
        kr, chi = (table["kenward_roger"] < 0.05).mean(), (table["chi_square"] < 0.05).mean()
        print(f"{name}: Kenward-Roger {100 * kr:.2f} %, chi-square {100 * chi:.2f} %; "
              f"{count} sets, {table['converged'].mean():.4f} converged, {table['kenward_roger'].isna().sum()} without p")  # fmt: skip


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
