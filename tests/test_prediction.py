"""Prediction: SAS OUTP, dense joint normals, interpolation, new subjects, degrees of freedom, bad input."""

import numpy as np
import pandas as pd
import pytest
from dense_normal import Dense, fit_at, same
from oracle_data import ORACLE

import bayeslmm as bl
from bayeslmm.kernel.information import information

# Where SAS stopped (-2l 1.2e-5 above the optimum): the covariance whose dense kriging reproduces all its P
# and PM to
# 1e-12, found by least squares on P and scaled by one PMSD; variances, then covariances (2,1), (3,1),
# (3,2), ...
SAS_STOPPED_AT = [
    108.39178877575971,
    40.17211635915464,
    24.60575899285639,
    152.35892137058102,
    45.4112775866275,
    -2.6971037877437287,
    0.7770982226470997,
    -47.010272705047555,
    -13.099775021115024,
    18.734633667635258,
]


# --- SAS --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fev():
    data = pd.read_csv(ORACLE / "fev.csv")
    with pytest.warns(bl.DataNote):
        model = bl.LMM("FEV1 ~ ARMCD", data, residual=bl.Unstructured("AVISIT", subject="USUBJID"))
    return model, data, pd.read_csv(ORACLE / "sas_fev_predict_unstructured.csv")


def check_fev(fit, data, sas, *, prediction, se):
    population = fit.predict(data, level="population")
    np.testing.assert_allclose(population["prediction"], sas["PM"], rtol=prediction)
    np.testing.assert_allclose(population["se"], sas["PMSD"], rtol=se)
    subject = fit.predict(data, what="response")
    missing = data["FEV1"].isna().to_numpy()
    assert missing.sum() == 263
    np.testing.assert_allclose(subject["prediction"][missing], sas["P"][missing], rtol=prediction)
    np.testing.assert_allclose(subject["se"][missing], sas["PSD"][missing], rtol=se)
    np.testing.assert_allclose(subject["prediction"][~missing], data["FEV1"][~missing], rtol=1e-12)
    assert (subject["se"][~missing] == 0).all()
    # SAS prints the population's values in observed rows
    np.testing.assert_allclose(population["prediction"][~missing], sas["P"][~missing], rtol=prediction)
    np.testing.assert_allclose(population["se"][~missing], sas["PSD"][~missing], rtol=se)


def test_sas_outp_at_the_covariance_where_sas_stopped(fev):
    model, data, sas = fev
    fit = fit_at(model, SAS_STOPPED_AT)
    assert 0 < -2 * (fit.loglik - model.fit().loglik) < 2e-5
    check_fev(fit, data, sas, prediction=1e-10, se=1e-9)


def test_sas_outp_at_the_optimum(fev):
    model, data, sas = fev
    check_fev(model.fit(), data, sas, prediction=1e-4, se=2e-4)


# --- the lecture's two examples ---------------------------------------------------------------------------

TIMES = np.array([0.0, 0.7, 1.1, 2.0, 3.5, 4.0])
RESIDUAL = bl.Exponential("t") + bl.Independent()


def table(rng, subjects=8):
    frame = pd.DataFrame({"t": np.tile(TIMES, subjects), "id": np.repeat(np.arange(subjects), len(TIMES))})
    keep = rng.uniform(size=len(frame)) > 0.2
    frame = frame[keep].reset_index(drop=True)
    w = rng.normal(size=(subjects, 2))
    frame["y"] = 3 + frame.t + w[frame.id, 0] + 0.5 * w[frame.id, 1] * frame.t + rng.normal(size=len(frame))
    frame["id"] = "s" + frame["id"].astype(str)
    return frame


def lecture(frame, Z, ν2, σ2, range_, τ2):
    """Dense Ω = U + W over the rows of `frame` for w ~ N(0, ν²I)."""
    one = same(frame["id"])
    lag = np.abs(frame["t"].to_numpy()[:, None] - frame["t"].to_numpy()[None])
    X = np.column_stack([np.ones(len(frame)), frame["t"]])
    return ν2 * (Z @ Z.T) * one, σ2 * np.exp(-lag / range_) * one, np.full(len(frame), τ2), X


