"""Expressions as columns: labels, factors, and the same columns for new data."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest

from bayeslmm.encoding import fit_encoding
from bayeslmm.errors import DataError, FormulaError


@pytest.fixture
def frame():
    return pd.DataFrame(
        {
            "x": [1.0, 2.0, 4.0, 3.0, 5.0, 2.5, 7.0, 6.0],
            "z": np.arange(8),
            "f": ["b", "a", "c", "a", "b", "c", "a", "b"],
            "sex": pd.Categorical(["M", "F", "F", "M"] * 2, categories=["M", "F", "unused"]),
            "b": [True, False, True, True, False, False, True, False],
            "year": [2001.0, 2003.0, 2002.0, 2001.0] * 2,
            "log": np.linspace(1, 2, 8),
            "Flow Rate": np.linspace(2, 3, 8),
            "class": np.linspace(-1, 1, 8) ** 2,
            "odd": ["__u", "v"] * 4,
        }
    )


@pytest.mark.parametrize(
    ("rhs", "labels"),
    [
        ("1", ("Intercept",)),
        ("0", ()),
        ("1 + x", ("Intercept", "x")),
        ("1 + f", ("Intercept", "f[T.b]", "f[T.c]")),
        ("0 + f", ("f[a]", "f[b]", "f[c]")),
        ("1 + sex", ("Intercept", "sex[T.F]")),
        ("1 + b", ("Intercept", "b[T.True]")),
        ("0 + b", ("b[False]", "b[True]")),
        ("1 + C(year)", ("Intercept", "C(year)[T.2002]", "C(year)[T.2003]")),
        ("1 + C(year, contr.SAS)", ("Intercept", "C(year, contr.SAS)[T.2001]", "C(year, contr.SAS)[T.2002]")),
        ("1 + C(b, contr.treatment(base=True))", ("Intercept", "C(b, contr.treatment(base=True))[T.False]")),
        ("1 + C(f, contr.sum)", ("Intercept", "C(f, contr.sum)[S.a]", "C(f, contr.sum)[S.b]")),
        ("1 + x + sex + x:sex", ("Intercept", "x", "sex[T.F]", "x:sex[T.F]")),
        ("1 + f:x", ("Intercept", "f[a]:x", "f[b]:x", "f[c]:x")),
        ("1 + odd", ("Intercept", "odd[T.v]")),
        ("0 + odd", ("odd[__u]", "odd[v]")),
        ("1 + `log` + log(`log`)", ("Intercept", "log", "log(`log`)")),
        ("1 + `Flow Rate` + sqrt(`Flow Rate`)", ("Intercept", "Flow Rate", "sqrt(`Flow Rate`)")),
        ("1 + `class`:x + exp(`class`)", ("Intercept", "exp(`class`)", "class:x")),
    ],
)  # fmt: skip
def test_labels(rhs, labels, frame):
    matrix, found, encoding = fit_encoding(rhs, frame)
    assert found == labels == encoding.labels
    assert matrix.shape == (8, len(labels))
    assert matrix.dtype == float
    assert matrix.flags.writeable


def test_values(frame):
    matrix, _, _ = fit_encoding("1 + x + f + I(x ** 2 / 2) + log(`log`) + sin(pi * z) + x:f", frame)
    is_b, is_c = (frame.f == "b").to_numpy(float), (frame.f == "c").to_numpy(float)
    x = frame.x.to_numpy()
    expected = [np.ones(8), x, is_b, is_c, x**2 / 2, np.log(frame["log"]), np.sin(np.pi * frame.z)]
    expected += [x * is_b, x * is_c]
    np.testing.assert_allclose(matrix, np.column_stack(expected), atol=1e-14)


def test_contrasts(frame):
    sums, _, _ = fit_encoding("1 + C(f, contr.sum)", frame)
    by_level = {level: row for level, row in zip(frame.f, sums[:, 1:].tolist(), strict=True)}
    assert by_level == {"a": [1, 0], "b": [0, 1], "c": [-1, -1]}
    for contrast in ("contr.helmert", "contr.poly", "contr.diff", "contr.SAS", "contr.helmert(scale=True)"):
        matrix, _, _ = fit_encoding(f"1 + C(f, {contrast})", frame)
        assert np.linalg.matrix_rank(matrix) == 3
    reordered, labels, encoding = fit_encoding("1 + C(f, levels=('c', 'b', 'a',))", frame)
    assert [label[-2] for label in labels[1:]] == ["b", "a"]
    assert encoding.factors == {"f": ("a", "b", "c")}
    np.testing.assert_array_equal(reordered[:, 1], frame.f == "b")


def test_poly_is_orthonormal_and_scale_standard(frame):
    matrix, _, _ = fit_encoding("0 + poly(x, 2) + scale(x) + center(z)", frame)
    np.testing.assert_allclose(matrix[:, :2].T @ matrix[:, :2], np.eye(2), atol=1e-12)
    assert matrix[:, 2].std(ddof=1) == pytest.approx(1)
    assert matrix.mean(axis=0) == pytest.approx(0, abs=1e-12)


def test_terms_and_factors(frame):
    _, _, encoding = fit_encoding("1 + x + f + sex + C(year) + f:x", frame)
    assert encoding.terms == {
        "Intercept": (0,), "x": (1,), "f": (2, 3), "sex": (4,), "C(year)": (5, 6), "f:x": (7, 8),
    }  # fmt: skip
    assert encoding.factors == {"f": ("a", "b", "c"), "sex": ("M", "F"), "year": (2001, 2002, 2003)}
    assert encoding.columns == ("x", "f", "sex", "year")


STATEFUL = (
    "1 + scale(x) + center(z) + poly(`Flow Rate`, 2) + bs(log(x), df=4) + cr(`log`, df=3) + f "
    "+ C(year, contr.sum)"
)


@pytest.mark.parametrize("rhs", [STATEFUL, "1 + f + f:x + b", "0 + odd + sex", "1"])
def test_new_data_get_the_old_state(rhs, frame):
    matrix, _, encoding = fit_encoding(rhs, frame)
    for recipe in (encoding, copy.deepcopy(encoding), pickle.loads(pickle.dumps(encoding))):
        for rows in ([0], [6, 2], [3, 3, 5, 1]):
            np.testing.assert_allclose(recipe.apply(frame.iloc[rows]), matrix[rows], atol=1e-12)
        np.testing.assert_allclose(recipe.apply(frame), matrix, atol=1e-12)


def test_levels_may_come_in_other_types(frame):
    matrix, _, encoding = fit_encoding("1 + C(year) + sex", frame)
    new = frame.iloc[[1]].assign(year=2003, sex="F")
    np.testing.assert_array_equal(encoding.apply(new), matrix[[1]])


def test_errors_on_new_data(frame):
    _, _, encoding = fit_encoding("1 + f + x", frame)
    with pytest.raises(DataError, match=r"'f' has unseen levels: 'q'.*knows 'a', 'b', 'c'"):
        encoding.apply(frame.assign(f=["q"] + ["a"] * 7))
    with pytest.raises(DataError, match="no column 'f'"):
        encoding.apply(frame.drop(columns="f"))
    with pytest.raises(DataError, match=r"'x' is missing in 1 rows \(row 0\)"):
        encoding.apply(frame.assign(x=[np.nan] + [1.0] * 7))
    with pytest.raises(DataError, match="'x' holds text"):
        encoding.apply(frame.assign(x="a"))
    _, _, spline = fit_encoding("1 + bs(x, df=4)", frame)
    with pytest.raises(DataError, match="cannot be evaluated on this table"):
        spline.apply(frame.assign(x=100.0))


def test_errors_of_type_and_value(frame):
    with pytest.raises(DataError, match=r"'f' holds text.*calculates"):
        fit_encoding("1 + log(f)", frame)
    with pytest.raises(DataError, match=r"log\(z\) is infinite in 1 of 8 rows \(row 0\)"):
        fit_encoding("1 + log(z)", frame)
    with pytest.raises(DataError, match=r"sqrt\(x\) is infinite or undefined in 8 of 8 rows"):
        fit_encoding("1 + sqrt(x)", frame.assign(x=-1.0))
    with pytest.raises(DataError, match=r"x is infinite in 1 of 8 rows \(row 2\)"):
        fit_encoding("1 + x", frame.assign(x=[1.0, 2, np.inf, 4, 5, 6, 7, 8]))
    with pytest.raises(DataError, match="days since the start"):
        fit_encoding("1 + x", frame.assign(x=pd.date_range("2020", periods=8)))
    with pytest.raises(DataError, match="mixed or unusual"):
        fit_encoding("1 + x", frame.assign(x=[[1]] * 8))
    with pytest.raises(DataError, match=r"level of its own in each of 8 rows.*read as text"):
        fit_encoding("1 + x", frame.assign(x=list("abcdefgh")))
    with pytest.raises(DataError, match="outside of the nominated levels"):
        fit_encoding("1 + C(f, levels=('a', 'b',))", frame)


def test_numbers_cannot_explode(frame):
    with pytest.raises(DataError, match=r"cannot be evaluated|infinite"):
        fit_encoding("1 + I((1.0 * 9) ** (1.0 * 9) ** 9 * x)", frame)


def test_variables_of_the_caller_stay_outside(frame):
    caller_only = frame.x.to_numpy()
    assert caller_only.size == 8
    with pytest.raises(DataError, match="no column 'caller_only'"):
        fit_encoding("1 + caller_only", frame)
    for name in ("print", "np", "contr", "caller_only"):
        with pytest.raises(DataError, match="no column"):
            fit_encoding(f"1 + abs({name})", frame)


@pytest.mark.parametrize(
    "rhs", ["print(x)", "1 + log(print(x))", "contr(x)", "`print`(x)", "C(f, print())", "x[0]"]
)
def test_no_other_function_is_called_even_without_parse(rhs, frame, capsys):
    with pytest.raises((FormulaError, DataError)):
        fit_encoding(rhs, frame)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "level", ["a'b", 'a"b', "a`b", "a{b", "[T.x]", "x:y", "", "__a", "a\nb", "é", "column0"]
)
def test_any_text_can_be_a_level(level, frame):
    table = frame.assign(k=[level, "zz"] * 4)
    matrix, labels, encoding = fit_encoding("0 + k", table)
    assert dict(zip(labels, matrix[:2].T.tolist(), strict=True)) == {f"k[{level}]": [1, 0], "k[zz]": [0, 1]}
    np.testing.assert_array_equal(encoding.apply(table.iloc[::-1]), matrix[::-1])


@pytest.mark.parametrize(
    "name", ["a'b", 'a"b', "a{b", "a[0]", "x:y", "1a", "%in%", "a~b", "#", "in", "None", "pi"]
)
def test_any_text_can_be_a_column(name, frame):
    matrix, labels, _ = fit_encoding(f"1 + `{name}` + log(`{name}`)", frame.assign(**{name: frame.x}))
    assert labels[:2] == ("Intercept", name)
    np.testing.assert_allclose(matrix[:, 1:], np.column_stack([frame.x, np.log(frame.x)]))


def test_a_level_that_formulaic_would_drop_can_be_the_base(frame):
    _, labels, _ = fit_encoding("1 + C(odd, contr.treatment(base='__u'))", frame)
    assert labels == ("Intercept", "C(odd, contr.treatment(base='__u'))[T.v]")
