"""Pictures of one fit: what they draw is what the tables say, on the axes they are given, in the data's
units.
"""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes

import bayeslmm as bl


@pytest.fixture(autouse=True)
def _close():
    plt.switch_backend("Agg")
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def sleep():
    return bl.LMM("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy")).fit()


@pytest.fixture(scope="module")
def rats():
    residual = bl.Exponential("Time") + bl.Independent()
    return bl.LMM(
        "weight ~ Time * Diet + (Time | Rat)", bl.load_dataset("bodyweight"), residual=residual
    ).fit()


def line(ax, index):
    return ax.lines[index].get_xydata()


def test_profiles_are_predictions(sleep):
    axes = bl.plot_predictions(sleep, subjects=["308", "335"], until=12)
    assert [ax.get_title() for ax in axes] == ["Subject 308", "Subject 335"]
    data = bl.load_dataset("sleepstudy")
    drawn = line(axes[0], 1)  # the subject's mean
    at = drawn[:, 0]
    expected = sleep.predict(data.iloc[:1].loc[[0] * len(at)].assign(Days=at))
    np.testing.assert_allclose(drawn[:, 1], expected["prediction"])
    assert at.max() == 12
    np.testing.assert_allclose(line(axes[0], 2)[:, 1], data[data.Subject == "308"]["Reaction"])
    band = axes[0].collections[0].get_paths()[0].vertices[:, 1]
    response = sleep.predict(data.iloc[:1].loc[[0] * len(at)].assign(Days=at), what="response", interval=0.9)
    assert band.max() == pytest.approx(response["upper"].max())
    assert axes[0].get_ylabel() == "Reaction (ms)"
    assert axes[0].get_xlabel() == "Days (day)"


def test_profiles_between_rows_only_where_they_can_be_made(rats):
    data = bl.load_dataset("orthodont")
    visits = bl.LMM("distance ~ age * Sex", data, residual=bl.AR1("age", subject="Subject")).fit()
    axes = bl.plot_predictions(visits, subjects=["F01"])
    assert len(line(axes[0], 1)) == 4
    with pytest.raises(bl.InferenceError, match="until=16"):
        bl.plot_predictions(visits, until=16)
    assert len(line(bl.plot_predictions(rats, subjects="1")[0], 1)) > 60


def test_profiles_share_a_scale_unless_bands_vanish(sleep, rats):
    shared = bl.plot_predictions(sleep)
    assert len({ax.get_ylim() for ax in shared}) == 1
    own = bl.plot_predictions(rats)
    assert len({ax.get_ylim() for ax in own}) > 1
    assert len({ax.get_ylim() for ax in bl.plot_predictions(rats, share_y=True)}) == 1


def test_shrinkage_joins_least_squares_and_eblups(sleep):
    (ax,) = bl.plot_ols_to_eblup(sleep)
    alone = bl.two_stage(
        "Reaction ~ Days", "~ 1", bl.load_dataset("sleepstudy"), subject="Subject"
    ).coefficients
    squares = next(x for x in ax.lines if x.get_marker() == "s").get_xydata()
    np.testing.assert_allclose(squares, alone - sleep.beta.values, atol=1e-8)
    points = next(x for x in ax.lines if x.get_marker() == "o").get_xydata()
    np.testing.assert_allclose(points, sleep.w["Subject"])
    assert ax.get_ylabel() == "Days, from population (ms/day)"
    one = bl.plot_ols_to_eblup(bl.LMM("Yield ~ 1 + (1 | Batch)", bl.load_dataset("dyestuff")).fit())
    assert one[0].get_xlabel().startswith("least squares: Intercept")


def test_caterpillar_is_in_order(sleep):
    axes = bl.plot_random_effects(sleep, level=0.8)
    assert [ax.get_title() for ax in axes] == ["Subject: Intercept", "Subject: Days"]
    points = next(x for x in axes[1].lines if x.get_label() == "EBLUP").get_xydata()
    assert (np.diff(points[:, 0]) >= 0).all()
    assert len(points) == 18
    assert axes[1].get_xlabel() == "from the population (ms/day)"
    assert "80% with β known" in [t.get_text() for t in axes[0].figure.legends[0].get_texts()]


def test_many_levels_are_thinned():
    crossed = bl.LMM("diameter ~ 1 + (1 | plate) + (1 | sample)", bl.load_dataset("penicillin")).fit()
    assert len(bl.plot_random_effects(crossed)) == 2
    assert len(crossed.random_effects().plot(group="sample")) == 1


def test_variogram_draws_its_table(rats, sleep):
    v = bl.variogram(rats)
    ax = v.plot()
    np.testing.assert_allclose(
        next(x for x in ax.lines if x.get_label() == "model").get_ydata(), v.table["model"]
    )
    np.testing.assert_allclose(ax.collections[-1].get_offsets()[:, 1], v.table["gamma"])
    assert any("above the scale" in t.get_text() for t in ax.texts)
    assert ax.get_xlabel() == "lag in Time (day)"
    assert "g²" in ax.get_ylabel()
    near = bl.plot_variogram(sleep)
    assert "total variance, model" in near.get_legend_handles_labels()[1]


def test_residuals_draw_the_residuals(sleep):
    axes = bl.plot_residuals(sleep)
    e = sleep.residuals("standardized")
    np.testing.assert_allclose(np.sort(axes[0].lines[1].get_ydata()), np.sort(e))
    lags = axes[2].lines[-1].get_ydata()
    np.testing.assert_allclose(lags, sleep.autocorrelation()["autocorrelation"].iloc[1:])
    assert axes[0].get_xlabel() == "fitted Reaction (ms)"
    assert "(ms)" in bl.plot_residuals(sleep, kind="conditional")[1].get_ylabel()


def test_influence_names_the_largest(sleep):
    found = sleep.influence()
    axes = found.plot(named=3)
    named = {t.get_text() for t in axes[0].texts}
    assert named == set(found.table["cook"].nlargest(3).index)
    assert "exact" in axes[0].get_title()


@pytest.mark.parametrize("draw", [bl.plot_predictions, bl.plot_ols_to_eblup, bl.plot_random_effects,
                                  bl.plot_variogram, bl.plot_residuals])  # fmt: skip
def test_everything_fits_into_one_given_pair_of_axes(draw, sleep):
    figure, ax = plt.subplots()
    drawn = np.ravel(draw(sleep, ax))
    assert all(isinstance(x, Axes) for x in drawn)
    assert all(x.figure is figure for x in drawn)
    figure.canvas.draw()


def test_bad_requests(sleep):
    alone = bl.LMM(
        "distance ~ age", bl.load_dataset("orthodont"), residual=bl.AR1("age", subject="Subject")
    ).fit()
    with pytest.raises(bl.DataError, match="No Subject '1'"):
        bl.plot_predictions(sleep, subjects=[1])
    with pytest.raises(bl.InferenceError, match="no random effects"):
        bl.plot_ols_to_eblup(alone)
    with pytest.raises(bl.InferenceError, match="no random effects"):
        bl.plot_random_effects(alone)
    with pytest.raises(bl.InferenceError, match="group='x'"):
        bl.plot_ols_to_eblup(sleep, group="x")
    with pytest.raises(bl.InferenceError, match="level=95"):
        bl.plot_random_effects(sleep, level=95)