@pytest.mark.parametrize("example", [1, 2])
def test_lecture_examples_against_dense_formulas(example):
    """Example 1: random intercept, ν²J + σ²H + τ²I; example 2: intercept and slope, ν²M + σ²H + τ²I."""
    data = table(np.random.default_rng(example))
    effects, θ = ("1", [1.3, 0.8, 1.7, 0.4]) if example == 1 else ("1 + t || id", [1.3, 1.3, 0.8, 1.7, 0.4])
    model = bl.LMM(f"y ~ t + ({effects}{' | id' if example == 1 else ''})", data, residual=RESIDUAL)
    fit = fit_at(model, θ)
    grid = pd.DataFrame({"t": np.tile(np.linspace(-1, 6, 15), 3), "id": np.repeat(["s0", "s5", "s7"], 15)})
    rows = pd.concat([data, grid], ignore_index=True)
    Z = np.ones((len(rows), 1)) if example == 1 else np.column_stack([np.ones(len(rows)), rows.t])
    dense = Dense(*lecture(rows, Z, 1.3, 0.8, 1.7, 0.4), data["y"].to_numpy())
    expected, beta, _, parts = dense.solve()
    np.testing.assert_allclose(fit.beta, beta, rtol=1e-10)
    found = fit.predict(grid)
    new = slice(len(data), None)
    np.testing.assert_allclose(found["prediction"], expected[new], rtol=1e-10)
    for column, part in (("se", "mean"), ("se_beta", "beta"), ("se_w", "u"), ("se_serial", "w")):
        np.testing.assert_allclose(found[column] ** 2, parts[part][new], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found["cov_w_serial"], parts["cov"][new], rtol=1e-10, atol=1e-13)
    response = fit.predict(grid, what="response")
    np.testing.assert_allclose(response["se"] ** 2, parts["mean"][new] + 0.4, rtol=1e-10)


def test_the_parts_of_the_variance_add_up():
    data = table(np.random.default_rng(3))
    fit = bl.LMM("y ~ t + (t | id)", data, residual=RESIDUAL).fit()
    rows = pd.concat([data.iloc[:20], data.iloc[:3].assign(id="new")])
    for df in (None, "satterthwaite", "kenward-roger"):
        for level in ("subject", "population"):
            x = fit.predict(rows, what="response", df=df, level=level)
            total = x.se_beta**2 + x.se_w**2 + x.se_serial**2 + 2 * x.cov_w_serial + x.se_error**2
            np.testing.assert_allclose(x.se**2, total + x.get("var_theta", 0), rtol=1e-9)
            np.testing.assert_allclose(x.prediction, x.fixed + x.random + x.serial, rtol=1e-12)


# --- crossed, nested, by stratum: dense -------------------------------------------------------------------


def test_crossed_effects_against_dense():
    data = bl.load_dataset("penicillin")
    fit = bl.LMM("diameter ~ 1 + (1 | plate) + (1 | sample)", data).fit()
    new = pd.DataFrame({"plate": ["a", "a", "q", "new"], "sample": ["A", "new", "C", "new"]})
    new = new.assign(plate=[data.plate.iloc[0], data.plate.iloc[0], data.plate.iloc[80], "new"])
    given = pd.DataFrame({"plate": ["new", "new"], "sample": ["B", "F"], "diameter": [27.0, 20.0]})
    observed = pd.concat([data, given])
    rows = pd.concat([observed, new], ignore_index=True)
    g = [float(fit.G[k].values[0, 0]) for k in ("plate", "sample")]
    u = g[0] * same(rows["plate"]) + g[1] * same(rows["sample"])
    dense = Dense(
        u, u * 0, np.full(len(rows), fit.sigma**2), np.ones((len(rows), 1)), observed["diameter"].to_numpy()
    )
    expected, _, _, parts = dense.solve(fit.beta.values)
    found = fit.predict(new, condition_on=given, what="mean")
    T = slice(len(observed), None)
    np.testing.assert_allclose(found["prediction"], expected[T], rtol=1e-10)
    np.testing.assert_allclose(found["se_w"] ** 2, parts["u"][T], rtol=1e-9)
    # β̂ is the fit's: its Φ, with the d of all observed rows
    Σ = u[: dense.n, : dense.n] + np.eye(dense.n) * fit.sigma**2
    d = 1 - (u[T, : dense.n] @ np.linalg.inv(Σ)).sum(axis=1)
    np.testing.assert_allclose(found["se_beta"], np.abs(d) * np.sqrt(fit.cov_beta.values[0, 0]), rtol=1e-8)


