"""The same fixed part under sum-to-zero contrasts, in which type III hypotheses are single coefficients."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
from formulaic import ModelSpec

from .aliases import aliased
from .encoding import Encoding, make_columns, shown_table
from .tokens import tokenize


def sum_coded(encoding: Encoding, frame: pd.DataFrame) -> tuple[np.ndarray, dict[str, tuple[int, ...]]]:
    """X (n, p) with every factor coded by contr.sum, and each term's columns, named as in the encoding."""
    text, _ = aliased(tokenize(encoding.rhs))
    for source in encoding.sources:
        if source.levels is None:
            continue
        coded = f"C({source.alias}, contr.sum)"
        whole = rf"C\s*\(\s*{source.alias}\b(?:[^()]|\([^()]*\))*\)"
        text = re.sub(whole if source.alias.endswith("factor") else rf"\b{source.alias}\b", coded, text)
    spec = ModelSpec.from_spec(text, output="numpy", na_action="ignore", ensure_full_rank=True)
    matrix, spec = make_columns(encoding.rhs, spec, shown_table(frame, encoding.sources), frame.index, None)
    columns = [tuple(at) for at in spec.term_indices.values() if at]
    return matrix, dict(zip(encoding.terms, columns, strict=True))
