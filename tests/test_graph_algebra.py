"""Operations of the PyTensor graphs: what numpy runs, what numba compiles and the graph inside are one function."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.compile.mode import Mode

import bayeslmm as bl
from bayeslmm.hierarchical.algebra import dot, gram, matvec, scale_rows, times_transpose
from bayeslmm.hierarchical.coefficients import Coordinates
from bayeslmm.hierarchical.factor import PartialCorrelations, lkj_factor
from bayeslmm.hierarchical.inverse import inverse

PLAIN = Mode(linker="py", optimizer=None)
RNG = np.random.default_rng(8)
A, B, C, x = RNG.normal(size=(5, 3)), RNG.normal(size=(3, 2)), RNG.normal(size=(4, 3)), RNG.normal(size=3)
V = np.einsum("pik,pjk->pij", *[RNG.normal(size=(2, 4, 6))] * 2)
CASES = {
    "matvec": (matvec, (A, x), A @ x),
    "dot": (dot, (A, B), A @ B),
    "times_transpose": (times_transpose, (A, C), A @ C.T),
    "gram": (gram, (A,), A @ A.T),
    "scale_rows": (scale_rows, (x, B), x[:, None] * B),
    "inverse": (lambda V: inverse(V)[0], (V,), np.linalg.inv(V)),
    "log determinant": (lambda V: inverse(V)[1], (V,), np.linalg.slogdet(V)[1]),
}


def weighted(function, values):
    """Inputs, and Σ of the outputs with weights that tell entries apart: its derivative reads every cotangent."""
    inputs = [pt.tensor(f"v{i}", shape=v.shape) for i, v in enumerate(values)]
    out = function(*inputs)
    weight = np.sin(np.arange(np.prod(out.type.shape)) + 1.0).reshape(out.type.shape)
    return inputs, (out * weight).sum()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("mode", [PLAIN, "NUMBA"], ids=["numpy", "numba"])
def test_values(case, mode):
    function, values, expected = CASES[case]
    inputs = [pt.tensor(f"v{i}", shape=v.shape) for i, v in enumerate(values)]
    found = pytensor.function(inputs, function(*inputs), mode=mode)(*values)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("case", CASES)
def test_the_graph_inside_is_the_same_function(case):
    function, values, _ = CASES[case]
    inputs = [pt.tensor(f"v{i}", shape=v.shape) for i, v in enumerate(values)]
    node = function(*inputs).owner
    while not hasattr(node.op, "build_inner_graph"):  # reshaped afterwards
        node = next(v.owner for v in node.inputs if v.owner is not None)
    given = [pt.tensor(shape=v.type.shape) for v in node.inputs]
    constants = pytensor.function(inputs, node.inputs, mode=PLAIN, on_unused_input="ignore")(*values)
    inside = pytensor.function(given, node.op.build_inner_graph(*given), mode="FAST_COMPILE")(*constants)
    own = pytensor.function(given, node.op(*given, return_list=True), mode=PLAIN)(*constants)
    for a, b in zip(inside, own, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("mode", [PLAIN, "NUMBA"], ids=["numpy", "numba"])
def test_first_derivatives(case, mode):
    function, values, _ = CASES[case]
    inputs, total = weighted(function, values)
    f = pytensor.function(inputs, total, mode=PLAIN)
    found = pytensor.function(inputs, pytensor.grad(total, inputs), mode=mode, on_unused_input="ignore")(*values)
    for k, g in enumerate(found):
        np.testing.assert_allclose(g, differences(f, values, k), rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("case", CASES)
def test_second_derivatives(case):
    function, values, _ = CASES[case]
    inputs, total = weighted(function, values)
    first = pytensor.grad(total, inputs)
    steep = sum((g * np.cos(np.arange(v.size)).reshape(v.shape)).sum() for g, v in zip(first, values, strict=True))
    f = pytensor.function(inputs, steep, mode=PLAIN, on_unused_input="ignore")
    second = pytensor.grad(steep, inputs, disconnected_inputs="ignore")
    found = pytensor.function(inputs, second, mode=PLAIN, on_unused_input="ignore")(*values)
    for k, g in enumerate(found):
        np.testing.assert_allclose(g, differences(f, values, k), rtol=2e-6, atol=1e-6)


def differences(f, values, k, step=1e-6):
    """The gradient in values[k] by central differences."""
    out = np.empty(values[k].size)
    for j in range(out.size):
        ends = []
        for sign in (1, -1):
            moved = [v.copy() for v in values]
            moved[k].flat[j] += sign * step
            ends.append(float(f(*moved)))
        out[j] = (ends[0] - ends[1]) / (2 * step)
    return out.reshape(values[k].shape)


def test_a_matrix_that_is_not_positive_definite_has_no_logarithm():
    for mode in (PLAIN, "NUMBA"):
        v = pt.tensor3(shape=(3, 2, 2))
        singular, indefinite = np.zeros((2, 2)), [[1.0, 2.0], [2.0, 1.0]]
        log = pytensor.function([v], inverse(v)[1], mode=mode)(np.array([np.eye(2), singular, indefinite]))
        np.testing.assert_array_equal(log, [0, np.nan, np.nan])


# --- coordinates of the sampler ---------------------------------------------------------------------------


@pytest.mark.parametrize("q", [2, 3, 4])
def test_partial_correlations_are_coordinates_of_every_factor(q):
    transform, n = PartialCorrelations(q), q * (q - 1) // 2
    v = pt.vector(shape=(n,))
    i, j = np.tril_indices(q, -1)
    L = transform.backward(v)
    f = pytensor.function([v], [L, transform.log_jac_det(v), transform.forward(L)], mode=PLAIN)
    at = RNG.normal(size=n)
    factor, log_jac, back = f(at)
    np.testing.assert_allclose(np.diag(factor @ factor.T), 1, rtol=1e-12)
    assert (factor[np.triu_indices(q, 1)] == 0).all()
    assert (np.diag(factor) > 0).all()
    np.testing.assert_allclose(back, at, rtol=1e-9)
    below = [(f(at + h)[0] - f(at - h)[0])[i, j] / 2e-6 for h in 1e-6 * np.eye(n)]
    assert log_jac == pytest.approx(np.linalg.slogdet(np.array(below))[1], abs=1e-7)


@pytest.mark.parametrize("x", [40.0, -40.0])
def test_correlations_near_one_have_finite_densities(x):
    import pymc as pm

    with pm.Model() as model:
        lkj_factor("C", 2.0, 2)
    point = {model.value_vars[0].name: np.array([x])}
    logp, slope = model.compile_logp(mode=PLAIN), model.compile_dlogp(mode=PLAIN)
    assert np.isfinite(logp(point))
    assert np.isfinite(slope(point)).all()


def test_coefficients_have_linear_coordinates():
    location, root = np.array([1.0, -2.0]), np.array([[2.0, 0.0], [1.0, 0.5]])
    transform = Coordinates(location, root)
    v = pt.vector(shape=(2,))
    back = transform.backward(v)
    f = pytensor.function([v], [back, transform.forward(back), transform.log_jac_det(v)], mode=PLAIN)
    at = np.array([0.3, -0.7])
    value, again, log_jac = f(at)
    np.testing.assert_allclose(value, location + root @ at)
    np.testing.assert_allclose(again, at)
    assert log_jac == pytest.approx(np.log(np.linalg.det(root)))


def test_the_marginal_program_moves_where_coefficients_are_standard_normal():
    model = bl.LMM("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
    fit = model.fit()
    own = model.to_pymc("marginal").rvs_to_transforms
    (coordinates,) = [t for t in own.values() if isinstance(t, Coordinates)]
    assert (model.to_pymc("marginal").initial_point()["beta_whitened__"] == 0).all()
    np.testing.assert_allclose(coordinates.location, fit.beta, rtol=1e-6)
    np.testing.assert_allclose(coordinates.root @ coordinates.root.T, fit.cov_beta, rtol=1e-5)


def test_coefficients_that_reml_takes_for_known_can_still_move():
    """Without error within subjects REML knows the slope exactly; the sampler's coordinates must not."""
    data = bl.load_dataset("sleepstudy")
    level = data["Subject"].astype("category").cat.codes
    model = bl.LMM("y ~ Days + (1 | Subject)", data.assign(y=5 + 2 * data["Days"] + np.sin(level)))
    (coordinates,) = [t for t in model.to_pymc("marginal").rvs_to_transforms.values() if isinstance(t, Coordinates)]
    assert np.linalg.cond(coordinates.root / np.abs(coordinates.root).max(axis=1, keepdims=True)) < 1e6
    assert np.abs(coordinates.root[1]).max() > 1e-6


@pytest.mark.parametrize("parametrization", ["noncentered", "centered", "marginal"])
def test_programs_with_a_correlation_can_be_copied(parametrization):
    import pymc as pm

    built = bl.LMM("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy")).to_pymc(parametrization)
    point, other = built.initial_point(), built.copy()
    assert other.compile_logp(mode=PLAIN)(point) == built.compile_logp(mode=PLAIN)(point)
    assert "beta" not in [v.name for v in pm.do(built, {"beta": np.array([250.0, 10.0])}).free_RVs]