def test_large_groups_with_independent_errors_are_reduced_without_loss():
    rng = np.random.default_rng(0)
    data = pd.DataFrame(
        {"g": np.repeat(list("abcde"), 40), "x": rng.normal(size=200), "k": rng.choice(["u", "v"], 200)}
    )
    data["y"] = (
        data.x
        + pd.Series(dict(zip("abcde", rng.normal(size=5), strict=True)))[data.g].to_numpy()
        + rng.normal(size=200)
    )
    fit = bl.LMM("y ~ x + (x | g)", data, residual=bl.Independent(by="k")).fit()
    Z = np.column_stack([np.ones(200), data.x])
    u = (Z @ fit.G["g"].values @ Z.T) * same(data.g)
    v = np.where(data.k == "u", *(fit.sigma.sel(k=s).item() ** 2 for s in "uv"))
    expected, _, _, parts = Dense(u, u * 0, v, Z, data.y.to_numpy()).solve()
    found = fit.predict()
    np.testing.assert_allclose(found["prediction"], expected, rtol=1e-8)
    np.testing.assert_allclose(found["se"] ** 2, parts["mean"], rtol=1e-8)


def test_rows_of_the_fit_are_predicted_alike_by_name_and_by_default():
    data = bl.load_dataset("bodyweight")
    fit = bl.LMM(
        "weight ~ Time * Diet + (Time | Rat)", data, residual=bl.Exponential("Time") + bl.Independent()
    ).fit()
    pd.testing.assert_frame_equal(fit.predict(), fit.predict(data), check_names=False)


# --- limits -----------------------------------------------------------------------------------------------


def test_without_measurement_error_the_data_are_interpolated_exactly():
    data = table(np.random.default_rng(5))
    model = bl.LMM("y ~ t + (1 | id)", data, residual=bl.Exponential("t"))
    found = fit_at(model, [1.3, 0.8, 1.7]).predict(data, what="response")
    np.testing.assert_allclose(found["prediction"], data["y"], rtol=1e-12)
    assert (found["se"] == 0).all()
    zero = fit_at(bl.LMM("y ~ t + (1 | id)", data, residual=RESIDUAL), [1.3, 0.8, 1.7, 0.0]).predict(data)
    np.testing.assert_allclose(zero["prediction"], data["y"], rtol=1e-10)
    assert (zero["se"] == 0).all()


def test_large_measurement_error_leaves_the_population_mean():
    data = table(np.random.default_rng(6))
    fit = fit_at(bl.LMM("y ~ t + (1 | id)", data, residual=RESIDUAL), [1.3, 0.8, 1.7, 1e9])
    np.testing.assert_allclose(
        fit.predict()["prediction"], fit.predict(level="population")["prediction"], atol=1e-6
    )


# --- new subjects -----------------------------------------------------------------------------------------


def test_new_subject_with_the_measurements_of_a_known_one():
    data = table(np.random.default_rng(7))
    fit = bl.LMM("y ~ t + (1 | id)", data, residual=RESIDUAL).fit()
    known = data[data.id == "s3"]
    ahead = known.iloc[:2].assign(t=[5.0, 6.0])
    a = fit.predict(ahead)
    b = fit.predict(ahead.assign(id="new"), condition_on=known.assign(id="new"))
    pd.testing.assert_frame_equal(a, b)


def test_new_subject_without_measurements_has_the_prior():
    fit = bl.LMM("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy")).fit()
    new = pd.DataFrame({"Days": [0.0, 4.0], "Subject": ["new", "newer"]})
    x = np.column_stack([[1, 1], new.Days])
    found = fit.predict(new, what="response")
    variance = np.einsum("ta,ab,tb->t", x, fit.cov_beta.values + fit.G["Subject"].values, x) + fit.sigma**2
    np.testing.assert_allclose(found["prediction"], x @ fit.beta.values)
    np.testing.assert_allclose(found["se"], np.sqrt(variance))
    marginal = fit.predict(new.drop(columns="Subject"), level="population", what="response")
    np.testing.assert_allclose(marginal["se"], np.sqrt(variance))


