"""The words of a formula, and the short list of those with a meaning: functions, contrasts, constants."""

from __future__ import annotations

import keyword
import re
from typing import NamedTuple

from .errors import FormulaError

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
_MAX_TEXT = 20_000
_TOKEN = re.compile(
    r"""(?P<space>\s+) | (?P<quoted>`[^`]*`) | (?P<string>"[^"\\`]*"|'[^'\\`]*')
      | (?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![\w.]))
      | (?P<name>\.?[^\W\d][\w.]*) | (?P<op>\*\*|\|\||[~+\-*/^:|(),=])""",
    re.VERBOSE,
)


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


def quote(name: str) -> str:
    """Write a column's name so that it always reads as a column: in backticks unless it is a plain word."""
    plain = name.isidentifier() and name.isascii() and not keyword.iskeyword(name) and name[0] != "_"
    return name if plain and name not in FUNCTIONS and name not in CONSTANTS else f"`{name}`"
