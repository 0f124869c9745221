"""The programs in models/ and what the formula builds have the same log density, at random points."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from pytensor.compile.mode import Mode

from bayeslmm.datasets import load_dataset
from bayeslmm.hierarchical import build

MODELS = Path(__file__).parents[1] / "models"
PLAIN = Mode(linker="py", optimizer=None)

# How the coordinates of the program by hand (left) are read from those of the formula's.
SAME = {
    "01_random_intercept": {
        "mean": lambda p: p["beta"][0],
        "sd_Batch_log__": lambda p: p["sd_Batch_log__"][0],
        "sigma_log__": lambda p: p["sigma_log__"],
        "z_Batch": lambda p: p["z_Batch"][:, 0],
    },
    "02_random_slope": {
        "mean": lambda p: p["beta_centred__"][0],
        "slope": lambda p: p["beta_centred__"][1],
        "sd_Subject_log__": lambda p: p["sd_Subject_log__"],
        "L_cholesky_corr__": lambda p: np.sinh(p["chol_corr_Subject_partial__"]),
        "sigma_log__": lambda p: p["sigma_log__"],
        "z_Subject": lambda p: p["z_Subject"],
    },
}

# log |d (left) / d (right)|: PyMC's own factor moves on ρ/√(1 - ρ²), the formula's on artanh ρ.
JACOBIAN = {"02_random_slope": lambda p: np.log(np.cosh(p["chol_corr_Subject_partial__"])).sum()}


def load(name):
    spec = importlib.util.spec_from_file_location(f"model_{name}", MODELS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_model_is_checked():
    assert sorted(SAME) == sorted(path.stem for path in MODELS.glob("[0-9]*.py"))


@pytest.mark.parametrize("name", SAME)
def test_same_log_density(name):
    module = load(name)
    data = load_dataset(module.DATA)
    written, built = module.by_hand(data), build(module.by_formula(data))
    by_hand, by_formula = written.compile_logp(mode=PLAIN), built.compile_logp(mode=PLAIN)
    rng = np.random.default_rng(1)
    start = built.initial_point()
    for _ in range(20):
        point = {
            k: v + rng.normal(size=np.shape(v)) * np.where(k.startswith("beta"), 20, 1)
            for k, v in start.items()
        }
        twin = {k: f(point) for k, f in SAME[name].items()}
        jacobian = JACOBIAN[name](point) if name in JACOBIAN else 0.0
        assert by_hand(twin) + jacobian == pytest.approx(by_formula(point), rel=1e-9)
