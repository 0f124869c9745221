"""Random slope: reaction times of 18 people under sleep restriction (Belenky et al. 2003).

Person i on day t of the study:

    Y_it = β_0 + β_1 t + w_i0 + w_i1 t + ω_it,        (w_i0, w_i1) ~ N(0, G),  ω_it ~ N(0, σ²)

with G = D C D, D the standard deviations of intercept and slope and C their correlation matrix.

Priors: mean at the average day ~ N(ȳ, (10 sd(y))²);  β_1 ~ N(0, (10 sd(y)/sd(t))²);
s_0, σ ~ half-t(3, sd(y));  s_1 ~ half-t(3, sd(y)/rms(t));  C ~ LKJ(2).
"""

import numpy as np
import pandas as pd
import pymc as pm

import bayeslmm as bl

DATA = "sleepstudy"
FORMULA = "Reaction ~ Days + (Days | Subject)"


def by_hand(data: pd.DataFrame) -> pm.Model:
    """The PyMC program, non-centred: w_i = D L z_i with LL' = C and z_i standard normal."""
    y, t = data["Reaction"].to_numpy(), data["Days"].to_numpy()
    subject, subjects = pd.factorize(data["Subject"], sort=True)
    coords = {"Subject": subjects, "effect": ["Intercept", "Days"], "obs": range(len(y))}
    with pm.Model(coords=coords) as model:
        mean = pm.Normal("mean", y.mean(), 10 * y.std(ddof=1))
        slope = pm.Normal("slope", 0.0, 10 * y.std(ddof=1) / t.std(ddof=1))
        pm.Deterministic("intercept", mean - slope * t.mean())

        scale = y.std(ddof=1) / np.array([1.0, np.sqrt(np.mean(t**2))])
        sd = pm.HalfStudentT("sd_Subject", nu=3.0, sigma=scale, dims="effect")
        L = pm.LKJCorr("L", n=2, eta=2.0)
        pm.Deterministic("corr_Subject", (L @ L.T)[0, 1])
        sigma = pm.HalfStudentT("sigma", nu=3.0, sigma=y.std(ddof=1))

        z = pm.Normal("z_Subject", dims=("Subject", "effect"))
        w = pm.Deterministic("w_Subject", z @ (sd[:, None] * L).T, dims=("Subject", "effect"))
        curve = mean + slope * (t - t.mean()) + w[subject, 0] + w[subject, 1] * t
        pm.Normal("Reaction", curve, sigma, observed=y, dims="obs")
    return model


def by_formula(data: pd.DataFrame) -> bl.LMM:
    """The same model in one line."""
    return bl.LMM(FORMULA, data)


def main() -> None:
    data = bl.load_dataset(DATA)
    model = by_formula(data)
    print(model.fit())
    with by_hand(data):
        written = pm.sample(chains=4, random_seed=1, target_accept=0.9, nuts_sampler="pymc").posterior
    posterior = model.sample("nuts", random_seed=1).posterior
    rows = {
        "intercept": (written["intercept"], posterior["beta"].sel(coef="Intercept")),
        "slope": (written["slope"], posterior["beta"].sel(coef="Days")),
        "sd of intercepts": (written["sd_Subject"][..., 0], posterior["sd_Subject"].sel(effect="Intercept")),
        "sd of slopes": (written["sd_Subject"][..., 1], posterior["sd_Subject"].sel(effect="Days")),
        "correlation": (written["corr_Subject"], posterior["corr_Subject"][..., 0, 1]),
        "sigma": (written["sigma"], posterior["sigma"]),
    }
    table = {name: [float(x.mean()) for x in pair] for name, pair in rows.items()}
    print(pd.DataFrame(table, index=["by hand", "by formula"]).T.round(2))


if __name__ == "__main__":
    main()
