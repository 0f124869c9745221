"""Tests of fixed effects: pbkrtest and lmerTest, an independent dense Kenward-Roger, and exact cases."""

import numpy as np
import pandas as pd
import pytest
from oracle_data import model, read_json, table
from scipy import stats

import bayeslmm as bl

INFERENCE = read_json("inference.json")
MIXED = ["machines_interaction", "machines_by_machine", "pastes", "orthodont_unbalanced_intercept",
         "orthodont_unbalanced_slope", "sleepstudy"]  # fmt: skip


def fitted(record):
    if "dropped_rows_from_zero" not in record:
        return model(record).fit()
    data = table(record["data"]).drop(index=record["dropped_rows_from_zero"])
    return bl.LMM(record["formula"], data).fit()


@pytest.mark.parametrize("name", MIXED)
def test_lmertest_satterthwaite_and_pbkrtest_kenward_roger(name):
    record = INFERENCE[name]
    fit = fitted(record)
    for method, key in (("satterthwaite", "satterthwaite"), ("kenward-roger", "kenward_roger")):
        expected, ours = record[key], fit.summary(method)
        np.testing.assert_allclose(ours["estimate"], expected["estimate"], rtol=1e-6)
        np.testing.assert_allclose(ours["se"], expected["se"], rtol=1e-5)
        np.testing.assert_allclose(ours["df"], expected.get("df_dense", expected["df"]), rtol=1e-5)
        np.testing.assert_allclose(ours["p"], expected["p"], rtol=1e-4)
        anova = fit.anova(3, df=method)
        assert len(anova) == len(expected["anova"])
        for term, F in expected["anova"].items():
            assert anova.loc[term, "statistic"] == pytest.approx(F["F"], rel=1e-5)
            assert anova.loc[term, "ndf"] == F["num_df"]
            assert anova.loc[term, "ddf"] == pytest.approx(F["den_df"], rel=1e-5)
            assert anova.loc[term, "p"] == pytest.approx(F["p"], rel=1e-4)


@pytest.mark.parametrize("information", ["observed", "expected"])
@pytest.mark.parametrize("name", [k for k in INFERENCE["fev_kenward_roger"] if k != "about"])
def test_kenward_roger_of_every_residual_structure(name, information):
    record = INFERENCE["fev_kenward_roger"][name]
    kinds = {
        "us": bl.Unstructured,
        "ar1": bl.AR1,
        "cs": bl.CompoundSymmetry,
        "toep": bl.Toeplitz,
        "ad": bl.Antedependence,
    }
    by = "AVISIT" if name.endswith("h") else None
    residual = kinds[name.removesuffix("h")]("AVISIT", subject="USUBJID", by=by)
    fit = bl.LMM("FEV1 ~ ARMCD", table("fev.csv"), residual=residual).fit()
    for method, key in (("kenward-roger", "with_second_derivatives"), ("kenward-roger-linear", "linear")):
        row = fit.summary(method, information=information).iloc[1]
        assert row["se"] == pytest.approx(record[information][key]["se"][0], rel=1e-6)
        assert row["df"] == pytest.approx(record[information][key]["df"][0], rel=1e-5)


def test_treatment_difference_at_each_visit():
    record = INFERENCE["fev_by_visit"]
    residual = bl.Unstructured("AVISIT", subject="USUBJID")
    fit = bl.LMM("FEV1 ~ ARMCD * AVISIT", table("fev.csv"), residual=residual).fit()
    found = fit.contrasts("ARMCD", by="AVISIT", information="observed")
    assert list(found.index) == [f"TRT - PBO | AVISIT = VIS{i}" for i in (1, 2, 3, 4)]
    np.testing.assert_allclose(found["estimate"], record["estimate"], rtol=1e-6)
    np.testing.assert_allclose(found["se"], record["observed"]["with_second_derivatives"]["se"], rtol=1e-6)
    np.testing.assert_allclose(found["df"], record["observed"]["with_second_derivatives"]["df"], rtol=1e-5)
    tests = fit.test("ARMCD[T.TRT] + ARMCD[T.TRT]:AVISIT[T.VIS3] = 0", information="observed")
    assert tests["p"] == pytest.approx(found["p"].iloc[2], rel=1e-10)
    means = fit.means(["ARMCD", "AVISIT"])
    assert len(means) == 8
    assert means.loc["TRT, VIS4", "estimate"] - means.loc["PBO, VIS4", "estimate"] == pytest.approx(
        found["estimate"].iloc[3]
    )
    overall = fit.contrasts("ARMCD")
    assert overall["estimate"].iloc[0] == pytest.approx(found["estimate"].mean(), rel=1e-10)


