"""Pictures: what is drawn, with which labels and units, for few and many subjects; nothing is shown."""

import matplotlib as mpl
import numpy as np
import pytest
from made_posterior import made_posterior

import bayeslmm as bl

mpl.use("Agg")

import matplotlib.pyplot as plt

from bayeslmm.plots import style
from bayeslmm.plots.subjects import choose_axis, evenly, least_squares_by_group, profile_subject

FORMULAS = {name: bl.describe_dataset(name).formula for name in bl.dataset_names()}


@pytest.fixture(autouse=True)
def _never_shown(monkeypatch):
    monkeypatch.setattr(plt, "show", lambda *a, **k: pytest.fail("plt.show() was called"))
    yield
    plt.close("all")


def compared(name, formula=None, residual=None, **kwargs):
    data = bl.load_dataset(name)
    fit = bl.LMM(formula or FORMULAS[name], data, residual=residual).fit()
    return bl.compare(fit, made_posterior(fit, **kwargs))


@pytest.fixture(scope="module")
def sleep():
    return compared("sleepstudy")


@pytest.fixture(scope="module")
def many():
    """200 subjects with long names, some with one row."""
    rng = np.random.default_rng(2)
    count = np.where(np.arange(200) % 10, 4, 1)
    subject = np.repeat([f"participant number {i:04d} of the northern clinic" for i in range(200)], count)
    t = np.concatenate([np.arange(c) for c in count]).astype(float)
    y = 10 + t + np.repeat(rng.normal(size=200), count) + 0.5 * np.repeat(rng.normal(size=200), count) * t
    fit = bl.LMM(
        "y ~ t + (t | subject)", {"y": y + rng.normal(size=len(y)), "t": t, "subject": subject}
    ).fit()
    return bl.compare(fit, made_posterior(fit, draws=20))


# --- estimates


def test_estimates_have_a_panel_each_with_the_interval_and_the_unit(sleep):
    axes = sleep.plot_estimates()
    assert [a.get_title() for a in axes] == ["Intercept (ms)", "Days (ms/day)"]
    assert [t.get_text() for t in axes[0].get_yticklabels()] == ["NUTS", "REML"]
    drawn = [line.get_xdata() for line in axes[1].lines if len(line.get_xdata()) == 2]
    for reading, x in zip(["NUTS", "REML"], drawn, strict=True):
        np.testing.assert_allclose(x, sleep.fixed[reading].loc["Days", ["lower", "upper"]])


def test_variance_panels_have_units(sleep):
    titles = [a.get_title().replace("\n", "") for a in sleep.plot_variance()]
    assert titles == [
        "sd_Subject[Intercept] (ms)",
        "sd_Subject[Days] (ms/day)",
        "corr_Subject[Intercept, Days]",
        "sigma (ms)",
    ]


def test_axes_of_the_caller_are_used(sleep):
    figure, axes = plt.subplots(1, 3)
    assert list(sleep.plot_estimates(axes)) == list(axes[:2])
    assert len(figure.axes) == 3
    _, single = plt.subplots()
    inside = sleep.plot_variance(single)
    assert len(inside) == 4
    assert all(a in single.child_axes for a in inside)
    with pytest.raises(bl.InferenceError, match=r"4 panels and 3 axes"):
        sleep.plot_variance(axes)
    _, one = plt.subplots()
    assert sleep.plot_shrinkage(one)[0] is one
    assert one.get_legend() is not None


def test_long_labels_are_wrapped():
    label = "a_rather_long_column_name:another[T.a level with several words]"
    lines = style.wrapped(label).split("\n")
    assert max(map(len, lines)) <= 28
    assert "".join(lines).replace(" ", "") == label.replace(" ", "")


