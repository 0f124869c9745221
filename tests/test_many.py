"""Values at many parameter vectors at once equal the values one by one, for every structure."""

import numpy as np
import pytest
from test_likelihood import FORMULAS, RESIDUALS, build, pairs, random_parameters

from bayeslmm.kernel import many as module
from bayeslmm.kernel import symmetric
from bayeslmm.kernel.blocks import arrange, compress
from bayeslmm.kernel.many import many_moments, products
from bayeslmm.kernel.moments import moments

DRAWS = 4


def case(formula, residual, balanced):
    model = build(3, 10, balanced, formula, residual, False)
    blocks = compress(arrange(model.design, model.covariance, model.residual))
    return model, blocks, np.array([random_parameters(model, s) for s in range(DRAWS)])


def same(model, blocks, θ, found):
    for k in range(len(θ)):
        one = moments(blocks, model.covariance, θ[k], 0)
        assert found.logdet[k] == pytest.approx(one.logdet, rel=1e-12, abs=1e-11)
        np.testing.assert_allclose(found.M[k], one.M, rtol=0, atol=1e-12 * np.abs(one.M).max())


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize(("formula", "residual"), pairs)
def test_equals_one_at_a_time(formula, residual, balanced):
    model, blocks, θ = case(formula, residual, balanced)
    same(model, blocks, θ, many_moments(products(blocks, model.covariance), θ))


@pytest.mark.parametrize(("name", "value"), [("_CACHE", 60), ("_PRODUCTS", 0), ("_WOODBURY", 100)])
@pytest.mark.parametrize(
    ("formula", "residual"), [("slope", "exponential + nugget"), ("crossed slopes", "by row")]
)
def test_chunks_and_large_designs_change_nothing(formula, residual, name, value, monkeypatch):
    monkeypatch.setattr(module, name, value)
    model, blocks, θ = case(formula, residual, False)
    same(model, blocks, θ, many_moments(products(blocks, model.covariance), θ))


def test_a_covariance_that_is_not_positive_definite_has_no_likelihood():
    model, blocks, θ = case("slope", "independent", True)
    θ[1, -1] = -1.0
    found = many_moments(products(blocks, model.covariance), θ)
    assert np.isfinite(found.logdet).tolist() == [True, False, True, True]


@pytest.mark.parametrize("m", [1, 3, 12, 13, 20])
def test_inverse_and_determinant(m):
    A = np.random.default_rng(m).normal(size=(30, m, m + 2))
    V = A @ np.swapaxes(A, 1, 2)
    inverse, logdet = symmetric.invert(np.moveaxis(V, 0, -1).copy())
    np.testing.assert_allclose(np.moveaxis(inverse, -1, 0), np.linalg.inv(V), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(logdet, np.linalg.slogdet(V)[1], rtol=1e-9, atol=1e-9)
    V[4] -= 2 * np.eye(m) * np.abs(V[4]).max()
    assert symmetric.invert(np.moveaxis(V, 0, -1).copy())[1][4] == -np.inf


def test_root_of_a_singular_matrix():
    a = np.array([[2.0, 0.0, -1.0], [0.0, 0.0, 0.0], [1.0, 0.5, 0.3]])
    G = np.einsum("ni,nj->ijn", a, a)
    Λ = symmetric.root(G)
    np.testing.assert_allclose(np.einsum("ikn,jkn->ijn", Λ, Λ), G, atol=1e-12)


def test_every_formula_and_residual_is_covered():
    assert {f for f, _ in pairs} == set(FORMULAS)
    assert {r for _, r in pairs} == set(RESIDUALS)
