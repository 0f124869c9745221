"""Text of a formula -> `Formula`: syntax only, no data and no evaluation.

The grammar is R's (lme4): terms with `+ - * / : ^`, one bar per parenthesis. `tokens` and `syntax` read the
text, `arithmetic` and `algebra` write the terms anew, and this module sorts them into the fixed part, the
offsets and the bars.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from .algebra import expand_sum, joined, right_side
from .arithmetic import columns, factor, single
from .errors import FormulaError
from .syntax import Node, read_sides
from .tokens import CONSTANTS, STRUCTURES


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
    left, right = read_sides(source)
    response = factor(single(left))
    parts = _Parts([], [], [])
    parts.read(right.summands())
    fixed = right_side(expand_sum(parts.plain, start=True))
    read = dict.fromkeys(itertools.chain(columns(left), columns(right)))
    return Formula(text, response, fixed, tuple(parts.offsets), tuple(parts.bars), tuple(read))


class _Parts(NamedTuple):
    """The right side sorted into ordinary terms, offsets and bars."""

    plain: list[tuple[str, Node]]
    offsets: list[str]
    bars: list[Bar]

    def read(self, items: Iterable[tuple[str, Node]]) -> None:
        for sign, node in items:
            inner = node.bare()
            if inner.kind == "bar" or (inner.kind == "call" and inner.value in STRUCTURES):
                self.bars.extend(_bars(sign, node, inner))
            elif inner.kind == "call" and inner.value == "offset":
                self.offsets.append(_offset(sign, inner))
            else:
                self.plain.append((sign, node))


def _offset(sign: str, node: Node) -> str:
    if sign == "-" or len(node.items) != 1 or node.options:
        node.fail("Write + offset(x), with one argument.")
    return factor(single(node.items[0]))


def _bars(sign: str, node: Node, inner: Node) -> list[Bar]:
    if sign == "-":
        node.fail("A random-effects bar can be added, not subtracted.")
    structure, homogeneous, bar = "free", None, inner
    if inner.kind == "call":
        structure, homogeneous, bar = STRUCTURES[inner.value], _hom(inner), _only(inner).bare()
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
    effects = right_side(expand_sum(bar.items[0].summands(), start=True))
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
            return [joined(a, b) for a in left for b in right]
        return left + [joined(itertools.chain(*left), b) for b in right]
    if node.kind == "bar":
        node.fail("One parenthesis holds one bar: write (effects | group) + (effects | group).")
    node.fail("A grouping factor is a column, or columns joined by ':' or '/', such as (1 | a/b).")
