"""Reads the reference numbers of tests/oracle and the tables they were computed from."""

import json
from functools import cache
from pathlib import Path

import pandas as pd

import bayeslmm as bl

ORACLE = Path(__file__).parent / "oracle"


@cache
def read_json(name: str) -> dict:
    return json.loads((ORACLE / name).read_text())


@cache
def _table(name: str) -> pd.DataFrame:
    return pd.read_csv(ORACLE / name) if name.endswith(".csv") else bl.load_dataset(name)


def table(name: str) -> pd.DataFrame:
    """A bundled data set, or a CSV of tests/oracle; rows without the response of fev.csv are left out."""
    frame = _table(name).copy()
    return frame.dropna(subset=["FEV1"]) if name == "fev.csv" else frame


def model(record: dict) -> bl.LMM:
    """The model of a record with `data`, `formula`, `residual` (text) and perhaps `weights`."""
    frame = table(record["data"])
    if "Yield" in frame and "Batch" in frame:
        frame["Batch"] = frame["Batch"].astype(str)
    residual = (
        eval(record["residual"], {k: getattr(bl, k) for k in bl.__all__ if k[0].isupper()})
        if record.get("residual")
        else None
    )
    weights = record.get("weights")
    return bl.LMM(record["formula"], frame, residual=residual, weights=weights)


def tidy(name: str) -> str:
    """Names of parameters in one spelling: R writes MachineB, formulaic Machine[T.B]."""
    return name.replace(" ", "").replace("[T.", "").replace("[B]", "B")
