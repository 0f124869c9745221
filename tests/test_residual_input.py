"""Bad and odd input through the public names: a clear error or a stated fact, nothing lost in silence."""

import warnings

import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl


@pytest.fixture
def data():
    """20 subjects at 4 visits: a random intercept, autocorrelated errors."""
    rng = np.random.default_rng(7)
    visit = np.tile(np.arange(1, 5), 20)
    errors = rng.normal(size=(20, 4))
    for j in range(1, 4):
        errors[:, j] += 0.6 * errors[:, j - 1]
    return pd.DataFrame(
        {
            "y": 10 + 0.5 * visit + np.repeat(rng.normal(size=20), 4) + errors.ravel(),
            "visit": visit,
            "t": np.cumsum(rng.uniform(0.5, 1.5, (20, 4)), axis=1).ravel(),
            "id": np.repeat(np.arange(1, 21), 4),
            "sex": np.repeat(["F", "M"], 40),
            "site": np.tile(np.repeat(["a", "b"], 4), 10),
            "item": np.tile(["p", "q", "r", "s"], 20),
            "x": rng.uniform(1, 2, 80),
        }
    )


def fit(data, residual, formula="y ~ visit", **options):
    return bl.LMM(formula, data, residual=residual, **options).fit()


def refused(error, message, data, residual, formula="y ~ visit", **options):
    with pytest.raises(error, match=message) as info:
        bl.LMM(formula, data, residual=residual, **options)
    assert isinstance(info.value, bl.BayesLMMError)


# -------------------------------------------------------------------------------- places in time


SERIAL = [
    bl.AR1("visit", subject="id"),
    bl.Toeplitz("visit", subject="id"),
    bl.Antedependence("visit", subject="id"),
    bl.CompoundSymmetry("visit", subject="id"),
    bl.Unstructured("visit", subject="id"),
    bl.Exponential("visit", subject="id"),
    bl.Matern32("visit", subject="id"),
]


@pytest.mark.parametrize("residual", SERIAL, ids=str)
def test_two_rows_of_one_subject_at_one_time(residual, data):
    twice = pd.concat([data, data.iloc[[6]].assign(y=12.0)], ignore_index=True)
    message = r"Rows 6, 80 are one subject's at the same visit = 3.*\+ Independent\(\).*2 rows"
    refused(bl.CovarianceError, message, twice, residual)


@pytest.mark.parametrize("residual", [SERIAL[0], SERIAL[4], SERIAL[5]], ids=str)
def test_two_rows_at_one_time_with_measurement_error(residual, data):
    twice = pd.concat([data, data.assign(y=data.y + np.resize([0.5, -0.3, 0.1], 80))], ignore_index=True)
    found = fit(twice, residual + bl.Independent())
    assert found.convergence
    assert 0 < found.sigma < 0.5


def test_row_numbers_are_those_of_the_users_table(data):
    twice = pd.concat([data.assign(y=data.y.where(data.index > 1)), data.iloc[[6]]], ignore_index=True)
    with pytest.warns(bl.DataNote, match="2 of 81 rows"):
        refused(bl.CovarianceError, "Rows 6, 80 are", twice, SERIAL[0])
    with pytest.warns(bl.DataNote, match="2 of 80 rows"):
        refused(bl.DataError, r"'t' is infinite in 1 of 78 rows \(row 5\)",
                data.assign(y=data.y.where(data.index > 1), t=data.t.where(data.index != 5, np.inf)),
                bl.Exponential("t", subject="id"))  # fmt: skip


@pytest.mark.parametrize("residual", [*SERIAL, bl.Exponential("t", subject="id") + bl.Independent()], ids=str)
def test_unordered_times_give_the_same_fit(residual, data):
    shuffled = data.sample(frac=1, random_state=np.random.default_rng(3))
    one, other = fit(data, residual), fit(shuffled, residual)
    np.testing.assert_allclose(other.loglik, one.loglik, rtol=1e-10)
    np.testing.assert_allclose(other.beta, one.beta, rtol=1e-5)
    assert list(other.parameters.index) == list(one.parameters.index)


def test_no_column_takes_the_order_of_rows(data):
    named, by_order = fit(data, bl.AR1("visit", subject="id")), fit(data, bl.AR1(subject="id"))
    np.testing.assert_allclose(by_order.loglik, named.loglik, rtol=1e-10)


def test_a_subject_may_miss_a_visit(data):
    holes = data.drop(index=[1, 7, 30])
    for residual in SERIAL:
        found = fit(holes, residual)
        assert found.V("1").shape == (3, 3)
        np.testing.assert_allclose(found.V("1"), found.V("3")[[0, 2, 3], [0, 2, 3]], rtol=1e-10)