def test_order_of_rows_where_no_visit_is_named():
    data = table(np.random.default_rng(8))
    fit = bl.LMM("y ~ t + (1 | id)", data, residual=bl.AR1()).fit()
    position = data.groupby("id").cumcount() + 1
    named = bl.LMM("y ~ t + (1 | id)", data.assign(k=position.astype(float)), residual=bl.AR1("k")).fit()
    last = data[data.id == "s1"].iloc[-1:]
    fewer = data.drop(last.index)
    ahead = fit_at(bl.LMM("y ~ t + (1 | id)", fewer, residual=bl.AR1()), fit.estimate.θ).predict(last)
    k = position[last.index].astype(float)
    other = fit_at(bl.LMM("y ~ t + (1 | id)", fewer.assign(k=position.astype(float)), residual=bl.AR1("k")),
                   named.estimate.θ)  # fmt: skip
    np.testing.assert_allclose(ahead["prediction"], other.predict(last.assign(k=k))["prediction"], rtol=1e-5)


# --- degrees of freedom -----------------------------------------------------------------------------------


def dense_predictor(fit, rows, Z, θ):
    """(ŷ as a function of y: (T, n), prediction variance (T,)) of slopes + exponential + nugget at θ."""
    n = len(fit.model.design.y)
    G = np.array([[θ[0], θ[2]], [θ[2], θ[1]]])
    one = same(rows["id"])
    lag = np.abs(rows["t"].to_numpy()[:, None] - rows["t"].to_numpy()[None])
    Σ = ((Z @ G @ Z.T) + θ[3] * np.exp(-lag / θ[4])) * one
    V = Σ[:n, :n] + θ[5] * np.eye(n)
    ViX = np.linalg.solve(V, Z[:n])
    Φ = np.linalg.inv(Z[:n].T @ ViX)
    A = np.linalg.solve(V, Σ[:n, n:]).T
    d = Z[n:] - A @ Z[:n]
    variance = np.diag(Σ)[n:] - np.einsum("tn,nt->t", A, Σ[:n, n:]) + np.einsum("ta,ab,tb->t", d, Φ, d) + θ[5]
    return A + d @ Φ @ ViX.T, variance, V


@pytest.mark.parametrize("df", ["satterthwaite", "kenward-roger-linear"])
def test_degrees_of_freedom_against_numerical_derivatives(df):
    data = table(np.random.default_rng(9), subjects=20)
    θ = np.array([1.1, 0.3, 0.2, 0.9, 1.5, 0.4])
    fit = fit_at(bl.LMM("y ~ t + (t | id)", data, residual=RESIDUAL), θ)
    grid = pd.DataFrame({"t": [0.5, 2.0, 6.0, 1.0], "id": ["s1", "s4", "s4", "new"]})
    rows = pd.concat([data, grid], ignore_index=True)
    Z = np.column_stack([np.ones(len(rows)), rows["t"]])
    unit = fit.estimate.blocks.unit
    W = np.linalg.inv(information(fit.estimate.evaluation, "expected", reml=True)) * np.outer(unit, unit)
    step = 1e-5 * np.maximum(np.abs(θ), 0.1)
    moved = [[dense_predictor(fit, rows, Z, θ + s * e) for s in (1, -1)] for e in np.diag(step)]
    gradient = np.array([(a[1] - b[1]) / (2 * h) for (a, b), h in zip(moved, step, strict=True)])
    slopes = np.array([(a[0] - b[0]) / (2 * h) for (a, b), h in zip(moved, step, strict=True)])
    _, variance, V = dense_predictor(fit, rows, Z, θ)
    found = fit.predict(grid, what="response", df=df, information="expected", interval=0.9)
    np.testing.assert_allclose(
        found["df"], 2 * variance**2 / np.einsum("jt,jk,kt->t", gradient, W, gradient), rtol=1e-5
    )
    if df == "satterthwaite":
        np.testing.assert_allclose(found["se"] ** 2, variance, rtol=1e-9)
    else:
        theta = np.einsum("jtn,nm,ktm,jk->t", slopes, V, slopes, W)
        np.testing.assert_allclose(found["var_theta"], 2 * theta, rtol=1e-5)
        np.testing.assert_allclose(found["se"] ** 2, variance + 2 * theta, rtol=1e-6)


