"""Formulas: what they mean, where an error points, and that no formula can run code."""

import builtins
import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bayeslmm.errors import FormulaError
from bayeslmm.formula import Bar, Formula, parse


def bars(text):
    return [(bar.effects, bar.group, bar.structure, bar.homogeneous) for bar in parse(f"y ~ {text}").bars]


@pytest.mark.parametrize(
    ("right", "expected"),
    [
        ("1", "1"),
        ("0", "0"),
        ("x", "1 + x"),
        ("+x", "1 + x"),
        ("x - 1", "0 + x"),
        ("-1 + x", "0 + x"),
        ("x + 0", "0 + x"),
        ("x - 1 + 1", "1 + x"),
        ("a*b", "1 + a + b + a:b"),
        ("a:b + b:a", "1 + a:b"),
        ("b:a + a", "1 + a + b:a"),
        ("a*b - a", "1 + b + a:b"),
        ("(a + b)*c", "1 + a + b + c + a:c + b:c"),
        ("(a + b + c)^2", "1 + a + b + c + a:b + a:c + b:c"),
        ("(a + b + c)**2 - a:b", "1 + a + b + c + a:c + b:c"),
        ("a/b", "1 + a + a:b"),
        ("a/b/c", "1 + a + a:b + a:b:c"),
        ("a*b*c - a:b:c", "1 + a + b + c + a:b + a:c + b:c"),
        ("I(x^2)", "1 + I(x ** 2)"),
        ("I(x**2) + I(x^2)", "1 + I(x ** 2)"),
        ("I(-(x + 2)/3 * pi - 1e-3)", "1 + I(-(x + 2) / 3 * pi - 1e-3)"),
        ("I(x / -z * 2)", "1 + I(x / -z * 2)"),
        ("Flow.Rate + `Flow Rate` + log(`Flow Rate`)", "1 + `Flow.Rate` + `Flow Rate` + log(`Flow Rate`)"),
        ("log + `log`", "1 + `log`"),
        ("class + lambda + `C`", "1 + `class` + `lambda` + `C`"),
        ("C(f, contr.sum)", "1 + C(f, contr.sum)"),
        ("C(f, contr.treatment(base='b'))", "1 + C(f, contr.treatment(base='b'))"),
        ("C(f, levels=('b', 'a'))", "1 + C(f, levels=('b', 'a',))"),
        ("poly(x, 2, raw=TRUE)", "1 + poly(x, 2, raw=True)"),
        ("bs(log(x), df=5):f", "1 + bs(log(x), df=5):f"),
        ("x\n + z\t", "1 + x + z"),
    ],
)
def test_fixed_part(right, expected):
    assert parse(f"y ~ {right}").fixed == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(1 | g)", [("1", ("g",), "free", False)]),
        ("(t | g)", [("1 + t", ("g",), "free", False)]),
        ("(0 + t | g)", [("0 + t", ("g",), "free", False)]),
        ("(-1 + t | g)", [("0 + t", ("g",), "free", False)]),
        ("(t - 1 | g)", [("0 + t", ("g",), "free", False)]),
        ("(t || g)", [("1 + t", ("g",), "diag", False)]),
        ("diag(t | g)", [("1 + t", ("g",), "diag", False)]),
        ("diag(1 + t | g, hom = TRUE)", [("1 + t", ("g",), "diag", True)]),
        ("us(t | g)", [("1 + t", ("g",), "free", False)]),
        ("cs(0 + f | g)", [("0 + f", ("g",), "cs", True)]),
        ("cs(0 + f | g, hom = FALSE)", [("0 + f", ("g",), "cs", False)]),
        ("ar1(0 + f | g, hom = False)", [("0 + f", ("g",), "ar1", False)]),
        ("(f*x | g)", [("1 + f + x + f:x", ("g",), "free", False)]),
        ("(1 | a:b)", [("1", ("a", "b"), "free", False)]),
        ("(1 | a/b)", [("1", ("a",), "free", False), ("1", ("a", "b"), "free", False)]),
        ("(1 | a/b/c)", [("1", g, "free", False) for g in [("a",), ("a", "b"), ("a", "b", "c")]]),
        ("(1 | (a + b))", [("1", ("a",), "free", False), ("1", ("b",), "free", False)]),
        ("((1 | `my g`))", [("1", ("my g",), "free", False)]),
        ("(1 | a) + (t | b)", [("1", ("a",), "free", False), ("1 + t", ("b",), "free", False)]),
    ],
)
def test_bars(text, expected):
    assert bars(text) == expected


def test_whole_formula():
    formula = parse("log(y) ~ x + offset(log(n)) + offset(z + 1) + (t | a/b)")
    assert formula == Formula(
        text="log(y) ~ x + offset(log(n)) + offset(z + 1) + (t | a/b)",
        response="log(y)",
        fixed="1 + x",
        offsets=("log(n)", "I(z + 1)"),
        bars=(
            Bar("(t | a/b)", "1 + t", ("a",), "free", False),
            Bar("(t | a/b)", "1 + t", ("a", "b"), "free", False),
        ),
        columns=("y", "x", "n", "z", "t", "a", "b"),
    )


