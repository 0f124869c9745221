"""Tree -> the text that formulaic is to see, written from scratch: never the text of the user.

Every function, option and operator is written out by name here, or refused. A formula from an untrusted form
therefore cannot run code, nor keep the machine busy with powers of whole numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

from .syntax import Node
from .tokens import ALLOWED, CONSTANTS, CONTRASTS, FUNCTIONS, quote

_BASES = frozenset({"C", "poly", "bs", "cr", "cc"})  # give several columns, so never part of arithmetic
_MAX_SUM, _MAX_DEGREE = 100, 100


def columns(node: Node) -> Iterator[str]:
    """Yield every column that a piece of the formula reads, in order, repeated where it is read again."""
    if node.kind == "name":
        yield node.value
    # Arguments after the first are options: contrasts and numbers, never columns.
    is_function = node.kind == "call" and node.value in FUNCTIONS
    for item in node.items[:1] if is_function else node.items:
        yield from columns(item)


def single(node: Node) -> Node:
    """Return the piece without its parentheses, refusing functions that make several columns."""
    inner = node.bare()
    if inner.kind == "call" and inner.value in _BASES:
        inner.fail(f"{inner.value}() makes several columns; here one number per row is needed.")
    return inner


def factor(node: Node) -> str:
    """Write a node as one factor of a term: a column, a call, or arithmetic inside I()."""
    if node.kind == "name":
        return quote(node.value)
    if node.kind == "call":
        return _call(node, whole=True)
    text = _arithmetic(node)
    _needs_column(node)
    return f"I({text})"


def _needs_column(node: Node) -> None:
    if next(columns(node), None) is None:
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
    if next(columns(node.items[0]), None) is None:
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
