"""Draws of both samplers, written to NetCDF and Zarr: what is read back is the same, and ArviZ works on it."""

import warnings

import arviz as az
import matplotlib
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import bayeslmm as bl

matplotlib.use("Agg")
FORMATS = ["nc", "zarr"]
# Zarr 3 has no standard yet for the index that xarray writes beside the groups; reading does not need it.
pytestmark = pytest.mark.filterwarnings("ignore:Consolidated metadata")


def saved(tree, folder, kind):
    """Written by the ordinary methods of xarray, and opened again."""
    path = folder / f"draws.{kind}"
    if kind == "nc":
        tree.to_netcdf(path)
        return xr.open_datatree(path, engine="h5netcdf")
    tree.to_zarr(path)
    return xr.open_datatree(path, engine="zarr")


def correlated():
    """Strings as labels, a correlation matrix, several rows per subject."""
    model = bl.LMM("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
    return model, model.sample(draws=100, chains=4, random_seed=1)


def several():
    """A colon in the name of a group and in its labels; two grouping factors."""
    model = bl.LMM("score ~ Machine + (1 | Worker) + (1 | Worker:Machine)", bl.load_dataset("machines"))
    return model, model.sample(draws=100, chains=4, random_seed=1)


def serial():
    """A log-likelihood by subject, a residual of two parts, and parameters of its own."""
    data = bl.load_dataset("bodyweight")
    model = bl.LMM("weight ~ Time + (1 | Rat)", data, residual=bl.Exponential("Time") + bl.Independent())
    return model, model.sample(draws=100, chains=4, random_seed=1)


def nuts():
    model = bl.LMM("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
    options = {"draws": 100, "tune": 200, "chains": 2, "cores": 1, "random_seed": 1, "progressbar": False}
    return model, model.sample("nuts", **options)


KINDS = {correlated: "zarr", several: "nc", serial: "zarr", nuts: "nc"}  # one each for what takes longer


@pytest.fixture(scope="module", params=KINDS, ids=lambda make: make.__name__)
def drawn(request):
    return *request.param(), KINDS[request.param]


@pytest.mark.parametrize("kind", FORMATS)
def test_what_comes_back_is_what_was_written(drawn, kind, tmp_path):
    tree = drawn[1]
    with saved(tree, tmp_path, kind) as back:
        assert set(back.children) == set(tree.children)
        xr.testing.assert_identical(back.load(), tree)
        assert back.attrs["formula"] == drawn[0].formula.text
        if tree.attrs["sampler"] == "collapsed":
            for name in ("khat", "ess", "log_evidence", "log_evidence_error", "method", "steps"):
                assert back.attrs[name] == back["posterior"].attrs[name] == tree.attrs[name]


def test_arviz_reads_it(drawn, tmp_path):
    _, tree, kind = drawn
    sd = next(name for name in tree["posterior"].data_vars if str(name).startswith("sd_"))
    names = ["beta", sd, "sigma"]
    with saved(tree, tmp_path, kind) as back:
        pd.testing.assert_frame_equal(az.summary(back, var_names=names), az.summary(tree, var_names=names))
        xr.testing.assert_equal(az.ess(back, var_names=names), az.ess(tree, var_names=names))
        assert loo(back).elpd == pytest.approx(loo(tree).elpd, rel=1e-12)
        pd.testing.assert_frame_equal(
            az.psense_summary(back, var_names=names), az.psense_summary(tree, var_names=names)
        )
        az.plot_forest(back, var_names=names)
        az.plot_ppc_dist(back, num_samples=10)
        matplotlib.pyplot.close("all")


def loo(tree):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Pareto")  # of some rows: the same before and after
        return az.loo(tree)


def test_so_do_our_own_functions(drawn, tmp_path):
    model, tree, kind = drawn
    fit, group = model.fit(), model.design.terms[0].group
    with saved(tree, tmp_path, kind) as back:
        pd.testing.assert_frame_equal(bl.compare(fit, back).variance, bl.compare(fit, tree).variance)
        same(bl.posterior_predict(model, back, draws=20, random_seed=1),
             bl.posterior_predict(model, tree, draws=20, random_seed=1))  # fmt: skip
        xr.testing.assert_equal(
            bl.random_effect_draws(model, back, random_seed=1), bl.random_effect_draws(model, tree, random_seed=1)
        )
        subject = {"unit": "subject", "subject": group, "refit": False}
        assert bl.loo(model, back, **subject).elpd == bl.loo(model, tree, **subject).elpd


def same(a, b):
    xr.testing.assert_equal(a["predictions"].to_dataset(), b["predictions"].to_dataset())


@pytest.mark.parametrize("kind", FORMATS)
def test_a_response_with_a_slash_can_be_saved(tmp_path, kind):
    """A slash separates groups in both formats: the response of I(Yield / 10) is named without it."""
    model = bl.LMM("I(Yield / 10) ~ 1 + (1 | Batch)", bl.load_dataset("dyestuff"))
    tree = model.sample(draws=10, random_seed=1)
    with saved(tree, tmp_path, kind) as back:
        assert list(back["observed_data"].data_vars) == ["I(Yield ÷ 10)"]
        np.testing.assert_array_equal(back["observed_data"]["I(Yield ÷ 10)"], model.design.y)
