"""Tables of both engines: the right numbers under the right labels, and strangers refused."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from made_posterior import made_posterior

import bayeslmm as bl
from bayeslmm.comparison_tables import natural_intervals

SERIAL = bl.Exponential("Time") + bl.Independent()


@pytest.fixture(scope="module")
def fit():
    return bl.LMM("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy")).fit()


@pytest.fixture(scope="module")
def posterior(fit):
    return made_posterior(fit)


def stacked(tree, name):
    values = tree["posterior"][name].to_numpy()
    return values.reshape(-1, *values.shape[2:])


def test_fixed_effects_of_both_engines(fit, posterior):
    c = bl.compare(fit, posterior, level=0.9, df="satterthwaite")
    pd.testing.assert_frame_equal(
        c.fixed["REML"],
        fit.summary("satterthwaite", level=0.9)[["estimate", "se", "df", "lower", "upper"]],
        check_names=False,
    )
    beta = stacked(posterior, "beta")
    np.testing.assert_allclose(c.fixed["NUTS"]["mean"], beta.mean(0))
    np.testing.assert_allclose(c.fixed["NUTS"]["sd"], beta.std(0, ddof=1))
    np.testing.assert_allclose(c.fixed["NUTS"][["lower", "upper"]].T, np.quantile(beta, [0.05, 0.95], axis=0))
    assert "90 %" in c.intervals["fixed"]
    assert "Satterthwaite" in c.intervals["fixed"]
    assert "5 % and 95 % quantiles" in c.intervals["posterior"]


def test_variance_parameters_are_found_in_vectors_and_matrices(fit, posterior):
    table = bl.compare(fit, posterior).variance
    assert list(table.index) == list(fit.parameters.index)
    np.testing.assert_array_equal(table["REML"]["estimate"], fit.parameters)
    expected = {
        "sd_Subject[Days]": stacked(posterior, "sd_Subject")[:, 1],
        "corr_Subject[Intercept, Days]": stacked(posterior, "corr_Subject")[:, 0, 1],
        "sigma": stacked(posterior, "sigma"),
    }
    for name, draws in expected.items():
        assert table["NUTS"].loc[name, "mean"] == pytest.approx(draws.mean())
        assert table["NUTS"].loc[name, "median"] == pytest.approx(np.median(draws))


def test_subject_estimates_and_their_difference(fit, posterior):
    table = bl.compare(fit, posterior).subjects["Subject"]
    w = posterior["posterior"]["w_Subject"].mean(("chain", "draw")).to_numpy()
    row = table.loc[("335", "Days")]
    eblup = float(fit.w["Subject"].sel(Subject="335", effect="Days"))
    averaged = w[list(fit.w["Subject"].Subject.values).index("335"), 1]
    assert row["REML", "eblup"] == pytest.approx(eblup)
    assert row["NUTS", "mean"] == pytest.approx(averaged)
    assert row["NUTS", "difference"] == pytest.approx(eblup - averaged)


def test_order_of_labels_in_the_posterior_does_not_matter(fit, posterior):
    inner = posterior["posterior"].to_dataset()
    turned = inner.isel({d: slice(None, None, -1) for d in inner.dims if d not in ("chain", "draw")})
    a = bl.compare(fit, posterior)
    b = bl.compare(fit, xr.DataTree.from_dict({"posterior": turned}))
    np.testing.assert_allclose(a.fixed["NUTS"], b.fixed["posterior"])
    np.testing.assert_allclose(a.variance["NUTS"], b.variance["posterior"])
    np.testing.assert_allclose(a.subjects["Subject"]["NUTS"], b.subjects["Subject"]["posterior"])


@pytest.mark.parametrize(
    ("formula", "data", "residual"),
    [
        ("score ~ Machine + (1 | Worker) + (1 | Worker:Machine)", "machines", None),
        ("diameter ~ 1 + (1 | plate) + (1 | sample)", "penicillin", None),
        ("weight ~ Time * Diet + (Time || Rat)", "bodyweight", SERIAL),
        ("distance ~ age * Sex + (1 | Subject)", "orthodont", bl.Independent(by="Sex")),
        ("distance ~ age * Sex", "orthodont", bl.Unstructured("age", subject="Subject")),
        ("distance ~ age * Sex", "orthodont", bl.Toeplitz("age", subject="Subject")),
        ("distance ~ age + cs(1 + age | Subject)", "orthodont", None),
    ],
)
def test_every_layout_of_parameters(formula, data, residual):
    fit = bl.LMM(formula, bl.load_dataset(data), residual=residual).fit()
    c = bl.compare(fit, made_posterior(fit, draws=400))
    assert list(c.variance.index) == list(fit.parameters.index)
    assert set(c.subjects) == {t.group for t in fit.model.design.terms}
    inside = fit.parameters.abs() > 0.1
    ratio = (c.variance["NUTS"]["median"] / c.variance["REML"]["estimate"])[inside]
    assert ratio.between(0.5, 2).all()


def test_standard_errors_of_a_balanced_one_way_layout_are_those_of_the_anova():
    """Var(MSE) = 2 sigma^4 / 24 and Var(MSB) = 2 (sigma^2 + 5 sigma_b^2)^2 / 5"""
    fit = bl.LMM("Yield ~ 1 + (1 | Batch)", bl.load_dataset("dyestuff")).fit()
    found = natural_intervals(fit, 0.95)
    sb, s = fit.parameters
    between = s**2 + 5 * sb**2
    var_b = (2 * between**2 / 5 + 2 * s**4 / 24) / 25
    np.testing.assert_allclose(found["se"], [np.sqrt(var_b) / (2 * sb), s / np.sqrt(48)], rtol=1e-6)
    np.testing.assert_allclose(np.sqrt(found["lower"] * found["upper"]), found["estimate"])


def test_a_variance_of_zero_has_no_interval_and_is_shown_so():
    rng = np.random.default_rng(5)
    y = np.tile([-2.0, -1, 0, 1, 2], 6) + np.repeat(1e-3 * rng.normal(size=6), 5)
    fit = bl.LMM("y ~ 1 + (1 | g)", {"y": y, "g": np.repeat(list("abcdef"), 5)}).fit()
    assert fit.parameters["sd_g[Intercept]"] == 0
    c = bl.compare(fit, made_posterior(fit))
    row = c.variance["REML"].loc["sd_g[Intercept]"]
    assert row[["se", "lower", "upper"]].isna().all()
    assert np.isfinite(c.variance["REML"].loc["sigma"]).all()
    assert "boundary" in str(c)


# --- several posteriors and diagnostics


def test_several_posteriors_stand_side_by_side(fit, posterior):
    c = bl.compare(
        fit, posterior, made_posterior(fit, sampler="collapsed", chains=1), made_posterior(fit, seed=3)
    )
    assert list(c.posteriors) == ["NUTS", "collapsed", "NUTS 2"]
    assert list(dict.fromkeys(c.fixed.columns.get_level_values(0))) == ["REML", "NUTS", "collapsed", "NUTS 2"]
    assert np.isnan(c.diagnostics.loc["collapsed", "rhat"])
    assert c.diagnostics.loc["NUTS", "rhat"] < 1.1


def test_bad_chains_are_called_bad(fit):
    tree = made_posterior(fit, draws=500, divergences=3)
    tree["posterior"]["sigma"].data[0] += 100
    c = bl.compare(fit, tree)
    assert c.diagnostics.loc["NUTS", "divergences"] == 3
    assert c.diagnostics.loc["NUTS", "rhat"] > 1.5
    assert "not yet to be relied on" in str(c)
    assert "3 divergent" in str(c)


def test_good_chains_are_called_good(fit):
    text = str(bl.compare(fit, made_posterior(fit, draws=1000)))
    assert "no divergences" in text
    assert "not yet" not in text


def test_the_certificate_is_shown(fit):
    c = bl.compare(fit, fit.model.sample(draws=300, random_seed=1, prior_draws=0))
    row = c.diagnostics.loc["collapsed"]
    assert row["khat"] < 0.7
    assert row["seconds"] > 0
    assert f"Pareto k̂ = {row['khat']:.2f} (trusted up to 0.7)" in str(c)
    assert "Log evidence -" in str(c)
    tree = c.posteriors["collapsed"]
    tree["posterior"].attrs |= {"khat": 0.93, "method": "ensemble of Markov chains"}
    text = str(bl.compare(fit, tree))
    assert "not to be trusted (Pareto k̂ = 0.93), so that an ensemble of Markov chains took over" in text


def test_draws_that_never_change_do_not_hide_the_others(fit):
    tree = made_posterior(fit, draws=200)
    tree["posterior"]["w_Subject"].data[..., 0, 1] = 0.0
    row = bl.compare(fit, tree).diagnostics.loc["NUTS"]
    assert 1 <= row["rhat"] < 1.1
    assert row["ess_bulk"] > 50


def test_names_of_samplers(fit):
    said = {
        "nuts (pymc)": "NUTS",
        "nuts (nutpie)": "NUTS (nutpie)",
        "collapsed": "collapsed",
        None: "posterior",
    }
    for sampler, name in said.items():
        assert list(bl.compare(fit, made_posterior(fit, draws=10, sampler=sampler)).posteriors) == [name]


# --- text


def test_text_and_html_show_the_numbers(fit, posterior):
    c = bl.compare(fit, posterior)
    for text in (str(c), c._repr_html_()):
        for number in ("251.4", "10.47", "24.74", "25.59", "Kenward-Roger", "equal-tailed"):
            assert number in text
    assert repr(c) == str(c)


def test_html_escapes_what_the_data_say():
    data = bl.load_dataset("sleepstudy").rename(columns={"Days": "<b>&day"})
    fit = bl.LMM("Reaction ~ `<b>&day` + (1 | Subject)", data).fit()
    page = bl.compare(fit, made_posterior(fit))._repr_html_()
    assert "<b>&day" not in page
    assert "&lt;b&gt;&amp;day" in page


# --- refusals


def test_a_posterior_of_other_coefficients_is_refused(fit, posterior):
    other = bl.LMM("Reaction ~ 1 + (Days | Subject)", bl.load_dataset("sleepstudy")).fit()
    with pytest.raises(bl.InferenceError, match="Days only in the posterior"):
        bl.compare(other, posterior)


def test_a_posterior_of_other_groups_is_refused(fit):
    data = bl.load_dataset("sleepstudy")
    data["Subject"] = "s" + data["Subject"]
    with pytest.raises(bl.InferenceError, match=r"levels and effects of Subject.*308"):
        bl.compare(fit, made_posterior(bl.LMM("Reaction ~ Days + (Days | Subject)", data).fit()))


def test_a_posterior_without_a_parameter_is_refused(fit):
    plain = bl.LMM("Reaction ~ Days + (1 | Subject)", bl.load_dataset("sleepstudy")).fit()
    with pytest.raises(bl.InferenceError, match=r"corr_Subject|Days"):
        bl.compare(fit, made_posterior(plain))
    serial = bl.LMM(
        "Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"), residual=bl.AR1()
    ).fit()
    with pytest.raises(bl.InferenceError, match="'sigma_serial'"):
        bl.compare(serial, made_posterior(fit))


def test_what_is_no_posterior_is_refused(fit, posterior):
    with pytest.raises(bl.InferenceError, match="at least one posterior"):
        bl.compare(fit)
    with pytest.raises(bl.InferenceError, match="not dict"):
        bl.compare(fit, {"beta": 1})
    with pytest.raises(bl.InferenceError, match="chain and draw"):
        bl.compare(fit, xr.DataTree.from_dict({"posterior": xr.Dataset({"beta": ("coef", [1.0, 2.0])})}))
    with pytest.raises(bl.InferenceError, match="between 0 and 1"):
        bl.compare(fit, posterior, level=95)


# --- draws of the real program


def test_draws_of_the_program_itself(fit, tmp_path):
    import pymc as pm

    with fit.model.to_pymc():
        tree = pm.sample(
            200,
            tune=300,
            chains=2,
            cores=1,
            random_seed=3,
            progressbar=False,
            compute_convergence_checks=False,
        )
    c = bl.compare(fit, tree)
    assert list(c.posteriors) == ["NUTS"]
    assert ((c.fixed["NUTS"]["mean"] - c.fixed["REML"]["estimate"]).abs() < 0.5 * c.fixed["REML"]["se"]).all()
    assert c.variance["NUTS"].loc["sigma", "mean"] == pytest.approx(25.6, abs=1.5)
    eblup, mean = c.subjects["Subject"]["REML"]["eblup"], c.subjects["Subject"]["NUTS"]["mean"]
    assert np.corrcoef(eblup, mean)[0, 1] > 0.99
    row = c.diagnostics.loc["NUTS"]
    assert np.isfinite(row.drop("khat").to_numpy(float)).all()
    assert np.isnan(row["khat"])
    tree.to_netcdf(tmp_path / "draws.nc", engine="h5netcdf")
    with xr.open_datatree(tmp_path / "draws.nc", engine="h5netcdf") as again:
        pd.testing.assert_frame_equal(bl.compare(fit, again).variance, c.variance)
