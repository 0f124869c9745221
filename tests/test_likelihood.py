"""The likelihood kernel against a dense multivariate normal on random designs, and its derivatives."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

import bayeslmm as bl
from bayeslmm.kernel.blocks import arrange, compress
from bayeslmm.kernel.likelihood import evaluate
from bayeslmm.marginal.covariances import subject_covariance

FORMULAS = {
    "none": "y ~ x * f",
    "intercept": "y ~ x + f + (1 | g)",
    "slope": "y ~ x + (x | g)",
    "diagonal": "y ~ x + (x || g)",
    "two bars": "y ~ f + (1 | g) + (0 + x | g)",
    "factor": "y ~ x + (0 + f | g)",
    "cs": "y ~ x + cs(0 + f | g)",
    "ar1": "y ~ x + ar1(0 + f | g)",
    "cs heterogeneous": "y ~ x + cs(0 + f | g, hom=False)",
    "nested": "y ~ x + (1 | g/h)",
    "nested slope": "y ~ x + (x | g) + (1 | g:h)",
    "crossed": "y ~ x + (1 | g) + (1 | c)",
    "crossed slopes": "y ~ x + (x | g) + (x | c)",
    "crossed ar1": "y ~ x + (1 | g) + ar1(0 + f | c)",
    "three factors": "y ~ x + (1 | g/h) + (1 | c)",
}
RESIDUALS = {
    "independent": lambda g: bl.Independent(),
    "by stratum": lambda g: bl.Independent(by="s"),
    "by row": lambda g: bl.Independent(by="f"),
    "power": lambda g: bl.Independent(power="z"),
    "power by": lambda g: bl.Independent(power="z", by="f"),
    "exponential": lambda g: bl.Exponential("t", subject=g),
    "exponential + nugget": lambda g: bl.Exponential("t", subject=g) + bl.Independent(),
    "matern + nugget by": lambda g: bl.Matern32("t", subject=g) + bl.Independent(by="f"),
    "exponential by": lambda g: bl.Exponential("t", subject=g, by="f"),
    "ar1": lambda g: bl.AR1(subject=g),
    "ar1 visit + nugget": lambda g: bl.AR1("v", subject=g) + bl.Independent(),
    "cs": lambda g: bl.CompoundSymmetry("v", subject=g),
    "toeplitz": lambda g: bl.Toeplitz("v", subject=g),
    "toeplitz by visit": lambda g: bl.Toeplitz("v", subject=g, by="v"),
    "antedependence": lambda g: bl.Antedependence("v", subject=g),
    "unstructured": lambda g: bl.Unstructured("v", subject=g),
}


def table(seed: int, subjects: int, balanced: bool) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    visits = [
        np.arange(4) if balanced else np.sort(rng.choice(4, rng.integers(3, 5), replace=False)) for _ in range(subjects)
    ]
    visits[:2] = [np.arange(4), np.arange(4)]
    g = np.repeat(np.arange(subjects), [len(v) for v in visits])
    v = np.concatenate(visits)
    n = len(g)
    return pd.DataFrame({
        "g": [f"g{i}" for i in g], "v": v, "t": v * 1.3 if balanced else np.sort(rng.uniform(0, 9, n)),
        "x": v - 1.5 if balanced else rng.normal(size=n), "z": rng.uniform(0.5, 3, n), "s": np.where(g % 2, "odd", "even"),
        "f": rng.permutation(np.resize(["a", "b", "c"], n)), "h": [f"h{i % 2}" for i in range(n)],
        "c": rng.permutation(np.resize([f"c{i}" for i in range(4)], n)),
        "w": rng.uniform(0.5, 2, n), "y": 100 + 5 * rng.normal(size=n),
    })  # fmt: skip


def build(seed, subjects, balanced, formula, residual, weighted):
    data = table(seed, subjects, balanced).sample(frac=1, random_state=seed)
    spec = RESIDUALS[residual]("g")
    weighted = weighted and any(isinstance(p, bl.Independent) for p in bl.covariance.ResidualSum.of(spec))
    return bl.LMM(FORMULAS[formula], data, residual=spec, weights="w" if weighted else None)


def random_parameters(model, seed):
    """A random interior point, by way of unconstrained coordinates."""
    rng = np.random.default_rng(seed + 1)
    w = rng.uniform(0.3, 1.0, model.covariance.size) * rng.choice([-1, 1], model.covariance.size)
    return np.concatenate([
        s.linear_from_working(0.6 * w[k]) for s, k in zip(model.covariance.structures, model.covariance.slices, strict=True)
    ])  # fmt: skip


def dense(model, θ, reml):
    """The definition, from the n x n matrix."""
    d = model.design
    V = subject_covariance(d, model.covariance, model.residual, θ, np.arange(len(d.y)), marginal=True)
    X, y = d.X, d.y - d.offset
    Vi_X = np.linalg.solve(V, X)
    A = X.T @ Vi_X
    beta = np.linalg.solve(A, Vi_X.T @ y)
    value = stats.multivariate_normal(X @ beta, V).logpdf(y)
    if reml:
        value += -0.5 * np.linalg.slogdet(A)[1] + 0.5 * X.shape[1] * np.log(2 * np.pi)
    return value, beta


pairs = [("none", r) for r in RESIDUALS] + [(f, r) for f in FORMULAS if f != "none" for r in (
    "independent", "by stratum", "by row", "power", "exponential + nugget", "toeplitz by visit")]  # fmt: skip


@pytest.mark.parametrize(("formula", "residual"), pairs)
@settings(max_examples=2, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 10**6),
    subjects=st.integers(9, 12),
    balanced=st.booleans(),
    reml=st.booleans(),
    weighted=st.booleans(),
)
def test_equals_dense_normal_with_its_derivatives(formula, residual, seed, subjects, balanced, reml, weighted):
    model = build(seed, subjects, balanced, formula, residual, weighted)
    blocks = arrange(model.design, model.covariance, model.residual)
    θ = random_parameters(model, seed)
    found = evaluate(blocks, model.covariance, θ, reml=reml)
    value, beta = dense(model, θ * blocks.unit, reml)
    assert found.value == pytest.approx(value, rel=1e-9)
    back = blocks.center + blocks.y_scale * np.linalg.solve(blocks.basis, found.beta)
    np.testing.assert_allclose(back, beta, rtol=1e-8, atol=1e-8 * np.abs(beta).max())

    lean = evaluate(compress(blocks), model.covariance, θ, reml=reml)
    assert lean.value == pytest.approx(found.value, rel=1e-11)
    np.testing.assert_allclose(lean.hessian, found.hessian, rtol=1e-8, atol=1e-8 * np.abs(found.hessian).max())

    step = 1e-5

    def slope(j):
        e = np.zeros(len(θ))
        e[j] = step * max(abs(θ[j]), 0.1)
        ends = [evaluate(blocks, model.covariance, θ + s * e, reml=reml) for s in (1, -1)]
        return [(getattr(ends[0], a) - getattr(ends[1], a)) / (2 * e[j]) for a in ("value", "score")]

    slopes = [slope(j) for j in range(len(θ))]
    np.testing.assert_allclose(
        [s[0] for s in slopes], found.score, rtol=2e-6, atol=2e-6 * max(1, np.abs(found.score).max())
    )
    hessian = np.array([s[1] for s in slopes])
    np.testing.assert_allclose(hessian, found.hessian, rtol=2e-5, atol=2e-6 * np.abs(found.hessian).max())


def refit(data, formula="y ~ x + (x | g)", residual=None):
    return bl.LMM(formula, data, residual=residual).fit()


@pytest.mark.parametrize("residual", [None, bl.Exponential("t") + bl.Independent()])
def test_invariance_to_order_labels_and_units(residual):
    data = simulated_slopes()
    base = refit(data, residual=residual)
    shuffled = refit(data.sample(frac=1, random_state=1), residual=residual)
    assert shuffled.loglik == pytest.approx(base.loglik, abs=1e-8)
    renamed = refit(data.assign(g=data["g"].map(lambda x: "z" + x[::-1])), residual=residual)
    assert renamed.loglik == pytest.approx(base.loglik, abs=1e-8)
    np.testing.assert_allclose(renamed.beta, base.beta, rtol=1e-6)
    scaled = refit(data.assign(y=1e6 + 1000 * data["y"]), residual=residual)
    n, p = base.model.design.X.shape
    assert scaled.loglik == pytest.approx(base.loglik - (n - p) * np.log(1000), abs=1e-6)
    np.testing.assert_allclose(scaled.parameters["sigma"], 1000 * base.parameters["sigma"], rtol=1e-5)
    seconds = data.assign(x=data["x"] * 86400, t=data["t"] * 86400)
    in_seconds = refit(seconds, residual=residual)
    assert in_seconds.loglik == pytest.approx(base.loglik - np.log(86400), abs=1e-6)
    if residual is not None:
        assert in_seconds.parameters["range"] == pytest.approx(86400 * base.parameters["range"], rel=1e-4)


def simulated_slopes():
    rng = np.random.default_rng(5)
    g = np.repeat(np.arange(25), 8)
    t = rng.uniform(0, 10, 200).round(2)
    w = rng.normal(size=(25, 2)) @ np.diag([2.0, 0.4])
    y = 3 + 0.5 * t + w[g, 0] + w[g, 1] * t
    for i in range(25):
        rows = g == i
        lag = np.abs(np.subtract.outer(t[rows], t[rows]))
        y[rows] += rng.multivariate_normal(np.zeros(8), 2.0 * np.exp(-lag / 1.5) + 0.5 * np.eye(8))
    return pd.DataFrame({"y": y, "x": t, "t": t, "g": [f"s{i}" for i in g]})


def test_reparametrised_fixed_part_changes_reml_by_the_determinant_only():
    data = simulated_slopes().assign(u=lambda d: 3 * d["x"] - 2)
    a, b = refit(data), refit(data, "y ~ u + (x | g)")
    assert b.loglik == pytest.approx(a.loglik - np.log(3), abs=1e-7)
    np.testing.assert_allclose(a.w["g"], b.w["g"], atol=1e-5)


def test_batches_are_chunked_without_changing_the_likelihood(monkeypatch):
    from bayeslmm.kernel import batching as module

    model = bl.LMM("y ~ x + (x | g)", simulated_slopes(), residual=bl.Exponential("t") + bl.Independent())
    θ = random_parameters(model, 3)
    whole = evaluate(arrange(model.design, model.covariance, model.residual), model.covariance, θ, reml=True)
    monkeypatch.setattr(module, "_CHUNK", 300)
    cut = arrange(model.design, model.covariance, model.residual)
    assert len(cut.batches) > 3
    pieces = evaluate(cut, model.covariance, θ, reml=True)
    assert pieces.value == pytest.approx(whole.value, rel=1e-12)
    np.testing.assert_allclose(pieces.hessian, whole.hessian, rtol=1e-9, atol=1e-9)


def test_patterns_are_shared():
    """Balanced subjects are one pattern with at most rows x columns data blocks; no copy of V for each of them."""
    rng = np.random.default_rng(0)
    g = np.repeat(np.arange(500), 6)
    data = pd.DataFrame({"g": g.astype(str), "t": np.tile(np.arange(6.0), 500), "y": rng.normal(size=3000)})
    model = bl.LMM("y ~ t + (t | g)", data, residual=bl.Exponential("t") + bl.Independent())
    (batch,) = compress(arrange(model.design, model.covariance, model.residual)).batches
    assert batch.count.tolist() == [500]
    assert batch.data.shape == (18, 6, 3)
