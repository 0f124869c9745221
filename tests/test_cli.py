"""The command line: what it teaches, reads, prints, writes and refuses."""

import subprocess
import sys

import matplotlib as mpl
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from made_posterior import made_posterior

import bayeslmm as bl
from bayeslmm.cli import main
from bayeslmm.cli_input import STRUCTURES, parse_residual, parse_units, read_table

mpl.use("Agg")

FORMULA = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture
def sampled(monkeypatch):
    """Draws made from random numbers in place of a sampler; remembers how it was called."""
    calls = []

    def sample(self, sampler="nuts", **options):
        calls.append({"sampler": sampler, "model": self, **options})
        return made_posterior(self.fit(), chains=options["chains"], draws=options["draws"], sampler=sampler)

    monkeypatch.setattr(bl.LMM, "sample", sample)
    return calls


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "sleep.csv"
    bl.load_dataset("sleepstudy").to_csv(path, index=False)
    return path


# --- the residual as text


@pytest.mark.parametrize(
    ("text", "structure"),
    [
        ("Independent()", bl.Independent()),
        ("Exponential(Time) + Independent()", bl.Exponential("Time") + bl.Independent()),
        ("Exponential('Time') + Independent()", bl.Exponential("Time") + bl.Independent()),
        (" AR1( visit , by=visit, subject='the id' ) ", bl.AR1("visit", by="visit", subject="the id")),
        ("Independent(power=Time)", bl.Independent(power="Time")),
        ("Gaussian(t) + Matern32(t) + Independent()", bl.Gaussian("t") + bl.Matern32("t") + bl.Independent()),
        ("(Spherical(t) + Independent())", bl.Spherical("t") + bl.Independent()),
        ("Exponential(čas)", bl.Exponential("čas")),
    ],
)
def test_residual_text(text, structure):
    assert str(parse_residual(text)) == str(structure)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Exponential",
        "Exponential(",
        "Exponential(Time) - Independent()",
        "exponential(Time)",
        "Exponential(3)",
        "Exponential(a, b)",
        "Exponential(Time, nugget=x)",
        "Exponential(*Time)",
        "Exponential(**Time)",
        "LMM(x)",
        "__import__('os').system('true')",
        "Exponential(open('x'))",
        "Exponential(Time).matrix",
        "[Independent()]",
        "Exponential(Time) if 1 else Independent()",
        "lambda: Independent()",
        "Exponential(f'{Time}')",
        "1",
        "Exponential(Time + Days)",
        "Independent() + 1",
        "Exponential(Time); Independent()",
        "\0",
        "(" * 300,
        "Independent() + " * 200 + "Independent()",
        "Correlation()",
        "Structure()",
    ],
)
def test_other_text_is_refused(text):
    with pytest.raises(bl.FormulaError, match="residual structure"):
        parse_residual(text)


@given(st.text(alphabet="AR1ExponentialIndependent()+'=,. _byd[]{}*:@\\\"\n#", max_size=60))
def test_no_text_does_more_than_be_refused(text):
    try:
        found = parse_residual(text)
    except (bl.FormulaError, bl.CovarianceError):
        return
    assert all(type(part).__name__ in STRUCTURES for part in found)


def test_a_refusal_points_at_the_place():
    with pytest.raises(bl.FormulaError) as caught:
        parse_residual("Exponential(čas) + Wiener(t)")
    assert str(caught.value).endswith("\n  Exponential(čas) + Wiener(t)\n                     ^")


def test_a_column_where_none_belongs_is_refused():
    with pytest.raises(bl.CovarianceError, match="by='Sex'"):
        parse_residual("Independent(Sex)")


# --- tables and units


def test_tables_of_every_kind_hold_the_same(tmp_path):
    data = bl.load_dataset("orthodont").astype({"Sex": str})
    data.to_csv(tmp_path / "a.csv", index=False)
    data.to_csv(tmp_path / "a.tsv", index=False, sep="\t")
    data.to_parquet(tmp_path / "a.parquet")
    for name in ("a.csv", "a.tsv", "a.parquet"):
        pd.testing.assert_frame_equal(read_table(str(tmp_path / name)), data, check_dtype=False)


def test_units():
    assert parse_units("Reaction = ms, Days=day,") == {"Reaction": "ms", "Days": "day"}
    assert parse_units(None) == {}
    with pytest.raises(bl.DataError, match="column=unit"):
        parse_units("ms")


# --- commands