@pytest.mark.parametrize(
    "df", ["kenward-roger", "kenward-roger-linear", "satterthwaite", "residual", "containment"]
)
def test_population_means_have_the_errors_of_the_coefficients(df):
    fit = bl.LMM(
        "distance ~ age * Sex", bl.load_dataset("orthodont"), residual=bl.AR1("age", subject="Subject")
    ).fit()
    summary = fit.summary(df)
    at = pd.DataFrame({"age": [0.0], "Sex": ["Male"]})
    found = fit.predict(at, level="population", df=df, interval=0.95)
    np.testing.assert_allclose(found[["prediction", "se", "df", "lower", "upper"]],
                               summary.iloc[:1][["estimate", "se", "df", "lower", "upper"]], rtol=1e-8)  # fmt: skip


def test_crossed_effects_have_degrees_of_freedom():
    fit = bl.LMM("diameter ~ 1 + (1 | plate) + (1 | sample)", bl.load_dataset("penicillin")).fit()
    x = fit.predict(df="kenward-roger", interval=0.9)
    assert np.isfinite(x["df"]).all()
    assert (x["se"] >= fit.predict()["se"]).all()
    np.testing.assert_allclose(fit.predict(level="population", df="kenward-roger")["se"],
                               fit.summary("kenward-roger")["se"].iloc[0], rtol=1e-9)  # fmt: skip


# --- bad input --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rats():
    data = bl.load_dataset("bodyweight")
    return bl.LMM(
        "weight ~ Diet + (1 | Rat)", data, residual=bl.Exponential("Time") + bl.Independent()
    ).fit(), data


def test_a_subject_known_by_a_number_is_the_subject_known_by_text(rats):
    fit, data = rats
    rows = data[data.Rat == "5"]
    as_number = fit.predict(rows.assign(Rat=5))
    pd.testing.assert_frame_equal(as_number, fit.predict(rows))
    pd.testing.assert_frame_equal(fit.predict(rows.assign(Rat=5.0)), as_number)
    assert (as_number["serial"] != 0).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.drop(columns="Time"), "no column 'Time'"),
        (lambda d: d.assign(Rat="new").drop(columns="Time"), "no column 'Time'"),
        (lambda d: d.assign(Time=np.nan), "'Time' is missing in row 0"),
        (lambda d: d.assign(Diet="9"), "unseen level"),
        (lambda d: d.drop(columns="Rat"), "level='population'"),
        (lambda d: d.assign(Rat=[None] * len(d)), "missing"),
        (lambda d: d.iloc[:0], "no rows"),
    ],
)
def test_bad_rows_are_named(rats, change, words):
    fit, data = rats
    with pytest.raises(bl.DataError, match=words):
        fit.predict(change(data.iloc[:3]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"level": "rat"}, "level='rat'"),
        ({"what": "curve"}, "what='curve'"),
        ({"interval": 90}, "interval=90"),
        ({"df": "kr"}, "df='kr'"),
        ({"se": False, "interval": 0.9}, "standard errors"),
        ({"condition_on": pd.DataFrame({"a": [1]})}, "newdata="),
    ],
)
def test_bad_options_are_named(rats, options, words):
    with pytest.raises(bl.InferenceError, match=words):
        rats[0].predict(**options)


def test_conditioning_needs_the_response_and_new_places(rats):
    fit, data = rats
    given = data.iloc[:2].assign(Rat="new")
    with pytest.raises(bl.DataError, match="weight"):
        fit.predict(given, condition_on=given.drop(columns="weight"))
    exact = bl.LMM("weight ~ Diet + (1 | Rat)", data, residual=bl.Exponential("Time")).fit()
    with pytest.raises(bl.DataError, match="already observed"):
        exact.predict(data.iloc[:2], condition_on=data.iloc[:2])


def test_unknown_visits_and_strata_are_named():
    data = bl.load_dataset("orthodont")
    fit = bl.LMM("distance ~ age * Sex", data, residual=bl.AR1("age", subject="Subject", by="Sex")).fit()
    with pytest.raises(bl.DataError, match="'age' has unseen levels: '15'"):
        fit.predict(data.iloc[:2].assign(age=15.0))
