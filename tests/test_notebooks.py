"""Every notebook runs from top to bottom, and finds its own headline numbers again."""

import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
# relative tolerance of what a sampler computes: four Monte Carlo standard errors and more
LOOSE = {"beta_posterior": 0.05, "sigma_posterior": 0.02, "largest_slope_difference": None}
LOOSE |= {"elpd_exact": 4e-4, "elpd_subject": 3e-4, "elpd_integrated": 5e-4}  # of numbers near 900
LOOSE |= {"elpd_rows_added": 2e-3, "elpd_loglik_added": 5e-3}  # weights with k-hat above 0.7
LOOSE |= {"delta_serial": 0.1, "delta_diet": None}  # differences of such


def headline(notebook) -> dict:
    """The last line of JSON that a notebook prints."""
    texts = [o["text"] for c in notebook.cells for o in c.get("outputs", []) if o["output_type"] == "stream"]
    found = [line for text in texts for line in text.splitlines() if line.startswith("{")]
    return json.loads(found[-1])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
@pytest.mark.filterwarnings("ignore")
def test_notebook_runs_and_agrees_with_what_it_shows(path, tmp_path):
    stored = nbformat.read(path, as_version=4)
    assert all(c.get("execution_count") for c in stored.cells if c.cell_type == "code"), "not executed"
    fresh = nbformat.read(path, as_version=4)
    NotebookClient(fresh, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    old, new = headline(stored), headline(fresh)
    assert old.keys() == new.keys()
    for name, value in old.items():
        tolerance = LOOSE.get(name, 1e-6)
        if tolerance is not None:
            assert new[name] == pytest.approx(value, rel=tolerance, abs=1e-9), name


def test_sleepstudy_headline_numbers():
    numbers = headline(nbformat.read(NOTEBOOKS[0], as_version=4))
    assert numbers["loglik"] == pytest.approx(-871.814135980, abs=1e-6)
    assert numbers["se_reml"] == pytest.approx([6.82455653207, 1.54578889629], rel=1e-6)
    assert numbers["divergences"] == 0
    assert numbers["beta_posterior"][1] == pytest.approx(numbers["beta_reml"][1], abs=0.2)


def test_leave_one_out_headline_numbers():
    path = next(path for path in NOTEBOOKS if path.stem == "02_three_leave_one_outs")
    numbers = headline(nbformat.read(path, as_version=4))
    exact = numbers["elpd_exact"]
    assert numbers["elpd_subject"] == pytest.approx(exact, abs=0.3)
    assert numbers["elpd_loglik_added"] - exact == pytest.approx(21, abs=2)
    assert numbers["elpd_rows_added"] - exact == pytest.approx(25, abs=2)
    by_row, by_subject = numbers["delta_diet"]
    assert abs(by_row) < 1 < 10 < by_subject
