"""The HTML report: well-formed, complete in itself, with the numbers and the program that makes them."""

from html.parser import HTMLParser

import matplotlib as mpl
import pytest
from made_posterior import made_posterior

import bayeslmm as bl

mpl.use("Agg")

SERIAL = ("bodyweight", "weight ~ Time * Diet + (Time | Rat)", bl.Exponential("Time") + bl.Independent())
CROSSED = ("penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)", None)
MARGINAL = ("orthodont", "distance ~ age * Sex", bl.AR1("age", subject="Subject"))
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Checker(HTMLParser):
    """Follows the tags and gathers what a browser would load and show."""

    def __init__(self):
        super().__init__()
        self.open, self.sources, self.text, self.tags = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [v for k, v in attrs if k in ("src", "href", "action", "srcset", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(page):
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    return checker, " ".join(" ".join(checker.text).split())


@pytest.fixture(scope="module")
def sleep(tmp_path_factory):
    data = bl.load_dataset("sleepstudy")
    data.loc[3, "Reaction"] = float("nan")
    with pytest.warns(bl.DataNote):
        fit = bl.LMM("Reaction ~ Days + (Days | Subject)", data).fit()
    c = bl.compare(fit, made_posterior(fit), made_posterior(fit, sampler="collapsed", chains=1))
    path = bl.write_report(c, tmp_path_factory.mktemp("report") / "report.html")
    return c, path.read_text(encoding="utf-8")


def test_it_is_well_formed_and_needs_nothing_else(sleep):
    checker, _ = read(sleep[1])
    assert checker.sources
    assert all(s.startswith("data:image/png;base64,") for s in checker.sources)
    assert "url(" not in sleep[1]
    assert "@import" not in sleep[1]
    assert "<script" not in sleep[1]
    assert checker.tags.count("img") == 7  # estimates, variance, shrinkage, profiles, 2 traces, 1 rank plot


def test_it_holds_the_numbers_of_both_engines(sleep):
    from bayeslmm.comparison_text import formatted

    c, page = sleep
    _, text = read(page)
    for table in (c.fixed, c.variance, c.subjects["Subject"], c.diagnostics):
        for number in formatted(table).to_numpy().ravel():
            assert number in text
    assert f"{c.fit.loglik:.4f}" in text
    for words in c.intervals.values():
        assert words in text


def test_it_states_the_model_the_data_and_what_was_dropped(sleep):
    _, text = read(sleep[1])
    for words in (
        "Reaction ~ Days + (Days | Subject)",
        "179",
        "1 of 180 rows left out",
        "Reaction: ms, Days: day",
        "18, with 9 to 10 rows each",
        "Belenky",
        "Converged",
        "Marginal: fitted by REML",
        "E[Reaction] =",
        "Python",
        "pymc",
        "bayeslmm",
    ):
        assert words in text


def test_the_program_it_shows_is_one(sleep):
    c, page = sleep
    _, text = read(page)
    assert "bl.load_dataset('sleepstudy')" in text
    assert "posteriors = [model.sample('nuts', draws=100, chains=2), model.sample('collapsed'" in text
    from bayeslmm.report import default_code

    compile(default_code(c), "report", "exec")


@pytest.mark.parametrize(
    ("name", "formula", "residual", "words"),
    [
        (*SERIAL, ["range = 17.15", "within Rat", "Exponential('Time')", "0.05294"]),
        (*CROSSED, ["24, with 6 rows each", "6, with 24 rows each"]),
        (*MARGINAL, ["within Subject", "AR1('age'"]),
    ],
)
def test_other_models(tmp_path, name, formula, residual, words):
    fit = bl.LMM(formula, bl.load_dataset(name), residual=residual).fit()
    path = bl.write_report(
        bl.compare(fit, made_posterior(fit, draws=20)), tmp_path / "r.html", code="print(1 < 2)"
    )
    _, text = read(path.read_text(encoding="utf-8"))
    for word in [*words, "print(1 < 2)"]:
        assert word in text


def test_labels_cannot_break_the_page(tmp_path):
    data = bl.load_dataset("sleepstudy")
    data["Subject"] = "</td><script>" + data["Subject"]
    data.attrs["source"] = "<img src='http://example.org'>"
    fit = bl.LMM("Reaction ~ Days + (1 | Subject)", data).fit()
    path = bl.write_report(bl.compare(fit, made_posterior(fit, draws=20)), tmp_path / "r.html")
    checker, text = read(path.read_text(encoding="utf-8"))
    assert "script" not in checker.tags
    assert "</td><script>308" in text
    assert all(s.startswith("data:") for s in checker.sources)


def test_many_levels_are_cut_and_it_is_said(tmp_path):
    import numpy as np

    rng = np.random.default_rng(0)
    data = {"y": rng.normal(size=1500), "g": np.repeat(np.arange(500), 3)}
    data["y"] += np.repeat(rng.normal(size=500), 3)
    fit = bl.LMM("y ~ 1 + (1 | g)", data).fit()
    path = bl.write_report(bl.compare(fit, made_posterior(fit, draws=10)), tmp_path / "r.html")
    _, text = read(path.read_text(encoding="utf-8"))
    assert "first 400 rows" in text
    assert "24 of 500" not in text  # it stands in the picture, not in the page