@pytest.mark.parametrize(
    ("label", "unit"),
    [
        ("Intercept", "mm"),
        ("age", "mm/year"),
        ("center(age)", "mm/year"),
        ("Sex[T.Female]", "mm"),
        ("age:Sex[T.Female]", "mm/year"),
        ("C(Sex, contr.sum)[S.Male]", "mm"),
        ("log(age)", ""),
        ("poly(age, 2)[1]", ""),
    ],
)
def test_units_of_coefficients(label, unit):
    model = bl.LMM("distance ~ age + (1 | Subject)", bl.load_dataset("orthodont"))
    assert style.effect_unit(model, label) == unit


def test_units_of_variance_parameters_and_no_invented_ones():
    model = bl.LMM(
        FORMULAS["bodyweight"],
        bl.load_dataset("bodyweight"),
        residual=bl.Exponential("Time") + bl.Independent(),
    )
    units = {n: style.parameter_unit(model, n) for n in model.covariance.names}
    assert units == {
        "sd_Rat[Intercept]": "g",
        "sd_Rat[Time]": "g/day",
        "corr_Rat[Intercept, Time]": "",
        "sigma_serial": "g",
        "range": "day",
        "sigma": "g",
    }
    pastes = bl.LMM(FORMULAS["pastes"], bl.load_dataset("pastes"))
    assert style.response_label(pastes) == "strength"
    assert style.effect_unit(pastes, "Intercept") == ""


# --- shrinkage


def test_shrinkage_starts_at_least_squares_of_each_subject(sleep):
    ax = sleep.plot_shrinkage()[0]
    data, fit = bl.load_dataset("sleepstudy"), sleep.fit
    own = np.array([np.polyfit(d["Days"], d["Reaction"], 1)[::-1] for _, d in data.groupby("Subject")])
    circles = next(line for line in ax.lines if line.get_markerfacecolor() == "none")
    np.testing.assert_allclose(circles.get_xydata(), own - fit.beta.values, atol=1e-8)
    eblup = next(line for line in ax.lines if line.get_color() == style.CLOSED)
    np.testing.assert_allclose(eblup.get_xydata(), fit.w["Subject"].values)
    assert "ms/day" in ax.get_ylabel()


def test_least_squares_is_missing_where_a_subject_has_too_few_rows(many):
    design = many.fit.model.design
    own = least_squares_by_group(design.terms[0], design.y)
    assert np.isnan(own).all(axis=1).sum() == 20
    assert "20 without" in many.plot_shrinkage()[0].get_title()


def test_shrinkage_of_crossed_and_nested_factors():
    axes = compared("machines").plot_shrinkage()
    assert [a.get_title() for a in axes] == ["6 levels of Worker", "18 levels of Worker:Machine"]
    data = bl.load_dataset("machines")
    centred = data["score"] - data.groupby("Machine")["score"].transform("mean")
    circles = next(line for line in axes[0].lines if line.get_markerfacecolor() == "none")
    np.testing.assert_allclose(
        np.sort(circles.get_xdata()), np.sort(centred.groupby(data["Worker"]).mean()), atol=1e-8
    )


def test_shrinkage_needs_random_effects():
    c = compared("orthodont", "distance ~ age", bl.AR1("age", subject="Subject"))
    with pytest.raises(bl.InferenceError, match="no random effects"):
        c.plot_shrinkage()
    assert len(c.plot_profiles()) == 24


def test_unknown_groups_columns_and_posteriors_are_named(sleep):
    with pytest.raises(bl.InferenceError, match=r"'Rat'.*Subject"):
        sleep.plot_shrinkage(group="Rat")
    with pytest.raises(bl.DataError, match=r"'Rat'.*Subject"):
        sleep.plot_profiles(group="Rat")
    with pytest.raises(bl.DataError, match="no column"):
        sleep.plot_profiles(x="Night")
    with pytest.raises(bl.InferenceError, match=r"'HMC'.*'NUTS'"):
        sleep.plot_trace("HMC")


# --- profiles


