"""R's algebra of terms: `+ - * / : ^` between terms -> a set of terms -> a right-hand side for formulaic."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable

from .arithmetic import factor
from .syntax import Node
from .tokens import ALLOWED

_MAX_TERMS = 1000
# The key makes a:b and b:a one term; the value keeps the order in which it is written.
Terms = dict[frozenset[str], tuple[str, ...]]


def joined(*parts: Iterable[str]) -> tuple[str, ...]:
    """Join the factors of several terms into one term, each factor once."""
    return tuple(dict.fromkeys(itertools.chain(*parts)))


def right_side(terms: Terms) -> str:
    """Write terms as a formulaic right-hand side, the intercept explicit, interactions after main effects."""
    ordered = sorted(terms.values(), key=len)
    words = [":".join(term) or "1" for term in ordered]
    return " + ".join(words if () in ordered else ["0", *words]) if words else "0"


def expand_sum(items: Iterable[tuple[str, Node]], *, start: bool = False) -> Terms:
    """Add and subtract terms from left to right; with `start` an intercept stands before the first."""
    terms: Terms = {frozenset(): ()} if start else {}
    for sign, node in items:
        intercept = node.kind == "number" and node.value in ("0", "1")
        changed: Terms = {frozenset(): ()} if intercept else _expand(node)
        adds = (sign == "+") != (intercept and node.value == "0")
        for key, term in changed.items():
            if adds:
                terms.setdefault(key, term)
            else:
                terms.pop(key, None)
        _limit(terms, node)
    return terms


def _expand(node: Node) -> Terms:
    if node.kind in ("sum", "paren"):
        return expand_sum(node.bare().summands())
    if node.kind in ("name", "call"):
        text = factor(node)
        return {frozenset([text]): (text,)}
    if node.kind == "operator":
        return _limit(_OPERATORS[node.value](*node.items), node)
    if node.kind == "bar":
        node.fail("A random-effects bar needs parentheses and a '+' of its own: ... + (effects | group).")
    if node.kind == "number":
        node.fail("Alone, only 0 and 1 have a meaning here; for arithmetic write I(), such as I(2 * x).")
    node.fail(f"{node.value or 'A list'} cannot be a term. {ALLOWED}")


def _limit(terms: Terms, node: Node) -> Terms:
    if len(terms) > _MAX_TERMS:
        node.fail(f"This makes more than {_MAX_TERMS} terms.")
    return terms


def _union(*several: Terms) -> Terms:
    """Unite sets of terms; a term keeps the spelling it had first."""
    out: Terms = {}
    for key, term in itertools.chain.from_iterable(terms.items() for terms in several):
        out.setdefault(key, term)
    return out


def _times(left: Terms, right: Terms) -> Terms:
    out: Terms = {}
    for (a, s), (b, t) in itertools.product(left.items(), right.items()):
        out.setdefault(a | b, joined(s, t))
    return out


def _cross(a: Node, b: Node) -> Terms:
    left, right = _expand(a), _expand(b)
    return _union(left, right, _times(left, right))


def _nest(a: Node, b: Node) -> Terms:
    left, right = _expand(a), _expand(b)
    parents = joined(*left.values())
    return _union(left, _times({frozenset(parents): parents}, right))


def _power(a: Node, b: Node) -> Terms:
    terms = _expand(a)
    if len(terms) < 2:
        a.fail("x^2 outside I() means x crossed with itself, which is x: write I(x^2) for the square.")
    if b.kind != "number" or not re.fullmatch("[1-9]", b.value):
        b.fail("The power of a sum of terms is a whole number from 1 to 9.")
    out = terms
    for _ in range(int(b.value) - 1):
        out = _limit(_union(out, _times(out, terms)), a)
    return out


_OPERATORS: dict[str, Callable[[Node, Node], Terms]] = {
    ":": lambda a, b: _times(_expand(a), _expand(b)),
    "*": _cross,
    "/": _nest,
    "^": _power,
}