def test_columns_are_not_functions_contrasts_or_constants():
    text = "y ~ C(f, contr.sum) + I(pi * x) + poly(z, 2, raw=TRUE) + `pi` + (1 | g)"
    assert parse(text).columns == ("y", "f", "x", "z", "pi", "g")


BAD = [
    # text, place of the caret, words of the message
    ("y x", 0, "no '~'"),
    ("", 0, "no '~'"),
    ("y ~ x ~ z", 6, "two '~'"),
    ("~ x", 0, "response is missing"),
    ("y ~", 2, "Nothing stands right"),
    ("y ~ x +", 6, "missing after '+'"),
    ("y ~ * x", 4, "not expected"),
    ("y ~ x y", 6, "not expected"),
    ("y ~ (x + z", 4, "not closed"),
    ("y ~ log(x", 7, "not closed"),
    ("y ~ x)", 5, "too many"),
    ("y ~ `a", 4, "not closed"),
    ("y ~ x | g", 4, "needs parentheses"),
    ("y ~ z + x || g", 4, "needs parentheses"),
    ("y ~ (1 | )", 9, "missing before"),
    ("y ~ ( | g)", 6, "not expected"),
    ("y ~ (1 | g | h)", 5, "bar"),
    ("y ~ (0 | g)", 5, "no effects"),
    ("y ~ (1 | 2)", 9, "grouping factor is a column"),
    ("y ~ (1 | g^2)", 9, "grouping factor is a column"),
    ("y ~ (1 | a*b)", 9, "grouping factor is a column"),
    ("y ~ (1 | log(g))", 9, "grouping factor is a column"),
    ("y ~ x:(1 | g)", 7, "needs parentheses and a '+'"),
    ("y ~ x - (1 | g)", 8, "not subtracted"),
    ("y ~ cs(x)", 4, "cs(effects | group)"),
    ("y ~ cs(x || g)", 7, "contradict"),
    ("y ~ cs(0 + f | g, het = TRUE)", 24, "hom = TRUE or FALSE"),
    ("y ~ us(t | g, hom = TRUE)", 20, "no such option"),
    ("y ~ x^2", 4, "I(x^2)"),
    ("y ~ (a + b)^x", 12, "whole number"),
    ("y ~ (a + b)^0", 12, "whole number"),
    ("y ~ 2*x", 4, "I(2 * x)"),
    ("y ~ x + 3", 8, "only 0 and 1"),
    ("y ~ 2x", 4, "start with a digit"),
    ("y ~ .", 4, "name the columns"),
    ("y ~ pi", 4, "cannot be a term"),
    ("y ~ 'x'", 4, "cannot be a term"),
    ("y ~ I(3)", 4, "reads no column"),
    ("3 ~ x", 0, "reads no column"),
    ("poly(y, 2) ~ x", 0, "several columns"),
    ("y ~ offset(C(x))", 11, "several columns"),
    ("y ~ x - offset(z)", 8, "offset(x)"),
    ("y ~ x*offset(z)", 6, "on its own"),
    ("y ~ log(poly(x, 2))", 8, "several columns"),
    ("y ~ log(x, 2)", 11, "fewer arguments"),
    ("y ~ log(x, base=2)", 16, "no option 'base'"),
    ("y ~ log()", 4, "needs an argument"),
    ("y ~ poly(x, -1)", 12, "whole number from 1 to 100"),
    ("y ~ bs(x, df=1000000000)", 13, "whole number from 1 to 100"),
    ("y ~ poly(x, z)", 12, "whole number"),
    ("y ~ scale(x, z)", 13, "An option is"),
    ("y ~ C(log(x))", 6, "C() takes a column"),
    ("y ~ C(x, contr.other)", 9, "contrast is one of"),
    ("y ~ C(x, contr.sum(3))", 19, "fewer arguments"),
    ("y ~ I(a:b)", 6, "not arithmetic"),
    ("y ~ I(x + 'a')", 10, "not arithmetic"),
    ("y ~ `__x__`", 4, "cannot be the name"),
]


@pytest.mark.parametrize(("text", "position", "words"), BAD)
def test_syntax_errors_point_at_the_place(text, position, words):
    with pytest.raises(FormulaError) as caught:
        parse(text)
    message = str(caught.value)
    assert words in message
    assert caught.value.position == position
    line, caret = message.split("\n")[-2:]
    assert line == f"  {text}"
    assert caret.index("^") == position + 2