def test_datasets_lists_every_model(capsys):
    assert main(["datasets"]) == 0
    out = capsys.readouterr().out
    for name in bl.dataset_names():
        record = bl.describe_dataset(name)
        assert name in out
        assert record.formula in out
    assert "Reaction (ms)" in out
    assert "Exponential(Time) + Independent()" in out


def test_fit_prints_the_estimates(capsys):
    assert main(["fit", "sleepstudy", "--df", "satterthwaite"]) == 0
    out = capsys.readouterr().out
    for words in ("-871.8141", "251.4", "6.825", "24.74", "Satterthwaite", "Converged"):
        assert words in out


def test_fit_of_a_bundled_set_with_its_residual(capsys):
    assert main(["fit", "bodyweight"]) == 0
    assert "-563.8841" in capsys.readouterr().out


def test_fit_of_a_file_with_options(capsys, table):
    data = pd.read_csv(table)
    data.loc[0, "Days"] = None
    data["precision"] = 1.0 + data.index % 3
    data.to_csv(table, index=False)
    arguments = [
        "fit",
        str(table),
        "Reaction ~ Days + (1 | Subject)",
        "--method",
        "ml",
        "--weights",
        "precision",
        "--residual",
        "Exponential(Days) + Independent()",
    ]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    with pytest.warns(bl.DataNote):
        model = bl.LMM(
            "Reaction ~ Days + (1 | Subject)",
            data,
            weights="precision",
            residual=bl.Exponential("Days") + bl.Independent(),
        )
    assert f"ML log-likelihood {model.fit('ML').loglik:.4f}" in out
    assert "Note: 1 of 180 rows left out" in out


def test_compare_shows_both_and_writes_everything(capsys, sampled, tmp_path):
    out = tmp_path / "new" / "folder"
    arguments = [
        "compare",
        "machines",
        "--sampler",
        "nuts",
        "--draws",
        "60",
        "--tune",
        "5",
        "--chains",
        "2",
        "--seed",
        "7",
        "--out",
        str(out),
    ]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    for words in ("REML", "NUTS", "52.36", "Kenward-Roger", "equal-tailed", "seed 7", "report.html"):
        assert words in shown
    assert sampled[0]["random_seed"] == 7
    assert (sampled[0]["draws"], sampled[0]["tune"], sampled[0]["chains"]) == (60, 5, 2)
    assert {p.name for p in out.iterdir()} == {
        "report.html",
        "posterior.nc",
        "fixed.csv",
        "variance.csv",
        "diagnostics.csv",
        "subjects-Worker.csv",
        "subjects-Worker-Machine.csv",
    }
    with xr.open_datatree(out / "posterior.nc", engine="h5netcdf") as tree:
        assert tree["posterior"]["beta"].shape == (2, 60, 3)
        assert tree["posterior"]["w_Worker:Machine"].sizes["Worker:Machine"] == 18
    fixed = pd.read_csv(out / "fixed.csv", index_col=0)
    assert fixed.loc["Machine[T.B]", "REML estimate"] == pytest.approx(7.9667, abs=1e-4)
    program = (out / "report.html").read_text(encoding="utf-8")
    assert "random_seed=7" in program


