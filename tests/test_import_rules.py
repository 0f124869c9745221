"""What may import what: the flow of the package, and the heavy packages that wait until they are used."""

import ast
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import bayeslmm

ROOT = Path(bayeslmm.__file__).parent
MODULES = {".".join(path.relative_to(ROOT.parent).with_suffix("").parts): path for path in sorted(ROOT.rglob("*.py"))}

# The stages in the order of the flow: a stage imports itself and earlier ones.
STAGES = [
    {"errors", "jets", "parameters", "datasets", "manyvalues"},
    {"tokens", "syntax", "arithmetic", "algebra", "formula"},
    {"table", "aliases", "encoding", "contrasts", "grouping", "identifiability", "design", "newdata"},
    {"covariance"},
    {"kernel"},  # the likelihood with w integrated out, and its maximum: both engines compute with it
    {"model"},
]
ENGINES = ("marginal", "hierarchical")
# What reads draws: both readings side by side, and everything made of them.
COMPARISONS = ("comparison", "comparison_tables", "comparison_text", "plots", "report", "report_model")
POSTERIORS = ("draws", *COMPARISONS)


@dataclass(frozen=True)
class Import:
    """One import: the module that has it, what it names, whether it runs with the module, and the line."""

    module: str
    target: str
    at_load: bool
    line: int

    def __str__(self):
        return f"{self.module}, line {self.line}: {self.target}"


def imports_of(module, source, *, package=False):
    """All imports that can run, those inside functions too; `if TYPE_CHECKING:` never runs."""
    found = []

    def visit(node, at_load):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for child in node.orelse:
                visit(child, at_load)
            return
        if isinstance(node, ast.Import):
            found.extend(Import(module, name.name, at_load, node.lineno) for name in node.names)
        if isinstance(node, ast.ImportFrom):
            parts = module.split(".") if package else module.split(".")[:-1]
            parts = parts[: len(parts) - node.level + 1] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            found.extend(Import(module, f"{base}.{name.name}", at_load, node.lineno) for name in node.names)
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, at_load and not inside)

    visit(ast.parse(source), True)
    return found


IMPORTS = [
    found
    for module, path in MODULES.items()
    for found in imports_of(
        module.removesuffix(".__init__"), path.read_text(encoding="utf-8"), package=path.stem == "__init__"
    )
]


def outside(found):
    """The foreign package that an import loads, "" for one of ours."""
    top = found.target.split(".")[0]
    return "" if top == "bayeslmm" else top


def part(name):
    """The first name below the package: "marginal" for bayeslmm.marginal.wald, "" for bayeslmm."""
    return name.partition(".")[2].partition(".")[0]


def own(condition):
    return [found for found in IMPORTS if not outside(found) and condition(found)]


def foreign(packages, condition=lambda found: True):
    return [found for found in IMPORTS if outside(found) in packages and condition(found)]


def told(found):
    return "\n".join(map(str, found))


def test_the_reader_of_imports():
    source = """
import numpy as np, pymc.math
from ..design import Design
from . import wald
if TYPE_CHECKING:
    import arviz
else:
    import rich
class A:
    import numba
    def f(self):
        from pytensor import tensor
        g = lambda: __import__("os")
"""
    found = [(i.target, i.at_load) for i in imports_of("bayeslmm.marginal.x", source)]
    assert found == [
        ("numpy", True),
        ("pymc.math", True),
        ("bayeslmm.design.Design", True),
        ("bayeslmm.marginal.wald", True),
        ("rich", True),
        ("numba", True),
        ("pytensor.tensor", False),
    ]
    (inside,) = imports_of("bayeslmm.plots", "from .style import BLACK", package=True)
    assert inside.target == "bayeslmm.plots.style.BLACK"


def test_all_modules_are_seen():
    assert len(MODULES) > 60
    assert {"bayeslmm.model", "bayeslmm.kernel.likelihood", "bayeslmm.hierarchical.builder"} <= set(MODULES)
    assert len(IMPORTS) > 300


def test_sampling_packages_only_in_the_hierarchical_engine():
    found = foreign({"pymc", "pytensor", "numba"}, lambda i: part(i.module) != "hierarchical")
    assert not found, told(found)


def test_pictures_and_diagnostics_are_loaded_on_use():
    loaded = foreign({"arviz"}, lambda i: i.at_load and part(i.module) != "hierarchical")
    assert not loaded, told(loaded)
    drawing = ("plots", "prediction_plots", "diagnostic_plots", "report", "cli_output")
    loaded = foreign({"matplotlib"}, lambda i: i.at_load and part(i.module) not in drawing)
    assert not loaded, told(loaded)
    found = foreign({"arviz"}, lambda i: part(i.module) not in ("hierarchical", *POSTERIORS))
    assert not found, told(found)


def test_the_flow_goes_one_way():
    stage = {name: number for number, names in enumerate(STAGES) for name in names}

    def against(found):
        here, there = part(found.module), part(found.target)
        if here not in stage or here == there:
            return False
        if here == "model" and not found.at_load:
            return there not in {*stage, *ENGINES, "results"}
        return stage[here] < stage.get(there, len(STAGES))

    found = own(against)
    assert not found, told(found)


def test_the_marginal_engine_knows_no_posterior():
    found = own(lambda i: part(i.module) == "marginal" and part(i.target) in ("hierarchical", *POSTERIORS))
    assert not found, told(found)


def test_the_engines_never_import_each_other():
    found = own(lambda i: {part(i.module), part(i.target)} == set(ENGINES))
    assert not found, told(found)


def test_engines_load_no_results():
    later = ("results", *COMPARISONS)
    found = own(lambda i: part(i.module) in ENGINES and part(i.target) in later and i.at_load)
    assert not found, told(found)


def test_a_fit_knows_no_posterior():
    later = ("hierarchical", *POSTERIORS)
    found = own(lambda i: part(i.module) in ("results", "printing") and part(i.target) in later and i.at_load)
    assert not found, told(found)


def test_nothing_imports_the_contents_page():
    """`from . import name` and `import bayeslmm` inside the package load names that are meant for users."""

    def contents_page(found):
        names = {name.removesuffix(".__init__") for name in MODULES}
        attribute = found.target.count(".") == 1 and found.target not in names
        return found.target == "bayeslmm" or (attribute and not found.target.endswith(".__version__"))

    found = own(contents_page)
    assert not found, told(found)


def run(code):
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_fit_loads_no_sampler():
    heavy = run("""
import sys
import bayeslmm as bl
fit = bl.LMM("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy")).fit()
table = fit.summary("kenward-roger")
assert abs(fit.loglik + 871.814135980) < 1e-6
assert abs(table.loc["Days", "df"] - 17) < 1e-3
repr(fit)
heavy = {"pymc", "pytensor", "arviz", "numba", "llvmlite", "matplotlib", "h5netcdf"}
print(*sorted({name.split(".")[0] for name in sys.modules} & heavy))
""")
    assert heavy.split() == []


def best_time(statement):
    """Processor seconds of a statement in a new interpreter: the least of three, whatever else is running."""
    code = f"import time; t = time.process_time(); {statement}; print(time.process_time() - t)"
    return min(float(run(code)) for _ in range(3))


def test_import_is_quick():
    """The contents page, and what it takes to write a model, beside the packages that everyone has loaded."""
    usual = best_time("import pandas; import scipy.stats")
    assert best_time("import bayeslmm") <= usual + 0.5
    assert best_time("import bayeslmm; bayeslmm.LMM; bayeslmm.load_dataset") <= usual + 0.5