CANARY = "bayeslmm_canary"
MALICIOUS = [
    f"__import__('os').mkdir('{CANARY}')",
    f"I(__import__('os').mkdir('{CANARY}'))",
    f"{{__import__('os').mkdir('{CANARY}')}}",
    f"{{{CANARY}()}}",
    f"{CANARY}()",
    f"{CANARY}(x)",
    f"I({CANARY}(x))",
    f"log({CANARY}())",
    f"`{CANARY}`()",
    f"`{CANARY}()`(x)",
    f"Q('{CANARY}()')",
    f"C(x, {CANARY}())",
    f"C(x, levels={CANARY}())",
    f"C(x, contr.treatment(base={CANARY}()))",
    f"poly(x, degree={CANARY}())",
    f"(1 | {CANARY}())",
    f"({CANARY}() | g)",
    f"cs(0 + f | g, hom={CANARY}())",
    f"offset({CANARY}())",
    f"(lambda: {CANARY}())()",
    f"[{CANARY}() for i in (1,)]",
    f"f'{{{CANARY}()}}'",
    f"x[{CANARY}()]",
    f"x if {CANARY}() else z",
    f"(a := {CANARY}())",
    f"x.__class__.__mro__[1].{CANARY}()",
    f"I(x.apply({CANARY}))",
    f"np.log({CANARY}())",
    f"eval('{CANARY}()')",
    f"exec('{CANARY}()')",
    f"getattr(x, '{CANARY}')()",
    f"I(log.__globals__['{CANARY}']())",
    f"hashed(x, levels={CANARY}())",
    f"log(x, out={CANARY}())",
    f"log(x, _state={CANARY}())",
    f"x @ {CANARY}()",
    f"x == {CANARY}()",
    f"x %in% {CANARY}()",
    f"x; {CANARY}()",
    f"x # {CANARY}()",
    f"ｌｏｇ({CANARY}())",
    "open('/etc/passwd')",
    "I(x.__class__)",
    "__builtins__",
    "contr.sum(x)",
    "lag(x, 1)",
]


@pytest.fixture
def canary(monkeypatch, tmp_path):
    """Plant a builtin that every evaluation would find, and report whether anybody called it."""
    called = []
    monkeypatch.setattr(builtins, CANARY, lambda *a, **k: called.append(a), raising=False)
    monkeypatch.chdir(tmp_path)
    yield called
    assert called == []
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("side", ["y ~ {}", "{} ~ x", "y ~ x + {} + (1 | g)", "y ~ ({} | g)"])
@pytest.mark.parametrize("attack", MALICIOUS)
@pytest.mark.usefixtures("canary")
def test_no_formula_runs_code(attack, side):
    with pytest.raises(FormulaError):
        parse(side.format(attack))


@pytest.mark.parametrize("attack", ["foo(x)", "x.mean()", "{x}", "x[0]", "__import__('os')", "I(x == 2)"])
def test_refusals_name_what_is_allowed(attack):
    with pytest.raises(FormulaError, match=r"functions I, log.*poly.*contr\.treatment"):
        parse(f"y ~ {attack}")


def test_no_bombs():
    for text in [
        "(" * 3000 + "x" + ")" * 3000,
        "-" * 3000 + "x",
        "+".join(["x"] * 15_000),
        "a*" * 3000 + "a",
    ]:
        with pytest.raises(FormulaError):
            parse(f"y ~ {text}")
    with pytest.raises(FormulaError, match="more than 1000 terms"):
        parse("y ~ (" + " + ".join(f"x{i}" for i in range(40)) + ")^9")
    with pytest.raises(FormulaError, match="at most 100 summands"):
        parse("y ~ I(" + " + ".join(["x"] * 200) + ")")
    assert parse("y ~ " + " + ".join(f"x{i}" for i in range(900))).fixed.count("+") == 900


def test_only_text_is_a_formula():
    with pytest.raises(FormulaError, match="not int"):
        parse(3)


PIECES = [
    *(
        "y",
        "x",
        "g",
        "~",
        "~",
        "|",
        "||",
        "(",
        ")",
        "+",
        "-",
        "*",
        "/",
        ":",
        "^",
        "**",
        "0",
        "1",
        "2.5",
        ",",
        "=",
    ),
    *(
        "log",
        "log(",
        "I(",
        "C(",
        "poly(",
        "offset(",
        "cs(",
        "contr.sum",
        "hom",
        "TRUE",
        "'s'",
        ".",
        "__x",
        "pi",
    ),
    *("[", "{", "%", "\\", "'", "`", "é", "٣", "`a b`", " ", "\n"),
]


@given(st.one_of(st.text(max_size=40), st.lists(st.sampled_from(PIECES), max_size=14).map("".join)))
@example("y~" + "(" * 51 + "x" + ")" * 51)
@example("y ~ ٣")
@example("y ~ 00e5*x")
def test_parse_returns_or_raises_formula_error(text):
    try:
        formula = parse(text)
    except FormulaError:
        return
    assert isinstance(formula, Formula)
    assert formula.columns
    # What was written for formulaic reads back as itself.
    assert parse(f"{formula.response} ~ {formula.fixed}").fixed == formula.fixed
    assert all(bar.group for bar in formula.bars)
