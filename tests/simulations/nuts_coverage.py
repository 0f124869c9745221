"""Does NUTS on `to_pymc` cover the truth at its nominal rate? Parameters are drawn from the prior, data from them.

Under a correct model and sampler the 50 % and 90 % posterior intervals then hold the truth in 50 % and 90 % of sets, exactly.

    python tests/simulations/nuts_coverage.py serial 100
    python tests/simulations/nuts_coverage.py ar1 100
"""

import logging
import sys
import warnings

import numpy as np
import pandas as pd
import pymc as pm
import pytensor
from rich.progress import track

import bayeslmm as bl
from bayeslmm.hierarchical import priors as pr

SUBJECTS, ROWS = 15, 7
PRIORS = {
    "serial": {"beta": pr.Normal(0, 2), "sigma_serial": pr.HalfNormal(2), "range": pr.LogNormal(0.5, 0.7), "sigma": pr.HalfNormal(1)},
    "ar1": {"beta": pr.Normal(0, 2), "sigma_serial": pr.HalfNormal(2), "rho": pr.Uniform(-1, 1)},
}  # fmt: skip
RESIDUAL = {
    "serial": lambda: bl.Exponential("t", subject="id") + bl.Independent(),
    "ar1": lambda: bl.AR1("v", subject="id"),
}


def design() -> pd.DataFrame:
    """Irregular times, the same in every set, so that the program is compiled once."""
    rng = np.random.default_rng(0)
    times = np.sort(rng.uniform(0, 8, (SUBJECTS, ROWS)), axis=1)
    return pd.DataFrame({"id": np.repeat([f"s{i:02d}" for i in range(SUBJECTS)], ROWS), "t": times.ravel(),
                         "v": np.tile(np.arange(ROWS), SUBJECTS), "y": rng.normal(size=SUBJECTS * ROWS)})  # fmt: skip


def simulate(kind: str, data: pd.DataFrame, rng: np.random.Generator) -> tuple[np.ndarray, dict[str, float]]:
    truth = {name: float(prior.sample(rng)) for name, prior in PRIORS[kind].items()}
    v, times = np.arange(ROWS), data["t"].to_numpy().reshape(SUBJECTS, ROWS)
    y = []
    for t in times:
        if kind == "serial":
            lag = np.abs(np.subtract.outer(t, t))
            V = truth["sigma_serial"] ** 2 * np.exp(-lag / truth["range"]) + truth["sigma"] ** 2 * np.eye(ROWS)
        else:
            V = truth["sigma_serial"] ** 2 * truth["rho"] ** np.abs(np.subtract.outer(v, v))
        y.append(rng.multivariate_normal(np.full(ROWS, truth["beta"]), V))
    return np.concatenate(y), truth


class Program:
    """to_pymc's program, compiled once; `draw` swaps the response."""

    def __init__(self, kind: str):
        self.kind, self.data = kind, design()
        self.built = bl.LMM("y ~ 1", self.data, residual=RESIDUAL[kind]()).to_pymc(priors=PRIORS[kind])
        variable = self.built["y"]
        old = self.built.rvs_to_values[variable]
        self.response = pytensor.shared(self.data["y"].to_numpy(), name="response")
        self.built.rvs_to_values[variable] = self.response
        self.built.values_to_rvs.pop(old)
        self.built.values_to_rvs[self.response] = variable
        with self.built:
            self.step = pm.NUTS(target_accept=0.9)

    def draw(self, seed: int) -> dict:
        y, truth = simulate(self.kind, self.data, np.random.default_rng(seed))
        self.response.set_value(y)
        with self.built:
            posterior = pm.sample(500, tune=700, chains=2, cores=1, step=self.step, random_seed=seed, progressbar=False,
                                  compute_convergence_checks=False, quiet=True)  # fmt: skip
        out: dict = {"divergences": int(posterior["sample_stats"]["diverging"].sum())}
        return out | {k: float((posterior["posterior"][k].values.ravel() < x).mean()) for k, x in truth.items()}


def main(kind: str, count: int) -> None:
    warnings.simplefilter("ignore")
    logging.getLogger("pymc").setLevel(logging.ERROR)
    program = Program(kind)
    table = pd.DataFrame([program.draw(seed) for seed in track(range(count), description=kind)])
    for name in PRIORS[kind]:
        u = table[name]
        print(f"{kind} {name}: 50 % interval covers {(abs(u - 0.5) < 0.25).mean():.2f}, 90 % interval {(abs(u - 0.5) < 0.45).mean():.2f}; "
              f"mean rank {u.mean():.3f}")  # fmt: skip
    print(f"{kind}: {count} sets, divergences in {(table['divergences'] > 0).sum()} of them")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