def test_profiles_show_data_and_three_lines(sleep):
    axes = sleep.plot_profiles()
    assert [a.get_title() for a in axes] == list(sleep.fit.model.design.terms[0].levels)
    data = bl.load_dataset("sleepstudy")
    measured, population, eblup, averaged = axes[-1].lines[:4]
    own = data[data["Subject"] == "372"]
    np.testing.assert_array_equal(measured.get_ydata(), own["Reaction"])
    np.testing.assert_allclose(population.get_ydata(), sleep.fit.beta.values @ [np.ones(10), own["Days"]])
    line = sleep.fit.beta.values + sleep.fit.w["Subject"].sel(Subject="372").values
    np.testing.assert_allclose(eblup.get_ydata(), line @ [np.ones(10), own["Days"]])
    assert not np.allclose(eblup.get_ydata(), averaged.get_ydata())
    figure = axes[0].figure
    assert figure.get_supxlabel() == "Days (day)"
    assert figure.get_supylabel() == "Reaction (ms)"


def test_at_most_24_subjects_are_drawn_and_it_is_said(many):
    axes = many.plot_profiles()
    assert len(axes) == 24
    assert axes[0].get_title().replace("\n", " ").startswith("participant number 0000")
    assert "0199" in axes[-1].get_title()
    assert axes[0].figure.legends[0].get_title().get_text() == "24 of 200 levels of subject, evenly chosen"


def test_subjects_are_chosen_evenly():
    np.testing.assert_array_equal(evenly(5, 24), np.arange(5))
    chosen = evenly(200, 24)
    assert len(chosen) == 24
    assert set(np.diff(chosen)) <= {8, 9}


@pytest.mark.parametrize(
    ("name", "formula", "residual", "column"),
    [
        ("sleepstudy", None, None, "Days"),
        ("orthodont", None, None, "age"),
        ("ovary", None, None, "Time"),
        ("bodyweight", "weight ~ Diet + (1 | Rat)", bl.Exponential("Time") + bl.Independent(), "Time"),
        ("machines", None, None, "Machine"),
        ("penicillin", None, None, "sample"),
        ("dyestuff", None, None, ""),
    ],
)
def test_what_runs_along_x(name, formula, residual, column):
    model = bl.LMM(formula or FORMULAS[name], bl.load_dataset(name), residual=residual)
    _, codes, _ = profile_subject(model)
    values, found, ticks = choose_axis(model, codes, None)
    assert found == column
    assert bool(ticks) == (column in ("Machine", "sample"))
    assert len(values) == len(model.design.y)


# --- chains


def test_trace_and_rank_are_figures_of_the_population_parameters(sleep):
    for plot in (sleep.plot_trace, sleep.plot_rank):
        figure = plot()
        titles = [a.get_title() for a in figure.axes]
        assert [t for t in titles if t] == ["beta[Intercept]", "beta[Days]", *sleep.fit.parameters.index]


def test_ranks_of_one_chain_are_refused(sleep):
    c = bl.compare(sleep.fit, made_posterior(sleep.fit, chains=1))
    with pytest.raises(bl.InferenceError, match="compares chains"):
        c.plot_rank()


def assert_inside(figure):
    """Everything drawn lies in the figure, to two hundredths of an inch."""
    figure.canvas.draw()
    drawn = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert min(drawn.x0, drawn.y0) > -0.02
    assert drawn.x1 < width + 0.02
    assert drawn.y1 < height + 0.02


@pytest.mark.parametrize("name", ["pastes", "penicillin", "orthodont", "dyestuff"])
def test_no_text_is_cut_off(name):
    c = compared(name, draws=20)
    for axes in (c.plot_estimates(), c.plot_variance(), c.plot_shrinkage(), c.plot_profiles()):
        assert_inside(axes[0].figure)


def test_no_long_name_is_cut_off(many):
    for axes in (many.plot_estimates(), many.plot_variance(), many.plot_shrinkage(), many.plot_profiles()):
        assert_inside(axes[0].figure)