def test_split_plot_is_the_exact_anova_f():
    """Balanced split plot: KR F of the whole-plot factor is MS(A)/MS(plots) and of the rest MS/MS(error)."""
    rng = np.random.default_rng(8)
    rows = [(a, f"p{a}{r}", b) for a in "xyz" for r in range(4) for b in "1234"]
    data = pd.DataFrame(rows, columns=["a", "plot", "b"])
    plots = data["plot"].unique()
    effect = dict(zip(plots, 2 * rng.normal(size=len(plots)), strict=True))
    data["y"] = data["plot"].map(effect) + rng.normal(size=len(data)) + data["b"].astype(int) * 0.2
    fit = bl.LMM("y ~ a * b + (1 | plot)", data).fit()
    assert fit.convergence.status == "converged"
    table = fit.anova(3, df="kenward-roger")

    y, grand = data["y"], data["y"].mean()
    mean = lambda *c: data.groupby(list(c))["y"].transform("mean")  # noqa: E731
    ms = {
        "a": ((mean("a") - grand) ** 2).sum() / 2,
        "plot": ((mean("plot") - mean("a")) ** 2).sum() / 9,
        "b": ((mean("b") - grand) ** 2).sum() / 3,
        "a:b": ((mean("a", "b") - mean("a") - mean("b") + grand) ** 2).sum() / 6,
        "error": ((y - mean("plot") - mean("a", "b") + mean("a")) ** 2).sum() / 27,
    }
    for term, error, ndf, ddf in (("a", "plot", 2, 9), ("b", "error", 3, 27), ("a:b", "error", 6, 27)):
        row = table.loc[term]
        assert row["statistic"] == pytest.approx(ms[term] / ms[error], rel=1e-7)
        assert row["ndf"] == ndf
        assert row["ddf"] == pytest.approx(ddf, rel=1e-6)
        assert row["scale"] == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize(("N", "m"), [(5, 3), (6, 3), (9, 3), (12, 4), (20, 5)])
def test_hotelling(N, m):
    """Complete data, unstructured V, equality of means: KR gives (N-m+1)/((N-1)(m-1)) T² on (m-1, N-m+1)."""
    rng = np.random.default_rng(N)
    Y = rng.normal(size=(N, m)) @ rng.normal(size=(m, m)) + np.arange(m) * 0.4
    data = pd.DataFrame(
        {"y": Y.ravel(), "v": np.tile([f"v{i}" for i in range(m)], N), "id": np.repeat(np.arange(N), m)}
    )
    fit = bl.LMM("y ~ v", data, residual=bl.Unstructured("v", subject="id")).fit()
    found = fit.test("v", df="kenward-roger")
    D = np.diff(Y, axis=1)
    T2 = N * D.mean(0) @ np.linalg.solve(np.cov(D.T), D.mean(0))
    F, ddf = (N - m + 1) / ((N - 1) * (m - 1)) * T2, N - m + 1
    assert found["statistic"] == pytest.approx(F, rel=1e-6)
    assert found["ddf"] == pytest.approx(ddf, rel=1e-6)
    assert found["p"] == pytest.approx(stats.f.sf(F, m - 1, ddf), rel=1e-5)


def test_kenward_roger_of_one_row_has_satterthwaite_df():
    fit = fitted(INFERENCE["orthodont_unbalanced_slope"])
    a = fit.summary("kenward-roger", information="observed")
    b = fit.summary("satterthwaite", information="observed")
    np.testing.assert_allclose(a["df"], b["df"], rtol=1e-9)
    assert (a["se"] > b["se"]).all()


def test_counted_degrees_of_freedom():
    sleep = bl.LMM("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy")).fit()
    assert sleep.summary("containment")["df"].tolist() == [17, 17]
    assert sleep.summary("between-within")["df"].tolist() == [17, 161]
    assert sleep.summary("residual")["df"].tolist() == [178, 178]
    assert np.isinf(sleep.summary("asymptotic")["df"]).all()
    orthodont = bl.LMM("distance ~ age * Sex + (1 | Subject)", bl.load_dataset("orthodont")).fit()
    assert orthodont.summary("between-within")["df"].tolist() == [25, 79, 25, 79]


def test_hypotheses_as_text_matrix_and_terms():
    fit = bl.LMM("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy")).fit()
    both = fit.test("Days = 10, Intercept = 250")
    assert both["ndf"] == 2
    matrix = fit.test([[0, 1]])
    assert matrix["p"] == pytest.approx(fit.test("Days = 0")["p"]) == pytest.approx(fit.summary().loc["Days", "p"])
    assert fit.test("2*Days - 20 = 0")["statistic"] == pytest.approx(fit.test("Days = 10")["statistic"])
    chi = fit.test("Days", df="asymptotic")
    assert chi["p"] == pytest.approx(stats.chi2.sf(chi["statistic"], 1))


