"""The README's code is run, and its two commands are what they say."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def block(mark: str) -> str:
    """The code block behind a comment such as <!-- example -->."""
    found = re.search(rf"<!-- {mark} -->\n```\w*\n(.*?)```", README, re.S)
    assert found, mark
    return found.group(1)


def test_new_correlation_example_runs_and_converges():
    namespace: dict = {}
    exec(block("correlation example"), namespace)
    fit = namespace["fit"]
    assert fit.convergence.status == "converged"
    assert fit.parameters["range"] > 0
    body = block("correlation example").split("rats =")[0].strip().splitlines()
    assert len([line for line in body if line.strip()]) - 1 <= 25


def test_python_example_runs():
    namespace: dict = {}
    exec(block("example").replace("model.sample(", "model.sample(draws=200, "), namespace)
    assert "beta" in namespace["posterior"]["posterior"]


def test_posterior_example_runs():
    import matplotlib.pyplot as plt

    import bayeslmm as bl

    data = bl.load_dataset("sleepstudy")
    namespace = {"bl": bl, "data": data, "model": bl.LMM("Reaction ~ Days + (Days | Subject)", data)}
    exec(block("posterior example").replace("sbc(model, 20", "sbc(model, 2"), namespace)
    assert namespace["posterior"].attrs["khat"] < 0.7
    assert namespace["subjects"]["slope"].elpd > namespace["subjects"]["intercept"].elpd
    plt.close("all")


@pytest.mark.parametrize("mark", ["main command", "test command"])
def test_commands_are_one_line_each(mark):
    assert len(block(mark).strip().splitlines()) == 1


def test_every_file_of_the_map_exists():
    part = README.split("## Where things are")[1].split("##")[0]
    for name in re.findall(r"[\w/]+\.py|(?<=\n      )[\w]+/|(?<=\n    )[\w]+/", part):
        assert (ROOT / name).exists() or (ROOT / "bayeslmm" / name).exists(), name
