"""Names of ours for the users' columns: formulaic sees no other name than these and those of the list."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from .errors import FormulaError
from .tokens import ALLOWED, CONSTANTS, CONTRASTS, FUNCTIONS, Token, quote, tokenize

# formulaic drops levels that begin with "__" without a word, so they are shown to it behind this mark.
_MARK = "ʘ"


@dataclass(frozen=True)
class Source:
    """One column as the expressions read it: `levels` of a factor, None for a number."""

    alias: str
    column: str
    levels: tuple[Any, ...] | None


def columns_of(rhs: str) -> tuple[str, ...]:
    """Return the columns that an expression reads, in order."""
    return tuple(dict.fromkeys(column for column, _ in aliased(tokenize(rhs))[1]))


def aliased(tokens: list[Token]) -> tuple[str, dict[tuple[str, str], str]]:
    """Rewrite an expression with a name of ours for each column and place it stands in.

    A place is "plain" (a number or a factor), "factor" (inside C) or "number" (inside any other function).
    """
    places: dict[tuple[str, str], str] = {}
    words, calls, before = list[str](), list[str](), ""
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        after = following.text if following is not None and following.kind == "op" else ""
        inside = next((call for call in reversed(calls) if call), "")
        word = token.text
        if _is_column(token, after, inside):
            place = {"": "plain", "C": "factor"}.get(inside, "number")
            word = places.setdefault((token.text, place), f"ʘ{len(places)}{place}")
        elif token.kind == "string":
            word = word[0] + marked(word[1:])
        elif token.kind == "op" and word == "(":
            calls.append(before)
        elif token.kind == "op" and word == ")":
            calls.pop()
        before = word if token.kind == "name" and after == "(" else ""
        if before and (before not in FUNCTIONS or before == "offset") and before not in CONTRASTS:
            raise FormulaError(f"{before}() is not a function of formulas. {ALLOWED}")
        words.append(word if before else f"{word} ")  # formulaic reads "log (" as two terms
    return "".join(words), places


def _is_column(token: Token, after: str, inside: str) -> bool:
    if token.kind == "quoted":
        return True
    if token.kind != "name" or after == "(":
        return False
    return not (inside and (after == "=" or token.text in CONSTANTS or token.text in CONTRASTS))


def restored(text: str, sources: tuple[Source, ...]) -> str:
    """Put the users' names back: bare where a column stands alone, quoted if need be inside a function."""
    columns = {source.alias: source.column for source in sources}

    def name(match: re.Match[str]) -> str:
        column = columns.get(match.group(), match.group())
        alone = match.start() == 0 or text[match.start() - 1] == ":"
        return column if alone else quote(column)

    return re.sub(r"ʘ\d+(?:plain|factor|number)", name, text).replace(f"{_MARK}__", "__")


def marked(level: Any) -> Any:
    """Return a level as formulaic is to see it."""
    return _MARK + level if isinstance(level, str) and level.startswith("__") else level
