"""Tables and designs: what is built, what is left out and said, and what is refused."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bayeslmm.design import make_design
from bayeslmm.errors import BayesLMMError, DataError, DataNote, DesignError, FormulaError
from bayeslmm.grouping import Block
from bayeslmm.identifiability import check_identifiable, find_aliased
from bayeslmm.newdata import apply_design
from bayeslmm.table import as_frame, complete_rows


@pytest.fixture
def data():
    rng = np.random.default_rng(1)
    n = 36
    return pd.DataFrame(
        {
            "y": rng.normal(size=n),
            "x": rng.uniform(1, 2, n),
            "t": np.tile([0.0, 1.0, 2.0], 12),
            "f": rng.permutation(np.tile(["b", "a", "c"], 12)),
            "g": np.repeat(np.arange(308, 320), 3),
            "h": np.tile(np.repeat(["W2", "W1"], 3), 6),
            "m": rng.permutation(np.tile(["M1", "M2", "M10"], 12)),
            "sex": pd.Categorical(np.repeat(["M", "F"], 18), categories=["M", "F", "X"], ordered=True),
            "ok": rng.choice([True, False], n),
            "w": rng.uniform(0.5, 2, n),
        }
    )


def test_a_design(data):
    design = make_design("y ~ t*sex + (t | g)", data)
    assert design.response == "y"
    assert design.coefs == ("Intercept", "t", "sex[T.F]", "t:sex[T.F]")
    assert design.X.shape == (36, 4)
    np.testing.assert_array_equal(design.y, data.y)
    np.testing.assert_array_equal(design.offset, np.zeros(36))
    np.testing.assert_array_equal(design.weights, np.ones(36))
    np.testing.assert_array_equal(design.rows, np.arange(36))
    assert str(design.dropped) == "all 36 rows used"
    (term,) = design.terms
    assert (term.group, term.columns, term.effects) == ("g", ("g",), ("Intercept", "t"))
    assert term.levels.tolist() == [str(i) for i in range(308, 320)]
    np.testing.assert_array_equal(term.codes, np.repeat(np.arange(12), 3))
    np.testing.assert_array_equal(term.Z, np.column_stack([np.ones(36), data.t]))
    assert term.blocks == (Block("free", (0, 1), False),)


def test_bars_of_one_group_become_blocks(data):
    (term,) = make_design("y ~ 1 + (1 | g) + (0 + t | g)", data).terms
    assert term.effects == ("Intercept", "t")
    assert term.blocks == (Block("free", (0,), False), Block("free", (1,), False))
    (term,) = make_design("y ~ 1 + (t || g)", data).terms
    assert term.blocks == (Block("diag", (0, 1), False),)
    (term,) = make_design("y ~ 1 + (1 | h) + cs(0 + f | h)", data).terms
    assert term.effects == ("Intercept", "f[a]", "f[b]", "f[c]")
    assert term.blocks == (Block("free", (0,), False), Block("cs", (1, 2, 3), True))


def test_nested_groups(data):
    outer, inner = make_design("y ~ 1 + (1 | h/m)", data).terms
    assert (outer.group, inner.group) == ("h", "h:m")
    assert outer.levels.tolist() == ["W1", "W2"]
    assert inner.levels.tolist() == ["W1:M1", "W1:M10", "W1:M2", "W2:M1", "W2:M10", "W2:M2"]
    named = [f"{h}:{m}" for h, m in zip(data.h, data.m, strict=True)]
    assert inner.levels[inner.codes].tolist() == named
    (occurring,) = make_design("y ~ 1 + (1 | sex:g)", data).terms
    assert occurring.levels.tolist() == [f"M:{i}" for i in range(308, 314)] + [
        f"F:{i}" for i in range(314, 320)
    ]


@pytest.mark.parametrize(
    "column",
    [
        np.repeat([3, 1, 20], 12),
        np.repeat([3.0, 1.0, 20.0], 12),
        np.repeat([3, 1, 20], 12).astype("int8"),
        pd.array(np.repeat([3, 1, 20], 12), dtype="Int64"),
        pd.Categorical(np.repeat([3, 1, 20], 12)),
    ],
)
def test_numbers_as_groups(column, data):
    (term,) = make_design("y ~ 1 + (1 | k)", data.assign(k=column)).terms
    assert term.levels.tolist() == ["1", "3", "20"]
    assert term.levels[term.codes].tolist() == np.repeat(["3", "1", "20"], 12).tolist()


@pytest.mark.parametrize("unit", ["s", "us", "ns"])
def test_dates_as_groups(unit, data):
    day = pd.Series(pd.to_datetime(np.repeat(["2024-03-02", "2024-03-01", "2025-01-01"], 12)))
    (term,) = make_design("y ~ 1 + (1 | day)", data.assign(day=day.astype(f"datetime64[{unit}]"))).terms
    assert [level[:10] for level in term.levels] == ["2024-03-01", "2024-03-02", "2025-01-01"]
    np.testing.assert_array_equal(term.codes, np.repeat([1, 0, 2], 12))


def test_group_levels_follow_the_categories(data):
    k = pd.Categorical(data.f, categories=["c", "z", "a", "b"])
    (term,) = make_design("y ~ 1 + (1 | k)", data.assign(k=k)).terms
    assert term.levels.tolist() == ["c", "a", "b"]


def test_no_bar_and_no_column(data):
    assert make_design("y ~ x", data).terms == ()
    empty = make_design("y ~ 0 + (1 | g)", data)
    assert empty.X.shape == (36, 0)
    assert empty.coefs == ()
    assert apply_design(empty, data[:2]).X.shape == (2, 0)


def test_offsets_add(data):
    design = make_design("y ~ t + offset(x) + offset(log(x)) + offset(x + 1)", data)
    np.testing.assert_allclose(design.offset, 2 * data.x + np.log(data.x) + 1)
    np.testing.assert_allclose(apply_design(design, data[:5]).offset, design.offset[:5])


def test_transformed_response(data):
    design = make_design("log(x) ~ t", data)
    assert design.response == "log(x)"
    np.testing.assert_allclose(design.y, np.log(data.x))
    assert make_design("`x` ~ t", data).response == "x"


def test_weights(data):
    by_name, by_array = (make_design("y ~ t", data, weights=w) for w in ("w", data.w.to_numpy()))
    np.testing.assert_array_equal(by_name.weights, data.w)
    np.testing.assert_array_equal(by_array.weights, data.w)
    holes = data.assign(y=data.y.where(data.index > 2))
    with pytest.warns(DataNote, match="3 of 36"):
        design = make_design("y ~ t", holes, weights=data.w)
    np.testing.assert_array_equal(design.weights, data.w[3:])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("nope", "no column 'nope'"),
        ("f", "must be numbers"),
        ("t", "must be positive, which they are not in row 0"),
        (np.ones(3), "3 values for a table of 36 rows"),
        (np.full(36, np.inf), "weights is infinite"),
        (["a"] * 36, "must be numbers"),
    ],
)
def test_bad_weights(weights, message, data):
    with pytest.raises(DataError, match=message):
        make_design("y ~ 1", data, weights=weights)


def as_polars(data):
    """Convert to polars, where only an Enum has an order of levels."""
    return pl.from_pandas(data).with_columns(pl.col("sex").cast(pl.String).cast(pl.Enum(["M", "F", "X"])))


FORMULA = "y ~ t*f + ok + sex + C(m, contr.sum) + (t | g) + (1 | h:m)"


@pytest.mark.parametrize(
    "convert",
    [
        as_polars,
        lambda d: as_polars(d).with_columns(pl.col("f", "m").cast(pl.Categorical)),
        lambda d: as_polars(d).to_arrow(),
        pa.Table.from_pandas,
        lambda d: d.convert_dtypes(),
        lambda d: d.convert_dtypes(dtype_backend="pyarrow"),
        lambda d: d.astype({"f": object, "ok": object, "x": object}),
        lambda d: d.to_dict("series"),
        lambda d: {name: d[name].to_numpy() for name in d} | {"sex": d.sex},
        lambda d: d.set_index(d.index[::-1]),
    ],
)
def test_every_kind_of_table_gives_the_same_design(convert, data):
    expected, design = make_design(FORMULA, data), make_design(FORMULA, convert(data))
    assert design.coefs == expected.coefs
    np.testing.assert_array_equal(design.X, expected.X)
    np.testing.assert_array_equal(design.y, expected.y)
    for one, other in zip(design.terms, expected.terms, strict=True):
        assert one.levels.tolist() == other.levels.tolist()
        np.testing.assert_array_equal(one.codes, other.codes)
        np.testing.assert_array_equal(one.Z, other.Z)


def test_the_users_table_is_untouched(data):
    before = data.copy()
    design = make_design(FORMULA, data)
    design.frame["y"] = 0.0
    design.y[:] = 0
    design.X[:] = 0
    pd.testing.assert_frame_equal(data, before)


def test_row_order_moves_rows_only(data):
    order = np.random.default_rng(2).permutation(36)
    one, other = make_design(FORMULA, data), make_design(FORMULA, data.iloc[order])
    np.testing.assert_allclose(other.X, one.X[order])
    np.testing.assert_array_equal(other.terms[0].codes, one.terms[0].codes[order])
    assert other.terms[0].levels.tolist() == one.terms[0].levels.tolist()


# -------------------------------------------------------------------------------- missing rows


def test_missing_rows_are_counted_and_named(data):
    holes = data.set_index(pd.Index([f"r{i}" for i in range(36)]))
    holes.iloc[[0, 4], 0] = np.nan
    holes.iloc[4, 1] = np.nan
    holes["unused"] = np.nan
    with pytest.warns(
        DataNote, match=r"^2 of 36 rows left out: y is missing in 2, x is missing in 1\.$"
    ) as notes:
        design = make_design("y ~ x + (1 | g)", holes)
    assert len(notes) == 1
    assert notes[0].filename == __file__
    assert str(design.dropped) == "2 of 36 rows left out: y is missing in 2, x is missing in 1"
    assert design.dropped.labels == ("r0", "r4")
    assert design.dropped.by_column == {"y": 2, "x": 1}
    assert design.rows.tolist() == [i for i in range(36) if i not in (0, 4)]
    assert len(design.y) == len(design.frame) == 34
    assert design.frame.index.tolist() == list(range(34))
    assert "unused" in design.frame


@pytest.mark.parametrize(
    "missing",
    [
        lambda d: pl.from_pandas(d).with_columns(
            ok=pl.when(pl.col("t") == 0).then(None).otherwise(pl.col("ok"))
        ),
        lambda d: d.assign(ok=d.ok.astype("boolean").mask(d.t == 0)),
        lambda d: d.assign(ok=d.ok.astype(object).mask(d.t == 0, None)),
        lambda d: d.assign(ok=pd.array(d.ok.astype("boolean").mask(d.t == 0), dtype="bool[pyarrow]")),
    ],
)
def test_missing_booleans_stay_booleans(missing, data):
    with pytest.warns(DataNote, match="ok is missing in 12"):
        design = make_design("y ~ ok", missing(data))
    assert design.coefs == ("Intercept", "ok[T.True]")
    np.testing.assert_array_equal(design.X[:, 1], data.ok[data.t > 0])


def test_missing_groups_and_extra_columns(data):
    holes = data.assign(g=data.g.astype(float).where(data.index > 0), w=data.w.where(data.index > 1))
    with pytest.warns(DataNote, match="2 of 36 rows left out: g is missing in 1, w is missing in 2"):
        design = make_design("y ~ x + (1 | g)", holes, extra_columns=["w"])
    assert design.terms[0].levels[0] == "308"
    with pytest.raises(DataError, match="no column 'visit'"):
        make_design("y ~ x", data, extra_columns=["visit"])


def test_levels_that_only_missing_rows_had_are_left_out(data):
    with pytest.warns(DataNote):
        design = make_design("y ~ f", data.assign(y=data.y.where(data.f != "a")))
    assert design.coefs == ("Intercept", "f[T.c]")


def test_nothing_left(data):
    with pytest.raises(DataError, match="No complete row is left: x is missing in 36 of 36 rows"):
        make_design("y ~ x", pl.from_pandas(data).with_columns(x=None))


def test_complete_rows_without_missing(data):
    frame, dropped = complete_rows(as_frame(data), ["y"])
    assert len(frame) == 36
    assert dropped.rows == 0


# -------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (3, "int is not a table"),
        ([1, 2], "list is not a table"),
        (pd.Series([1, 2]), "Series is not a table"),
        (np.ones((2, 2)), "ndarray is not a table"),
        (pl.LazyFrame({"y": [1]}), r"lazy: call its collect\(\)"),
        ({"y": [1, 2], "x": [1]}, "equally long"),
        (pd.DataFrame({"y": []}), "no rows"),
        (pl.DataFrame({"y": []}), "no rows"),
    ],
)
def test_what_is_no_table(table, message):
    with pytest.raises(DataError, match=message):
        make_design("y ~ 1", table)


def test_unknown_column(data):
    with pytest.raises(DataError, match=r"no column 'Sex'. Did you mean 'sex'\? Its columns are: y, x, t"):
        make_design("y ~ Sex", data)
    with pytest.raises(DataError, match="table's index"):
        make_design("y ~ g", data.set_index("g"))
    with pytest.raises(DataError, match="no column 'nope'"):
        make_design("y ~ x + (1 | nope)", data)


def test_duplicate_columns(data):
    twice = pd.concat([data, data[["x"]]], axis=1)
    with pytest.raises(DataError, match="2 columns are named 'x'"):
        make_design("y ~ x", twice)
    assert make_design("y ~ t", twice).coefs == ("Intercept", "t")
    arrow = pa.Table.from_arrays([pa.array([1.0, 2.0])] * 2, names=["y", "y"])
    with pytest.raises(DataError, match="unique column names"):
        make_design("y ~ 1", arrow)


def test_a_dict_of_series_is_not_realigned():
    y, x = pd.Series([1.0, 2.0, 3.0]), pd.Series([1.0, 2.0, 4.0], index=[2, 1, 0])
    np.testing.assert_array_equal(make_design("y ~ x", {"y": y, "x": x}).X[:, 1], [1, 2, 4])


@pytest.mark.parametrize(
    ("response", "message"),
    [
        ("f", "response must be numeric, and 'f' holds text"),
        ("sex", "'sex' holds text or categories"),
        ("ok", "'ok' holds True and False"),
        ("log(f)", "'f' holds text"),
        ("when", "holds dates"),
        ("z", "mixed or unusual"),
    ],
)
def test_response_must_be_numeric(response, message, data):
    table = data.assign(when=pd.Timestamp("2020-01-01"), z=1j)
    with pytest.raises(DataError, match=message):
        make_design(f"{response} ~ x", table)


def test_infinite_values(data):
    table = data.assign(x=data.x.where(data.index != 7, np.inf))
    for formula in ("y ~ x", "x ~ t", "y ~ (x | g)", "y ~ offset(x)"):
        with pytest.raises(DataError, match=r"x is infinite in 1 of 36 rows \(row 7\)"):
            make_design(formula, table)
    with pytest.raises(DataError, match=r"log\(t\) is infinite in 12 of 36 rows \(row 0, 3, 6, 9, 12, ...\)"):
        make_design("log(t) ~ x", table)


def test_rank_deficiency_names_the_columns(data):
    table = data.assign(
        u=2 * data.x - 3 * data.t + 1, v=data.x, zero=0.0, k=data.t.map({0: "a", 1: "c", 2: "b"})
    )
    with pytest.raises(DesignError, match=r"u is a linear combination of Intercept, x, t\."):
        make_design("y ~ x + t + u", table)
    with pytest.raises(DesignError, match=r"v is a linear combination of x; zero is zero in every row"):
        make_design("y ~ x + t + v + zero", table)
    with pytest.raises(DesignError, match=r"k\[T.b\] is a linear combination of C\(t\)\[T.2\]; k\[T.c\]"):
        make_design("y ~ C(t) + k", table)


def test_rank_is_not_fooled_by_scale():
    rng = np.random.default_rng(3)
    year = 2000.0 + np.arange(30)
    X = np.column_stack([np.ones(30), year, 1e-9 * rng.normal(size=30), 1e9 * rng.normal(size=30)])
    assert find_aliased(X) == {}
    X = np.column_stack([X, X[:, 2] / 7, X[:, 1] + X[:, 3], rng.normal(size=30)])
    assert find_aliased(X) == {4: (2,), 5: (1, 3)}
    assert find_aliased(np.empty((3, 0))) == {}


def test_too_many_columns(data):
    with pytest.raises(DesignError, match="4 columns for 3 rows"):
        make_design("y ~ x + t + w", data[:3])


def test_splines_that_span_the_intercept(data):
    with pytest.raises(DesignError, match="constraints='center'"):
        make_design("y ~ cr(x, df=4)", data)
    assert len(make_design("y ~ cr(x, df=4, constraints='center')", data).coefs) == 5


@pytest.mark.parametrize("formula", ["y ~ y", "y ~ x + I(y - x)", "v ~ x + t", "v ~ t + offset(2 * x)"])
def test_nothing_left_to_explain(formula, data):
    with pytest.raises(DesignError, match="explains the response exactly"):
        make_design(formula, data.assign(v=2 * data.x - data.t))


def test_labels_are_unique(data):
    with pytest.raises(DataError, match="both be called 'x:t'"):
        make_design("y ~ x:t + `x:t`", data.assign(**{"x:t": data.w}))
    with pytest.raises(DataError, match="both be called 'Intercept'"):
        make_design("y ~ Intercept", data.assign(Intercept=data.w))


def test_constant_response(data):
    with pytest.raises(DesignError, match="response t is 0 in every row"):
        make_design("t ~ x", data[data.t == 0])


def test_one_group_only(data):
    with pytest.raises(DesignError, match=r"g has one level only \(308\)"):
        make_design("y ~ 1 + (1 | g)", data[:3])


def test_an_effect_twice(data):
    with pytest.raises(DesignError, match=r"\(1 \| g\) \+ \(t \| g\) has the effect Intercept of g twice"):
        make_design("y ~ t + (1 | g) + (t | g)", data)
    with pytest.raises(DesignError, match="effect t of g twice"):
        make_design("y ~ t + (t || g) + (0 + t | g)", data)
    with pytest.raises(DesignError, match="Intercept of h:m twice"):
        make_design("y ~ t + (1 | h:m) + (1 | m:h)", data)


@pytest.mark.parametrize("formula", ["y ~ 1 + (1 | row)", "y ~ 1 + (0 + f | g)", "y ~ 1 + (0 + f || g)"])
def test_as_many_random_effects_as_rows(formula, data):
    design = make_design(formula, data.assign(row=np.arange(36)))
    with pytest.raises(DesignError, match="36 in all, for 36 rows"):
        check_identifiable(design)


def test_identifiable(data):
    for formula in ("y ~ (t | g)", "y ~ (1 | g) + (1 | h:m)", "y ~ (t + x || g)", "y ~ x"):
        check_identifiable(make_design(formula, data))


def test_ambiguous_labels(data):
    table = data.assign(a=["p:q", "p"] * 18, b=["r", "q:r"] * 18)
    with pytest.raises(DataError, match="same label"):
        make_design("y ~ (1 | a:b)", table)


def test_dates_and_mixtures(data):
    table = data.assign(when=pd.date_range("2020", periods=36), mix=["a", 1] * 18)
    assert make_design("y ~ x", table).coefs == ("Intercept", "x")
    with pytest.raises(DataError, match="days since the start"):
        make_design("y ~ when", table)
    with pytest.raises(DataError, match="make it text"):
        make_design("y ~ (1 | mix)", table)


TERMS = [
    *(
        "1",
        "0",
        "t",
        "x",
        "f",
        "ok",
        "sex",
        "C(t)",
        "log(x)",
        "log(t)",
        "poly(x, 2)",
        "scale(y)",
        "I(x^2 - t)",
    ),
    *("bs(x, df=4)", "(1 | g)", "(t || g)", "(0 + f | h)", "(x | h/m)", "cs(0 + f | g)", "offset(x)", "nope"),
]


@given(
    st.lists(st.sampled_from(TERMS), min_size=1, max_size=5),
    st.lists(st.sampled_from(["+", "-", "*", ":", "/"]), min_size=4),
)
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_every_formula_gives_a_full_rank_design_or_a_clear_error(data, terms, operators):
    text = terms[0] + "".join(f" {op} {term}" for op, term in zip(operators, terms[1:], strict=False))
    try:
        design = make_design(f"y ~ {text}", data)
    except BayesLMMError:
        return
    assert np.linalg.matrix_rank(design.X) == design.X.shape[1] == len(design.coefs) == len(set(design.coefs))
    new = apply_design(design, data[:4])
    np.testing.assert_allclose(new.X, design.X[:4], atol=1e-10)
    for Z, term in zip(new.Z, design.terms, strict=True):
        np.testing.assert_allclose(Z, term.Z[:4], atol=1e-10)
        columns = [column for block in term.blocks for column in block.columns]
        assert columns == list(range(len(term.effects)))


def test_formula_errors_come_first():
    with pytest.raises(FormulaError, match="no '~'"):
        make_design("y", None)


# -------------------------------------------------------------------------------- new data


def test_new_data(data):
    design = make_design("y ~ scale(x)*f + poly(t, 2) + (x | g) + (1 | h:m)", data)
    new = apply_design(design, data.iloc[[5, 1, 30]])
    np.testing.assert_allclose(new.X, design.X[[5, 1, 30]])
    np.testing.assert_array_equal(new.y, data.y[[5, 1, 30]])
    for Z, codes, labels, term in zip(new.Z, new.codes, new.labels, design.terms, strict=True):
        np.testing.assert_array_equal(Z, term.Z[[5, 1, 30]])
        np.testing.assert_array_equal(codes, term.codes[[5, 1, 30]])
        assert labels.dtype == object
        assert labels.tolist() == term.levels[codes].tolist()


def test_new_groups_are_marked(data):
    design = make_design("y ~ x + (1 | g) + (1 | h:m)", data)
    new = apply_design(design, {"x": [1.0, 2.0], "g": [308.0, 999.0], "h": ["W1", "W3"], "m": ["M2", "M2"]})
    assert [codes.tolist() for codes in new.codes] == [[0, -1], [2, -1]]
    assert [labels.tolist() for labels in new.labels] == [["308", "999"], ["W1:M2", "W3:M2"]]
    assert new.y is None


def test_new_responses_may_be_missing(data):
    design = make_design("log(x) ~ t + (1 | g)", data)
    new = apply_design(design, data[:3].assign(x=[1.0, np.nan, 2.0]))
    np.testing.assert_allclose(new.y, [0, np.nan, np.log(2)])
    with pytest.raises(DataError, match="'x' is missing"):
        apply_design(design, data[:3].assign(x=[1.0, np.nan, 2.0]), need_response=True)
    with pytest.raises(DataError, match="no column 'x'"):
        apply_design(design, data[["t", "g"]], need_response=True)


def test_new_data_that_do_not_fit(data):
    design = make_design("y ~ f + (t | g)", data)
    with pytest.raises(DataError, match="unseen levels: 'q'"):
        apply_design(design, data.assign(f="q"))
    with pytest.raises(DataError, match="no column 'g'"):
        apply_design(design, data.drop(columns="g"))
    with pytest.raises(DataError, match="'g' has missing values"):
        apply_design(design, data.assign(g=np.nan))
    population = apply_design(design, data[["f"]], need_groups=False)
    assert (population.Z, population.codes, population.labels) == ((), (), ())


def test_no_warning_without_missing(data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_design(FORMULA, data)
