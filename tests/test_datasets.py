"""The bundled data sets: shape, types, units, sources and what an unknown name says."""

import subprocess
import sys
from dataclasses import FrozenInstanceError

import numpy as np
import pandas as pd
import pytest

from bayeslmm.datasets import dataset_names, describe, load_dataset
from bayeslmm.errors import DataError

SHAPES = {
    "sleepstudy": (180, ["Reaction", "Days", "Subject"], {"Subject": 18}),
    "orthodont": (108, ["distance", "age", "Subject", "Sex"], {"Subject": 27, "Sex": 2}),
    "bodyweight": (176, ["weight", "Time", "Rat", "Diet"], {"Rat": 16, "Diet": 3}),
    "dyestuff": (30, ["Batch", "Yield"], {"Batch": 6}),
    "pastes": (60, ["strength", "batch", "cask", "sample"], {"batch": 10, "cask": 3, "sample": 30}),
    "penicillin": (144, ["diameter", "plate", "sample"], {"plate": 24, "sample": 6}),
    "machines": (54, ["Worker", "Machine", "score"], {"Worker": 6, "Machine": 3}),
    "oxboys": (234, ["Subject", "age", "height", "Occasion"], {"Subject": 26, "Occasion": 9}),
    "ovary": (308, ["Mare", "Time", "follicles"], {"Mare": 11}),
}

UNITS = {
    "sleepstudy": {"Reaction": "ms", "Days": "day"},
    "orthodont": {"distance": "mm", "age": "year"},
    "bodyweight": {"weight": "g", "Time": "day"},
    "dyestuff": {"Yield": "g"},
    "pastes": {"strength": "unit not stated"},
    "penicillin": {"diameter": "mm"},
    "machines": {"score": "point"},
    "oxboys": {"age": "dimensionless", "height": "cm"},
    "ovary": {"Time": "cycle", "follicles": "count"},
}

# Sums of the responses, computed in R from the tables that lme4 and nlme ship.
SUMS = {
    "sleepstudy": ("Reaction", 53731.4205),
    "orthodont": ("distance", 2594.5),
    "bodyweight": ("weight", 67669),
    "dyestuff": ("Yield", 45825),
    "pastes": ("strength", 3603.2),
    "penicillin": ("diameter", 3308),
    "machines": ("score", 3221.1),
    "oxboys": ("height", 34987.54),
    "ovary": ("follicles", 3707),
}

every_dataset = pytest.mark.parametrize("name", sorted(SHAPES))


def test_names_are_those_described():
    assert sorted(dataset_names()) == sorted(SHAPES)


@every_dataset
def test_rows_columns_and_levels(name):
    rows, columns, levels = SHAPES[name]
    frame = load_dataset(name)
    assert frame.shape == (rows, len(columns))
    assert describe(name).rows == rows
    assert list(frame.columns) == list(describe(name).columns) == columns
    assert {column: frame[column].nunique() for column in levels} == levels
    assert not frame.isna().any(axis=None)


@every_dataset
def test_response_adds_up_as_in_r(name):
    column, total = SUMS[name]
    np.testing.assert_allclose(load_dataset(name)[column].sum(), total, rtol=1e-12)


@every_dataset
def test_units_cover_the_numeric_columns_and_ids_are_never_numeric(name):
    frame = load_dataset(name)
    numeric = {column for column in frame if pd.api.types.is_numeric_dtype(frame[column])}
    assert frame.attrs["units"] == describe(name).units == UNITS[name]
    assert numeric == set(UNITS[name])
    text = [column for column in frame if column not in numeric]
    assert all(isinstance(value, str) for column in text for value in frame[column])


@every_dataset
def test_attrs_name_the_source_and_survive_a_selection(name):
    frame = load_dataset(name)
    assert frame.attrs["name"] == name
    assert "R package" in frame.attrs["source"]
    assert "GPL" in frame.attrs["source"]
    for derived in (frame.copy(), frame[frame.columns[:2]], frame.iloc[:5]):
        assert derived.attrs == frame.attrs


@every_dataset
def test_default_formula_names_columns_of_the_table(name):
    record = describe(name)
    assert record.formula.split("~")[0].strip() in record.columns
    assert "|" in record.formula


@every_dataset
def test_calls_share_nothing(name):
    first = load_dataset(name)
    first.iloc[0, 0] = first.iloc[1, 0]
    first.attrs["units"].clear()
    pd.testing.assert_frame_equal(load_dataset(name), load_dataset(name))
    assert load_dataset(name).attrs["units"] == UNITS[name]


def test_factors_keep_their_reference_level():
    assert load_dataset("orthodont")["Sex"].cat.categories.tolist() == ["Male", "Female"]
    assert load_dataset("bodyweight")["Diet"].cat.categories.tolist() == ["1", "2", "3"]
    assert load_dataset("machines")["Machine"].cat.categories.tolist() == ["A", "B", "C"]


def test_bodyweight_has_a_default_residual():
    assert describe("bodyweight").residual == "Exponential(Time) + Independent()"
    assert describe("sleepstudy").residual is None


def test_records_are_frozen():
    record = describe("sleepstudy")
    with pytest.raises(FrozenInstanceError):
        record.title = "x"
    with pytest.raises(TypeError):
        record.columns["Days"] = None


@pytest.mark.parametrize(("name", "hint"), [("sleep_study", "'sleepstudy'"), ("Orthodont", "'orthodont'")])
def test_unknown_name_says_what_is_near_and_what_there_is(name, hint):
    with pytest.raises(DataError, match=f"{name}.*Did you mean {hint}") as caught:
        load_dataset(name)
    assert all(known in str(caught.value) for known in dataset_names())


def test_far_name_lists_the_data_sets_without_a_guess():
    with pytest.raises(DataError, match="Available: sleepstudy") as caught:
        describe("iris")
    assert "Did you mean" not in str(caught.value)


def test_only_pandas_is_needed():
    program = (
        "import sys, bayeslmm.datasets as d; d.load_dataset('ovary');"
        "heavy = {'pymc', 'pytensor', 'arviz', 'xarray', 'scipy', 'matplotlib'};"
        "sys.exit(' '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