def test_hypotheses_that_make_no_sense():
    fit = bl.LMM("distance ~ age * Sex + (1 | Subject)", bl.load_dataset("orthodont")).fit()
    with pytest.raises(bl.InferenceError, match="no coefficient of this model"):
        fit.test("Weight = 0")
    with pytest.raises(bl.InferenceError, match="contradict"):
        fit.test("age = 0, age = 1")
    with pytest.raises(bl.InferenceError, match="has 2 columns, and the model has 4"):
        fit.test([[1, 0]])
    with pytest.raises(bl.InferenceError, match="not zero"):
        fit.test(np.zeros((1, 4)))
    with pytest.raises(bl.InferenceError, match="not a method"):
        fit.summary("kr")
    with pytest.raises(bl.InferenceError, match="REML"):
        fit.model.fit("ML").summary("kenward-roger")
    with pytest.raises(bl.InferenceError, match="empty"):
        fit.test(" ")
    with pytest.raises(bl.InferenceError, match="type"):
        fit.anova(4)
    redundant = fit.test([[0, 1, 0, 0], [0, 2, 0, 0], [0, 0, 0, 1]])
    assert redundant["ndf"] == 2


def test_variance_at_zero_follows_the_stated_rule():
    """`drop` (SAS): the zero variance is known, the error has n - p df. `keep` (pbkrtest) counts it as estimated."""
    fit = model(read_json("lme4_models.json")["dyestuff2"]).fit()
    assert fit.summary("satterthwaite").loc["Intercept", "df"] == pytest.approx(29)
    assert fit.summary("kenward-roger").loc["Intercept", "df"] == pytest.approx(29)
    kept = fit.summary("kenward-roger", singular="keep").loc["Intercept"]
    assert kept["df"] == pytest.approx(5.0, rel=0.05)
    assert np.isfinite(kept["se"])


def test_type_one_and_two_tables():
    data = table("orthodont").drop(index=[2, 3, 9, 16, 40])
    fit = bl.LMM("distance ~ age * Sex + (1 | Subject)", data).fit()
    one, two, three = (fit.anova(t) for t in (1, 2, 3))
    last = [x.loc["age:Sex", "statistic"] for x in (one, two, three)]
    np.testing.assert_allclose(last, last[0], rtol=1e-9)
    assert two.loc["Sex", "statistic"] == pytest.approx(fit.test("Sex")["statistic"])
    assert one.loc["age", "statistic"] != pytest.approx(three.loc["age", "statistic"], rel=1e-3)


def test_type_three_does_not_depend_on_the_coding():
    data = table("machines")
    a = bl.LMM("score ~ Machine + (1 | Worker)", data).fit().anova(3)
    b = bl.LMM("score ~ C(Machine, contr.sum) + (1 | Worker)", data).fit().anova(3)
    np.testing.assert_allclose(a.to_numpy(), b.to_numpy(), rtol=1e-8)


def test_crossed_effects_without_large_matrices():
    """KR of a crossed design equals the dense formula."""
    rng = np.random.default_rng(1)
    a, b = np.repeat(np.arange(10), 6), np.tile(np.arange(6), 10)
    x = rng.normal(size=60)
    y = rng.normal(size=10)[a] + 1.5 * rng.normal(size=6)[b] + 0.7 * rng.normal(size=60) + 0.3 * x
    data = pd.DataFrame({"y": y, "x": x, "a": a.astype(str), "b": b.astype(str)}).drop(index=[3, 17, 42, 43, 58])
    fit = bl.LMM("y ~ x + (1 | a) + (1 | b)", data).fit()
    found = fit.summary("kenward-roger", information="expected")

    X = np.column_stack([np.ones(len(data)), data["x"]])
    bases = [np.equal.outer(data[c].to_numpy(), data[c].to_numpy()).astype(float) for c in "ab"] + [np.eye(len(data))]
    V = sum(v * B for v, B in zip(fit.parameters**2, bases, strict=True))
    Vi = np.linalg.inv(V)
    Φ = np.linalg.inv(X.T @ Vi @ X)
    P = Vi - Vi @ X @ Φ @ X.T @ Vi
    I = 0.5 * np.array([[np.trace(P @ A @ P @ B) for B in bases] for A in bases])
    W = np.linalg.inv(I)
    D = [-X.T @ Vi @ B @ Vi @ X for B in bases]
    inner = sum(
        W[i, j] * (X.T @ Vi @ bases[i] @ Vi @ bases[j] @ Vi @ X - D[i] @ Φ @ D[j]) for i in range(3) for j in range(3)
    )
    adjusted = Φ + 2 * Φ @ inner @ Φ
    np.testing.assert_allclose(found["se"], np.sqrt(np.diag(adjusted)), rtol=1e-8)
    g = np.array([[-(Φ @ Dk @ Φ)[i, i] for Dk in D] for i in range(2)])
    df = [2 * Φ[i, i] ** 2 / (g[i] @ W @ g[i]) for i in range(2)]
    np.testing.assert_allclose(found["df"], df, rtol=1e-8)
