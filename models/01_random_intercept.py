"""Random intercept: yields of a dyestuff by batch (Davies and Goldsmith 1972, section 6.4).

Five preparations j from each of six batches i of the intermediate product:

    Y_ij = β_0 + w_i + ω_ij,        w_i ~ N(0, s²),  ω_ij ~ N(0, σ²)

so that two preparations from one batch have correlation s² / (s² + σ²), the intraclass correlation.

Priors: β_0 ~ N(ȳ, (10 sd(y))²);  s, σ ~ half-t(3, sd(y)).
"""

import pandas as pd
import pymc as pm

import bayeslmm as bl

DATA = "dyestuff"
FORMULA = "Yield ~ 1 + (1 | Batch)"


def by_hand(data: pd.DataFrame) -> pm.Model:
    """The PyMC program, non-centred: w_i = s z_i with z_i standard normal."""
    y = data["Yield"].to_numpy()
    batch, batches = pd.factorize(data["Batch"], sort=True)
    with pm.Model(coords={"Batch": batches, "obs": range(len(y))}) as model:
        mean = pm.Normal("mean", y.mean(), 10 * y.std(ddof=1))
        sd = pm.HalfStudentT("sd_Batch", nu=3.0, sigma=y.std(ddof=1))
        sigma = pm.HalfStudentT("sigma", nu=3.0, sigma=y.std(ddof=1))
        z = pm.Normal("z_Batch", dims="Batch")
        w = pm.Deterministic("w_Batch", sd * z, dims="Batch")
        pm.Normal("Yield", mean + w[batch], sigma, observed=y, dims="obs")
    return model


def by_formula(data: pd.DataFrame) -> bl.LMM:
    """The same model in one line."""
    return bl.LMM(FORMULA, data)


def main() -> None:
    data = bl.load_dataset(DATA)
    model = by_formula(data)
    print(model.fit())
    with by_hand(data):
        written = pm.sample(chains=4, random_seed=1, target_accept=0.95, nuts_sampler="pymc")
    posterior = model.sample("nuts", random_seed=1, target_accept=0.95)
    print(
        pd.DataFrame(
            {
                "by hand": [float(written.posterior[v].mean()) for v in ("mean", "sd_Batch", "sigma")],
                "by formula": [float(posterior.posterior[v].mean()) for v in ("beta", "sd_Batch", "sigma")],
            },
            index=["mean", "sd_Batch", "sigma"],
        ).round(2)
    )


if __name__ == "__main__":
    main()
