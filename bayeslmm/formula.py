"""Text of a formula -> `Formula`: syntax only, no data and no evaluation.

The grammar is R's (lme4): terms with `+ - * / : ^`, one bar per parenthesis. The text is read by a parser
of our own, and only what the parser knows can come out of it: formulaic later sees a string that this
module wrote, never the user's. A formula from an untrusted form therefore cannot run code.
"""

from __future__ import annotations

import itertools
import keyword
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from bayeslmm.errors import FormulaError

# What each function takes after its first argument, in order.
_SPLINE = ("df", "knots", "lower_bound", "upper_bound", "constraints", "extrapolation")
FUNCTIONS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(["I", "log", "log2", "log10", "log1p", "exp", "sqrt", "sin", "cos", "abs"], ()),
    **dict.fromkeys(["center", "offset"], ()),
    "C": ("contrasts", "levels"),
    "scale": ("center", "scale", "ddof"),
    "poly": ("degree", "raw"),
    "bs": ("df", "knots", "degree", "include_intercept", "lower_bound", "upper_bound", "extrapolation"),
    "cr": _SPLINE,
    "cc": _SPLINE,
}
CONTRASTS: dict[str, tuple[str, ...]] = {
    "contr.treatment": ("base",),
    "contr.SAS": ("base",),
    "contr.sum": (),
    "contr.helmert": ("reverse", "scale"),
    "contr.poly": ("scores",),
    "contr.diff": ("backward",),
}
CONSTANTS = {"pi": "pi", "TRUE": "True", "True": "True", "FALSE": "False", "False": "False"}
STRUCTURES = {"us": "free", "diag": "diag", "cs": "cs", "ar1": "ar1"}
ALLOWED = (
    "A formula may hold columns, numbers, pi, + - * / ^ : | ( ) and the functions "
    + f"{', '.join(FUNCTIONS)}; inside C() the contrasts {', '.join(CONTRASTS)}."
)
_BASES = frozenset({"C", "poly", "bs", "cr", "cc"})  # give several columns, so never part of arithmetic
_MAX_TEXT, _MAX_DEPTH, _MAX_TERMS, _MAX_SUM, _MAX_DEGREE = 20_000, 50, 1000, 100, 100
_POWER = {"|": 10, "||": 10, "+": 20, "-": 20, "*": 30, "/": 30, ":": 40, "^": 50, "**": 50}
_TOKEN = re.compile(
    r"""(?P<space>\s+) | (?P<quoted>`[^`]*`) | (?P<string>"[^"\\`]*"|'[^'\\`]*')
      | (?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![\w.]))
      | (?P<name>\.?[^\W\d][\w.]*) | (?P<op>\*\*|\|\||[~+\-*/^:|(),=])""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Bar:
    """One random-effects bar with one grouping factor; `a/b` is already expanded to `a` and `a:b`.

    `structure` is "free", "diag", "cs" or "ar1". `(t || g)` is "diag": independent over all columns of the
    left side, the dummy columns of a factor included, where lme4 keeps the levels of a factor correlated.
    `homogeneous` says that all columns share one variance.
    """

    text: str
    effects: str
    group: tuple[str, ...]
    structure: str
    homogeneous: bool


@dataclass(frozen=True)
class Formula:
    """A formula read but not yet applied to a table; `columns` are all the columns it reads, in order."""

    text: str
    response: str
    fixed: str
    offsets: tuple[str, ...]
    bars: tuple[Bar, ...]
    columns: tuple[str, ...]


def parse(text: str) -> Formula:
    """Read the text of a formula in lme4's notation, such as `"y ~ time + (time | subject)"`.

    Raises
    ------
    FormulaError
        The text is no formula, or asks for something that a formula may not do; nothing is evaluated.
    """
    if not isinstance(text, str):
        raise FormulaError(f"A formula is text such as 'y ~ x + (1 | g)', not {type(text).__name__}.")
    source = re.sub(r"\s", " ", text)
    left, right = _sides(source)
    response = _factor(_no_bases(left))
    parts = _Parts([], [], [])
    parts.read(_items(right))
    fixed = _right_side(_sum(parts.plain, start=True))
    columns = dict.fromkeys(itertools.chain(_columns(left), _columns(right)))
    return Formula(text, response, fixed, tuple(parts.offsets), tuple(parts.bars), tuple(columns))


# -------------------------------------------------------------------------------- tokens and tree


class Token(NamedTuple):
    """A word of the formula; `text` of a quoted name is the name without its backticks."""

    kind: str
    text: str
    start: int
    end: int


def tokenize(source: str) -> list[Token]:
    """Split the text into words, refusing every character that has no place in a formula."""
    if len(source) > _MAX_TEXT:
        raise FormulaError(f"The formula has {len(source)} characters; at most {_MAX_TEXT} are read.")
    tokens, at = [], 0
    while at < len(source):
        match = _TOKEN.match(source, at)
        if match is None:
            raise FormulaError(_stray(source[at]), source, at)
        kind, word = str(match.lastgroup), match.group()
        if kind != "space":
            text = word[1:-1] if kind == "quoted" else word
            tokens.append(_checked(Token(kind, text, at, match.end()), source))
        at = match.end()
    return tokens


def _stray(character: str) -> str:
    if character in "`'\"":
        return f"The quotation mark {character} is not closed."
    if character == ".":
        return "'.' for all other columns is not supported: name the columns."
    if character.isdigit():
        return "A name cannot start with a digit; put the name of such a column in backticks."
    return f"{character!r} has no place in a formula. {ALLOWED}"


def _checked(token: Token, source: str) -> Token:
    long = token.kind == "number" and len(token.text) > 40
    dunder = token.kind in ("name", "quoted") and any(s.startswith("__") for s in token.text.split("."))
    if long or dunder or (token.kind == "quoted" and not token.text.strip()):
        refusal = f"{token.text!r} cannot be the name of a column. {ALLOWED}"
        message = "This number is too long." if long else refusal
        raise FormulaError(message, source, token.start, token.end - token.start)
    return token


@dataclass(frozen=True)
class Node:
    """A piece of the formula: name, constant, number, string, call, paren, tuple, sum, bar or operator."""

    kind: str
    value: str
    source: str
    start: int
    end: int
    items: tuple[Node, ...] = ()
    signs: tuple[str, ...] = ()
    options: tuple[tuple[str, Node], ...] = ()
    depth: int = 0

    def fail(self, message: str) -> NoReturn:
        raise FormulaError(message, self.source, self.start, self.end - self.start)


_SHAPE = "write response ~ terms"


def _sides(source: str) -> tuple[Node, Node]:
    tokens = tokenize(source)
    tildes = [i for i, token in enumerate(tokens) if token.text == "~" and token.kind == "op"]
    if not tildes:
        raise FormulaError(f"The formula has no '~': {_SHAPE}.", source, 0, max(len(source), 1))
    if len(tildes) > 1:
        raise FormulaError(f"The formula has two '~': {_SHAPE}.", source, tokens[tildes[1]].start)
    middle, place = tildes[0], tokens[tildes[0]].start
    if middle == 0:
        raise FormulaError(f"Nothing stands left of '~', the response is missing: {_SHAPE}.", source, place)
    if middle == len(tokens) - 1:
        raise FormulaError("Nothing stands right of '~': write 1 for an intercept.", source, place)
    left = _Parser(source, tokens[:middle]).whole()
    return left, _Parser(source, tokens[middle + 1 :]).whole()


class _Parser:
    """Precedence climbing over the tokens of one side of the formula."""

    def __init__(self, source: str, tokens: list[Token]):
        self.source, self.tokens, self.at, self.depth = source, tokens, 0, 0

    def whole(self) -> Node:
        node = self.expression(0)
        if self.at < len(self.tokens):
            self.unexpected()
        return node

    def peek(self) -> str:
        """Return the coming operator, or "" before a word and at the end."""
        token = self.tokens[self.at] if self.at < len(self.tokens) else None
        return token.text if token is not None and token.kind == "op" else ""

    def unexpected(self) -> NoReturn:
        if self.at >= len(self.tokens):
            last = self.tokens[-1]
            message = f"Something is missing after {last.text!r}."
            raise FormulaError(message, self.source, last.start, last.end - last.start)
        token = self.tokens[self.at]
        message = f"{token.text!r} is not expected here."
        if token.text == ")" and token.kind == "op":
            message = "Something is missing before this parenthesis, or it is one too many."
        if token.text == "=" or token.kind == "string":
            message += f" {ALLOWED}"
        raise FormulaError(message, self.source, token.start, token.end - token.start)

    def expect(self, operator: str, opened: Token) -> int:
        if self.at >= len(self.tokens):
            raise FormulaError("This parenthesis is not closed.", self.source, opened.start)
        if self.peek() != operator:
            self.unexpected()
        self.at += 1
        return self.tokens[self.at - 1].end

    def node(self, kind: str, value: str, start: int, end: int, *items: Node, **more) -> Node:
        depth = 1 + max((item.depth for item in items), default=0)
        node = Node(kind, value, self.source, start, end, items, depth=depth, **more)
        if depth > _MAX_DEPTH:
            node.fail("The formula is nested too deeply.")
        return node

    def expression(self, least: int) -> Node:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            start = self.tokens[self.at - 1].start
            raise FormulaError("The formula is nested too deeply.", self.source, start)
        left = self.prefix(least)
        while (power := _POWER.get(self.peek(), -1)) > least:
            left = self.infix(left, self.peek(), power)
        self.depth -= 1
        return left

    def infix(self, left: Node, operator: str, power: int) -> Node:
        self.at += 1
        right = self.expression(power - 1 if operator in ("^", "**") else power)
        if power == _POWER["+"]:
            items, signs = (left.items, left.signs) if left.kind == "sum" else ((left,), ("+",))
            return self.node("sum", "", left.start, right.end, *items, right, signs=(*signs, operator))
        kind = "bar" if power == _POWER["|"] else "operator"
        return self.node(kind, "^" if operator == "**" else operator, left.start, right.end, left, right)

    def prefix(self, least: int) -> Node:
        if self.at >= len(self.tokens):
            self.unexpected()
        token = self.tokens[self.at]
        if token.kind == "op" and token.text in "+-":
            self.at += 1
            inner = self.expression(max(least, _POWER["-"]))
            return self.node("sum", "", token.start, inner.end, inner, signs=(token.text,))
        if token.text == "(" and token.kind == "op":
            return self.parenthesis(token)
        if token.kind == "op":
            self.unexpected()
        self.at += 1
        if token.kind == "name" and self.peek() == "(":
            return self.call(token)
        kind = "constant" if token.kind == "name" and token.text in CONSTANTS else token.kind
        return self.node("name" if kind == "quoted" else kind, token.text, token.start, token.end)

    def parenthesis(self, opened: Token) -> Node:
        self.at += 1
        items = [self.expression(0)]
        while self.peek() == ",":
            self.at += 1
            items.append(self.expression(0))
        end = self.expect(")", opened)
        return self.node("paren" if len(items) == 1 else "tuple", "", opened.start, end, *items)

    def call(self, function: Token) -> Node:
        if function.text not in FUNCTIONS | CONTRASTS | STRUCTURES:
            known = self.node("call", "", function.start, function.end)
            known.fail(f"{function.text}() is not a function of formulas. {ALLOWED}")
        opened, items, options = self.tokens[self.at], list[Node](), list[tuple[str, Node]]()
        self.at += 1
        while self.peek() != ")" or items or options:
            following = self.tokens[self.at + 1 : self.at + 2]
            if following and following[0].text == "=" and self.tokens[self.at].kind == "name":
                options.append((self.tokens[self.at].text, self.skip(2).expression(0)))
            elif options:
                self.unexpected()
            else:
                items.append(self.expression(0))
            if self.peek() != ",":
                break
            self.at += 1
        end = self.expect(")", opened)
        return self.node("call", function.text, function.start, end, *items, options=tuple(options))

    def skip(self, count: int) -> _Parser:
        self.at += count
        return self


# -------------------------------------------------------------------------------- terms and bars


def _strip(node: Node) -> Node:
    while node.kind == "paren":
        node = node.items[0]
    return node


def _items(node: Node) -> Iterator[tuple[str, Node]]:
    """Yield the signed summands of a node; a sum in parentheses after `+` is part of the sum around it."""
    if node.kind != "sum":
        yield "+", node
        return
    yield from zip(node.signs, node.items, strict=True)


class _Parts(NamedTuple):
    """The right side sorted into ordinary terms, offsets and bars."""

    plain: list[tuple[str, Node]]
    offsets: list[str]
    bars: list[Bar]

    def read(self, items: Iterable[tuple[str, Node]]) -> None:
        for sign, node in items:
            inner = _strip(node)
            if inner.kind == "bar" or (inner.kind == "call" and inner.value in STRUCTURES):
                self.bars.extend(_bars(sign, node, inner))
            elif inner.kind == "call" and inner.value == "offset":
                self.offsets.append(_offset(sign, inner))
            else:
                self.plain.append((sign, node))


def _offset(sign: str, node: Node) -> str:
    if sign == "-" or len(node.items) != 1 or node.options:
        node.fail("Write + offset(x), with one argument.")
    return _factor(_no_bases(node.items[0]))


def _bars(sign: str, node: Node, inner: Node) -> list[Bar]:
    if sign == "-":
        node.fail("A random-effects bar can be added, not subtracted.")
    structure, homogeneous, bar = "free", None, inner
    if inner.kind == "call":
        structure, homogeneous, bar = STRUCTURES[inner.value], _hom(inner), _strip(_only(inner))
    elif node.kind != "paren":
        node.fail("A random-effects bar needs parentheses: (effects | group).")
    if bar.kind != "bar":
        inner.fail(f"Write {inner.value}(effects | group).")
    if bar.value == "||":
        if structure not in ("free", "diag"):
            bar.fail(f"'||' and {inner.value}() contradict each other: write |.")
        structure = "diag"
    if homogeneous is None:
        homogeneous = structure in ("cs", "ar1")
    effects = _right_side(_sum(_items(bar.items[0]), start=True))
    if effects == "0":
        bar.fail("This bar has no effects: nothing is left of '|' once the intercept is removed.")
    text = node.source[node.start : node.end]
    return [Bar(text, effects, group, structure, homogeneous) for group in _groups(bar.items[1])]


def _only(call: Node) -> Node:
    if len(call.items) != 1:
        call.fail(f"Write {call.value}(effects | group).")
    return call.items[0]


def _hom(call: Node) -> bool | None:
    for name, value in call.options:
        if name != "hom" or call.value == "us" or value.kind != "constant" or value.value == "pi":
            value.fail(f"{call.value}() takes no such option; cs, ar1 and diag take hom = TRUE or FALSE.")
        return CONSTANTS[value.value] == "True"
    return None


def _groups(node: Node) -> list[tuple[str, ...]]:
    if node.kind == "paren":
        return _groups(node.items[0])
    if node.kind == "name":
        return [(node.value,)]
    if node.kind == "sum" and "-" not in node.signs:
        return [group for item in node.items for group in _groups(item)]
    if node.kind == "operator" and node.value in ":/":
        left, right = map(_groups, node.items)
        if node.value == ":":
            return [_joined(a, b) for a in left for b in right]
        return left + [_joined(itertools.chain(*left), b) for b in right]
    if node.kind == "bar":
        node.fail("One parenthesis holds one bar: write (effects | group) + (effects | group).")
    node.fail("A grouping factor is a column, or columns joined by ':' or '/', such as (1 | a/b).")


def _joined(*parts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(itertools.chain(*parts)))


# The key makes a:b and b:a one term; the value keeps the order in which it is written.
_Terms = dict[frozenset[str], tuple[str, ...]]


def _right_side(terms: _Terms) -> str:
    """Write terms as a formulaic right-hand side, the intercept explicit, interactions after main effects."""
    ordered = sorted(terms.values(), key=len)
    words = [":".join(term) or "1" for term in ordered]
    return " + ".join(words if () in ordered else ["0", *words]) if words else "0"


def _sum(items: Iterable[tuple[str, Node]], *, start: bool = False) -> _Terms:
    terms: _Terms = {frozenset(): ()} if start else {}
    for sign, node in items:
        intercept = node.kind == "number" and node.value in ("0", "1")
        changed: _Terms = {frozenset(): ()} if intercept else _expand(node)
        adds = (sign == "+") != (intercept and node.value == "0")
        for key, term in changed.items():
            if adds:
                terms.setdefault(key, term)
            else:
                terms.pop(key, None)
        _limit(terms, node)
    return terms


def _expand(node: Node) -> _Terms:
    if node.kind in ("sum", "paren"):
        return _sum(_items(node if node.kind == "sum" else node.items[0]))
    if node.kind in ("name", "call"):
        text = _factor(node)
        return {frozenset([text]): (text,)}
    if node.kind == "operator":
        return _limit(_OPERATORS[node.value](*node.items), node)
    if node.kind == "bar":
        node.fail("A random-effects bar needs parentheses and a '+' of its own: ... + (effects | group).")
    if node.kind == "number":
        node.fail("Alone, only 0 and 1 have a meaning here; for arithmetic write I(), such as I(2 * x).")
    node.fail(f"{node.value or 'A list'} cannot be a term. {ALLOWED}")


def _limit(terms: _Terms, node: Node) -> _Terms:
    if len(terms) > _MAX_TERMS:
        node.fail(f"This makes more than {_MAX_TERMS} terms.")
    return terms


def _union(*several: _Terms) -> _Terms:
    """Unite sets of terms; a term keeps the spelling it had first."""
    out: _Terms = {}
    for key, term in itertools.chain.from_iterable(terms.items() for terms in several):
        out.setdefault(key, term)
    return out


def _times(left: _Terms, right: _Terms) -> _Terms:
    out: _Terms = {}
    for (a, s), (b, t) in itertools.product(left.items(), right.items()):
        out.setdefault(a | b, _joined(s, t))
    return out


def _cross(a: Node, b: Node) -> _Terms:
    left, right = _expand(a), _expand(b)
    return _union(left, right, _times(left, right))


def _nest(a: Node, b: Node) -> _Terms:
    left, right = _expand(a), _expand(b)
    parents = _joined(*left.values())
    return _union(left, _times({frozenset(parents): parents}, right))


def _power(a: Node, b: Node) -> _Terms:
    terms = _expand(a)
    if len(terms) < 2:
        a.fail("x^2 outside I() means x crossed with itself, which is x: write I(x^2) for the square.")
    if b.kind != "number" or not re.fullmatch("[1-9]", b.value):
        b.fail("The power of a sum of terms is a whole number from 1 to 9.")
    out = terms
    for _ in range(int(b.value) - 1):
        out = _limit(_union(out, _times(out, terms)), a)
    return out


_OPERATORS: dict[str, Callable[[Node, Node], _Terms]] = {
    ":": lambda a, b: _times(_expand(a), _expand(b)),
    "*": _cross,
    "/": _nest,
    "^": _power,
}


# -------------------------------------------------------------------------------- arithmetic


def quote(name: str) -> str:
    """Write a column's name so that it always reads as a column: in backticks unless it is a plain word."""
    plain = name.isidentifier() and name.isascii() and not keyword.iskeyword(name) and name[0] != "_"
    return name if plain and name not in FUNCTIONS and name not in CONSTANTS else f"`{name}`"


def _columns(node: Node) -> Iterator[str]:
    if node.kind == "name":
        yield node.value
    # Arguments after the first are options: contrasts and numbers, never columns.
    is_function = node.kind == "call" and node.value in FUNCTIONS
    for item in node.items[:1] if is_function else node.items:
        yield from _columns(item)


def _no_bases(node: Node) -> Node:
    inner = _strip(node)
    if inner.kind == "call" and inner.value in _BASES:
        inner.fail(f"{inner.value}() makes several columns; here one number per row is needed.")
    return inner


def _factor(node: Node) -> str:
    """Write a node as one factor of a term: a column, a call, or arithmetic inside I()."""
    if node.kind == "name":
        return quote(node.value)
    if node.kind == "call":
        return _call(node, whole=True)
    text = _arithmetic(node)
    _needs_column(node)
    return f"I({text})"


def _needs_column(node: Node) -> None:
    if next(_columns(node), None) is None:
        node.fail("This reads no column: a term needs one.")


def _arithmetic(node: Node) -> str:
    if node.kind == "name":
        return quote(node.value)
    if node.kind == "constant":
        return CONSTANTS[node.value]
    if node.kind == "number":
        return str(int(node.value)) if node.value.isdecimal() else node.value
    if node.kind == "paren":
        return f"({_arithmetic(node.items[0])})"
    if node.kind == "call":
        return _call(node, whole=False)
    if node.kind == "sum":
        return _signed(node)
    if node.kind == "operator" and node.value in "*/^":
        return _binary(node)
    node.fail(f"This is not arithmetic. {ALLOWED}")


def _signed(node: Node) -> str:
    if len(node.items) > _MAX_SUM:
        node.fail(f"A sum inside a function has at most {_MAX_SUM} summands.")
    parts = [f" {sign} {_arithmetic(item)}" for sign, item in zip(node.signs, node.items, strict=True)]
    return node.signs[0].replace("+", "") + "".join(parts)[3:]


def _binary(node: Node) -> str:
    left, right = map(_arithmetic, node.items)
    if node.value != "^":
        return f"{left} {node.value} {right}"
    if next(_columns(node.items[0]), None) is None:
        # Whole numbers grow without bound in Python (9^9^9 never ends); floats overflow, which is an error.
        left = f"(1.0 * {left})"
    return f"{left} ** {right}"


def _call(node: Node, *, whole: bool) -> str:
    name, known = node.value, FUNCTIONS.get(node.value)
    if known is None:
        node.fail(f"{name}() has no place here. {ALLOWED}")
    if name == "offset":
        node.fail("offset() is added to the formula on its own: ... + offset(x).")
    if name in _BASES and not whole:
        node.fail(f"{name}() makes several columns and cannot be part of arithmetic.")
    if not node.items:
        node.fail(f"{name}() needs an argument.")
    first = node.items[0]
    if name == "C" and first.kind != "name":
        first.fail("C() takes a column.")
    _needs_column(node)
    arguments = [_arithmetic(first), *_options(node, known, node.items[1:])]
    return f"{name}({', '.join(arguments)})"


def _listed(known: tuple[str, ...]) -> str:
    return ", ".join(known) or "none"


def _options(node: Node, known: tuple[str, ...], positional: tuple[Node, ...]) -> Iterator[str]:
    if len(positional) > len(known):
        positional[len(known)].fail(f"{node.value}() takes fewer arguments; its options: {_listed(known)}.")
    for option, value in zip(known, positional, strict=False):
        prefix = f"{option}=" if option == "levels" else ""
        yield prefix + _option(node.value, option, value)
    for option, value in node.options:
        if option not in known:
            value.fail(f"{node.value}() has no option {option!r}; its options: {_listed(known)}.")
        yield f"{option}={_option(node.value, option, value)}"


def _option(function: str, option: str, node: Node) -> str:
    if (function, option) == ("C", "contrasts"):
        return _contrast(node)
    if option in ("degree", "df") and not (node.value.isdecimal() and 0 < int(node.value) <= _MAX_DEGREE):
        node.fail(f"{option} is a whole number from 1 to {_MAX_DEGREE}.")
    return _literal(node)


def _contrast(node: Node) -> str:
    if node.value not in CONTRASTS or node.kind not in ("name", "call"):
        node.fail(f"A contrast is one of {', '.join(CONTRASTS)}.")
    if node.kind == "name":
        return node.value
    return f"{node.value}({', '.join(_options(node, CONTRASTS[node.value], node.items))})"


def _literal(node: Node) -> str:
    if node.kind in ("number", "constant"):
        return _arithmetic(node)
    if node.kind == "string":
        return node.value
    if node.kind == "sum" and len(node.items) == 1 and node.items[0].kind == "number":
        return node.signs[0] + _arithmetic(node.items[0])
    if node.kind in ("tuple", "paren"):
        return f"({', '.join(map(_literal, node.items))},)"
    node.fail("An option is a number, a text in quotes, TRUE or FALSE, or several of them in parentheses.")