@pytest.mark.parametrize("kind", [bl.Unstructured, bl.AR1, lambda *a, **k: bl.AR1(*a, **k, by="v")])
def test_a_visit_that_never_occurs_is_left_out_and_said(kind, data):
    residual = kind("v", subject="id")
    v = pd.Categorical("v" + data.visit.astype(str), categories=["v1", "v0", "v2", "v3", "v4", "v5"])
    said = r"^'v' has no row at v0, v5, which .* leaves out: its levels are v1, v2, v3, v4\.$"
    with pytest.warns(bl.DataNote, match=said) as notes:
        odd = fit(data.assign(v=v), residual)
    assert notes[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = fit(data.assign(v=v.remove_unused_categories()), residual)
    np.testing.assert_allclose(odd.loglik, plain.loglik, rtol=1e-12)
    assert list(odd.parameters.index) == list(plain.parameters.index)


@pytest.mark.parametrize("residual", SERIAL[:2], ids=str)
def test_visits_with_a_gap_are_neighbours_and_it_is_said(residual, data):
    gap = data.assign(visit=data.visit.map({1: 1, 2: 2, 3: 3, 4: 6}))
    said = r"4 visits in their order.*from 3 to 6 in one step.* smallest step is 1\. .*Exponential\('visit'\)"
    with pytest.warns(bl.DataNote, match=said):
        found = bl.LMM("y ~ t", gap, residual=residual).fit()
    np.testing.assert_allclose(found.loglik, fit(data, residual, "y ~ t").loglik, rtol=1e-12)


def test_no_note_where_distances_are_equal_or_do_no_harm(data):
    bl.LMM("y ~ visit", data.assign(visit=7.5 * data.visit), residual=SERIAL[0])
    gap = data.assign(visit=data.visit**2)
    for residual in (*SERIAL[2:], bl.AR1(subject="id")):
        bl.LMM("y ~ t", gap, residual=residual)


def test_a_time_that_is_a_date(data):
    days = pd.to_timedelta(data.visit, unit="D")
    for when in (pd.Timestamp("2024-01-01") + days, days, (pd.Timestamp("2024-01-01") + days).dt.date):
        message = r"'when' holds dates or times, and the range of Gaussian needs a unit.*\.dt\.days"
        refused(bl.DataError, message, data.assign(when=when), bl.Gaussian("when", subject="id"))
    when = pd.Timestamp("2024-01-01") + days
    refused(bl.DataError, "Number the visits", data.assign(when=when), bl.AR1("when", subject="id"))


def test_a_time_that_is_no_number(data):
    refused(bl.DataError, "'item' holds text.*AR1, Toeplitz", data, bl.Exponential("item", subject="id"))
    refused(bl.CovarianceError, r"Exponential needs its time column", data, bl.Exponential(subject="id"))


def test_one_visit_only(data):
    first = data[data.visit == 1]
    refused(bl.CovarianceError, "'one' has the single value 1", data[data.visit < 3].assign(one=1),
            bl.AR1("one", subject="id") + bl.Independent(), "y ~ x")  # fmt: skip
    for residual in (bl.Exponential("t", subject="id"), bl.AR1(subject="id")):
        refused(bl.CovarianceError, "'id', and each of its 20 levels has one row", first, residual, "y ~ x")


# -------------------------------------------------------------------------------- unstructured


def test_unstructured_needs_more_subjects_than_visits(data):
    few = data[data.id <= 4]
    refused(bl.CovarianceError, "4 visits need 10 parameters and there are 4 subjects", few, SERIAL[4])
    assert len(fit(data[data.id <= 8], SERIAL[4]).parameters) == 10


def test_a_pair_of_visits_never_seen_together(data):
    apart = data[~(((data.id <= 10) & (data.visit == 2)) | ((data.id > 10) & (data.visit == 4)))]
    refused(
        bl.CovarianceError, r"no subject was seen at both 2 and 4.*\(1 such pair\).*AR1", apart, SERIAL[4]
    )
    assert fit(apart, SERIAL[0]).convergence


def test_unstructured_needs_its_column(data):
    refused(bl.CovarianceError, "Unstructured.. needs its visit column", data, bl.Unstructured(subject="id"))


# -------------------------------------------------------------------------------- the scale


def test_a_level_with_one_row(data):
    alone = data.assign(k=np.where(data.index == 3, "rare", data.sex))
    refused(bl.CovarianceError, "level rare of 'k' has one row", alone, bl.Independent(by="k"))


def test_missing_levels_are_left_out_and_counted(data):
    holes = data.assign(sex=data.sex.where(data.index > 4))
    with pytest.warns(bl.DataNote, match="5 of 80 rows left out: sex is missing in 5"):
        found = fit(holes, bl.Independent(by="sex"), "y ~ visit + (1 | id)")
    assert "5 of 80 rows left out: sex is missing in 5" in repr(found)
    assert found.model.design.rows.tolist() == list(range(5, 80))


def test_an_empty_level_is_left_out_and_said(data):
    sex = pd.Categorical(data.sex, categories=["M", "X", "F"])
    with pytest.warns(bl.DataNote, match="'sex' has no row at X"):
        found = fit(data.assign(sex=sex), bl.Independent(by="sex"))
    assert found.sigma.coords["sex"].to_numpy().tolist() == ["M", "F"]


@pytest.mark.parametrize(
    ("power", "message"),
    [
        ("x", r"needs positive numbers, and 'x' is -1 in row 9 \(1 such rows\)"),
        ("zero", "'zero' is 0 in row 0 .80 such"),
        ("far", "'far' is inf in row 0"),
        ("sex", "'sex' holds text"),
        ("fitted", "depends on w, and then the marginal distribution of y is not normal.*closed-form"),
        ("fitted(.)", "Name a positive covariate instead"),
    ],
)
def test_powers(power, message, data):
    odd = data.assign(x=data.x.where(data.index != 9, -1.0), zero=0.0, far=np.inf)
    refused(bl.CovarianceError, message, odd, bl.Independent(power=power))


def test_weights_need_a_measurement_error(data):
    both = bl.Exponential("t", subject="id") + bl.AR1("visit", subject="id")
    refused(bl.CovarianceError, "weights= says which.*no measurement error: add", data, both, weights="x")
    assert fit(data, bl.AR1("visit", subject="id"), weights="x").convergence


# -------------------------------------------------------------------------------- subjects and sums


@pytest.mark.parametrize(
    "residual",
    [
        bl.AR1("vist", subject="id"),
        bl.AR1("visit", subject="Id"),
        bl.Independent(by="Sex"),
        bl.Independent(power="X"),
        bl.Exponential("T", subject="id") + bl.Independent(),
    ],
    ids=str,
)
def test_unknown_columns_name_close_ones(residual, data):
    refused(bl.DataError, r"has no column '\w+'. Did you mean '(visit|id|sex|x|t)", data, residual)


def test_what_is_no_structure(data):
    refused(bl.CovarianceError, "not Exponential: call it, with its column", data, bl.Exponential)
    refused(bl.CovarianceError, "not 'AR1'", data, "AR1")
    with pytest.raises(bl.CovarianceError, match="not AR1: call it"):
        bl.Independent() + bl.AR1
    with pytest.raises(TypeError, match=r"did you mean Independent\(by='sex'\)"):
        bl.Independent("sex")


def test_components_that_cannot_be_told_apart(data):
    one = bl.Exponential("t", subject="id")
    refused(bl.CovarianceError, "Two Independent", data, bl.Independent() + bl.Independent(by="sex"))
    refused(bl.CovarianceError, r"the component Exponential\('t', subject='id'\) twice", data, one + one)
    assert bl.LMM("y ~ t", data, residual=one + bl.Gaussian("t", subject="id")).residual.parts


@pytest.mark.parametrize("residual", [SERIAL[1], SERIAL[3], SERIAL[4]], ids=str)
def test_a_measurement_error_that_is_already_there(residual, data):
    refused(bl.CovarianceError, r"already hold the measurement error", data, residual + bl.Independent())
    weighted = bl.LMM("y ~ visit", data, residual=residual + bl.Independent(), weights="x")
    assert len(weighted.residual.parts) == 2


def test_which_subject(data):
    refused(bl.CovarianceError, r"found \['id', 'site'\]: name the same", data,
            bl.Exponential("t", subject="id") + bl.AR1("visit", subject="site"))  # fmt: skip
    refused(bl.CovarianceError, "no grouping factor to take it from: name it", data, bl.AR1("visit"))
    crossed = "y ~ visit + (1 | id) + (1 | item)"
    refused(
        bl.CovarianceError,
        "grouping factors id, item are crossed: say within which",
        data,
        bl.AR1("visit"),
        crossed,
    )
    assert bl.LMM(crossed, data, residual=bl.AR1("visit", subject="id")).residual.subject_name == "id"
    assert bl.LMM("y ~ 1 + (1 | site/id)", data, residual=bl.AR1("visit")).residual.subject_name == "site:id"


# -------------------------------------------------------------------------------- the formula and the table


def bad(error, message, formula, table):
    with pytest.raises(error, match=message):
        bl.LMM(formula, table).fit()


def test_columns(data):
    bad(bl.DataError, r"no column 'vist'\. Did you mean 'visit'\?", "y ~ vist + (1 | id)", data)
    bad(bl.DataError, "no column 'idd'", "y ~ visit + (1 | idd)", data)
    bad(bl.DataError, "2 columns are named 'x'", "y ~ x + (1 | id)", pd.concat([data, data[["x"]]], axis=1))
    bad(bl.DataError, "The response must be numeric, and 'sex' holds text", "sex ~ visit + (1 | id)", data)
    bad(bl.DesignError, "response y is 3 in every row", "y ~ visit + (1 | id)", data.assign(y=3.0))
    bad(bl.DataError, r"y is infinite in 1 of 80 rows \(row 4\)", "y ~ visit + (1 | id)",
        data.assign(y=data.y.where(data.index != 4, np.inf)))  # fmt: skip
    bad(bl.DataError, r"x is infinite in 1 of 80 rows \(row 4\)", "y ~ x + (1 | id)",
        data.assign(x=data.x.where(data.index != 4, -np.inf)))  # fmt: skip


def test_tables(data):
    bad(bl.DataError, "The table has no rows", "y ~ visit + (1 | id)", data[:0])
    bad(
        bl.DataError, "No complete row is left: x is missing in 80 of 80 rows", "y ~ x", data.assign(x=np.nan)
    )
    bad(bl.DataError, "list is not a table", "y ~ visit", [1, 2])


def test_missing_values_are_counted_and_named(data):
    holes = data.assign(y=data.y.where(data.index > 1), x=data.x.where(data.index % 40 > 0))
    with pytest.warns(
        bl.DataNote, match=r"^3 of 80 rows left out: y is missing in 2, x is missing in 2\.$"
    ) as notes:
        found = bl.LMM("y ~ x + (1 | id)", holes).fit()
    assert notes[0].filename == __file__
    assert "3 of 80 rows left out: y is missing in 2, x is missing in 2" in repr(found)
    assert found.model.design.dropped.labels == (0, 1, 40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same = bl.LMM("y ~ x + (1 | id)", holes.drop(index=[0, 1, 40])).fit()
    assert found.loglik == pytest.approx(same.loglik, rel=1e-12)


def test_designs(data):
    bad(bl.DesignError, r"id has one level only \(1\)", "y ~ visit + (1 | id)", data[:4])
    rows = data.assign(row=range(80), z=data.visit - 2 * data.x)
    bad(
        bl.DesignError,
        "80 levels with 1 random effect each, 80 in all, for 80 rows",
        "y ~ x + (1 | row)",
        rows,
    )
    bad(bl.DesignError, "20 levels with 4 random effects each", "y ~ visit + (0 + item | id)", data)
    bad(bl.DesignError, r"z is a linear combination of visit, x\.", "y ~ visit + x + z + (1 | id)", rows)
    bad(bl.DesignError, "4 columns for 4 rows", "y ~ visit + x + t + (1 | id)", data[2:6])


@pytest.mark.parametrize(
    ("formula", "place"),
    [
        ("y ~ visit +", 10),
        ("y ~ (visit | id", 4),
        ("y ~ visit | id", 4),
        ("y ~ visit ~ id", 10),
        ("y ~ visit $ id", 10),
    ],
)
def test_a_syntax_error_points_at_the_place(formula, place, data):
    with pytest.raises(bl.FormulaError) as info:
        bl.LMM(formula, data)
    line = str(info.value).splitlines()[-1]
    assert line.startswith(" " * (2 + place) + "^")
    assert info.value.position == place


@pytest.mark.parametrize(
    "call",
    [
        "touch()",
        "touch(visit)",
        "np.log(x)",
        "x.__class__",
        "__import__('os')",
        "eval('touch()')",
        "I(touch())",
        "C(sex, touch)",
        "[touch() for i in x]",
        "{touch()}",
        "log(x, touch())",
        "(lambda: touch())()",
        "`x`.mean()",
        "Q('x')",
    ],
)
@pytest.mark.parametrize(
    "formula", ["y ~ {}", "{} ~ visit", "y ~ ({} | id)", "y ~ (1 | {})", "y ~ offset({})"]
)
def test_forbidden_calls_are_refused_and_never_evaluated(call, formula, data, monkeypatch):
    touched = []
    monkeypatch.setitem(globals(), "touch", lambda *_: touched.append(1))
    monkeypatch.setattr("builtins.touch", lambda *_: touched.append(1), raising=False)
    with pytest.raises(bl.BayesLMMError):
        bl.LMM(formula.format(call), data)
    assert not touched