def test_both_samplers_stand_side_by_side(capsys, sampled, tmp_path):
    assert main(["compare", "dyestuff", "--sampler", "both", "--chains", "2", "--draws", "50", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert [call["sampler"] for call in sampled] == ["collapsed", "nuts"]
    assert "tune" not in sampled[0]
    assert sampled[1]["tune"] == 1000
    assert "collapsed" in shown
    assert "NUTS" in shown
    assert {"posterior-collapsed.nc", "posterior-NUTS.nc"} <= {p.name for p in tmp_path.iterdir()}


def test_the_program_in_the_report_is_the_command(sampled, table, tmp_path):
    arguments = [
        "compare",
        str(table),
        FORMULA,
        "--draws",
        "30",
        "--chains",
        "2",
        "--method",
        "ML",
        "--df",
        "residual",
        "--residual",
        "AR1() + Independent()",
        "--out",
        str(tmp_path),
        "--units",
        "Reaction=ms",
    ]
    assert main(arguments) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for words in (
        "pd.read_csv(",
        "residual=bl.AR1() + bl.Independent()",
        "model.fit(&#x27;ML&#x27;)",
        "df=&#x27;residual&#x27;",
        "Reaction: ms",
    ):
        assert words in page


def test_without_a_seed_one_is_drawn_and_shown(capsys, sampled):
    assert main(["compare", "dyestuff", "--draws", "20", "--chains", "2"]) == 0
    assert f"seed {sampled[0]['random_seed']}" in capsys.readouterr().out


def test_what_samplers_say_by_the_way_is_not_shown(capsys, caplog, monkeypatch):
    import logging
    import warnings

    def sample(self, sampler="nuts", **options):
        logging.getLogger("pymc").setLevel(logging.INFO)
        logging.getLogger("pymc").warning("by the way")
        logging.getLogger("pymc").error("in earnest")
        warnings.warn("of the user", bl.ConvergenceNote, stacklevel=1)
        warnings.warn("scalar divide", RuntimeWarning, stacklevel=1)
        return made_posterior(self.fit(), draws=20)

    monkeypatch.setattr(bl.LMM, "sample", sample)
    assert main(["compare", "dyestuff", "--draws", "20"]) == 0
    assert caplog.messages == ["in earnest"]
    out = capsys.readouterr().out
    assert "Note: of the user" in out
    assert "scalar divide" not in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fit", "nowhere.csv"], "No file 'nowhere.csv'"),
        (["fit", "sleepstudy", "Reaction ~ Day + (1 | Subject)"], "Did you mean 'Days'"),
        (["fit", "sleepstudy", "Reaction ~ Days +* (1 | Subject)"], "^"),
        (["fit", "sleepstudy", "--df", "guess"], "kenward-roger"),
        (["fit", "sleepstudy", "--residual", "open('x')"], "no structure open"),
        (["fit", "sleepstudy", "--units", "ms"], "column=unit"),
        (["compare", "sleepstudy", "--df", "guess"], "kenward-roger"),
        (["compare", "sleepstudy", "--out", __file__], "File exists"),
    ],
)
def test_errors_are_one_message_and_status_2(capsys, sampled, arguments, words):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("bayeslmm: ")
    assert words in error
    assert "Traceback" not in error
    assert sampled == []


def test_files_that_are_no_tables(capsys, tmp_path, table):
    for name, content in (
        ("a.xlsx", b"x"),
        ("a.parquet", b"not parquet"),
        ("empty.csv", b""),
        ("b.csv", b"\xff\xfe\x00"),
    ):
        (tmp_path / name).write_bytes(content)
        assert main(["fit", str(tmp_path / name), "y ~ 1 + (1 | g)"]) == 2
        assert name in capsys.readouterr().err
    assert main(["fit", str(table)]) == 2
    assert "needs a formula" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["compare"], ["compare", "sleepstudy", "--draws", "0"], ["foo"]])
def test_wrong_arguments_end_with_status_2(capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_ctrl_c_ends_with_130_even_where_the_sampler_swallows_it(capsys, monkeypatch):
    import signal

    def sample(self, sampler="nuts", **options):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            return made_posterior(self.fit())

    monkeypatch.setattr(bl.LMM, "sample", sample)
    before = signal.getsignal(signal.SIGINT)
    assert main(["compare", "dyestuff"]) == 130
    assert "stopped" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before


def test_a_pipe_sees_signs_of_life(capsys, monkeypatch):
    import time

    from bayeslmm import cli_output

    monkeypatch.setattr(cli_output, "_EVERY", 0.02)
    with cli_output.signs_of_life(cli_output.make_console(), "sampling"):
        time.sleep(0.2)
    assert "sampling: 0 s so far" in capsys.readouterr().out


def test_help_teaches_and_is_light():
    code = (
        "import sys; from bayeslmm.cli import main\n"
        "try: main(['compare', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'pymc', 'pytensor', 'arviz', 'matplotlib', 'pandas', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for words in (
        "marginal",
        "hierarchical",
        "examples",
        "(time | id)",
        "Exponential(time)",
        "rhat",
        "--out DIR",
    ):
        assert words in done.stdout


def test_fit_needs_no_pymc():
    code = (
        "import sys; from bayeslmm.cli import main\n"
        "status = main(['fit', 'sleepstudy'])\n"
        "sys.exit(9 if {'pymc', 'pytensor', 'arviz', 'matplotlib'} & set(sys.modules) else status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "-871.8141" in done.stdout


def test_the_module_runs():
    done = subprocess.run(
        [sys.executable, "-m", "bayeslmm", "--version"], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == f"bayeslmm {bl.__version__}"
