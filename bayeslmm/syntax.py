"""Text of a formula -> a tree, by a parser of our own: only what it knows can come out of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from .errors import FormulaError
from .tokens import ALLOWED, CONSTANTS, CONTRASTS, FUNCTIONS, STRUCTURES, Token, tokenize

_MAX_DEPTH = 50
_POWER = {"|": 10, "||": 10, "+": 20, "-": 20, "*": 30, "/": 30, ":": 40, "^": 50, "**": 50}


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

    def bare(self) -> Node:
        """Return what stands inside the parentheses around this piece."""
        return self.items[0].bare() if self.kind == "paren" else self

    def summands(self) -> Iterator[tuple[str, Node]]:
        """Yield the signed summands; what is no sum is its own only summand."""
        yield from zip(self.signs, self.items, strict=True) if self.kind == "sum" else [("+", self)]


_SHAPE = "write response ~ terms"


def read_sides(source: str) -> tuple[Node, Node]:
    """Read both sides of `response ~ terms` into trees; errors point at the place."""
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
