"""The contract of every covariance structure: one formula, equal in NumPy, jets and PyTensor with its derivatives."""

import numpy as np
import pytest

import bayeslmm as bl
from bayeslmm import jets
from bayeslmm.covariance import Rows, Scale, Structure

VISITS = ("v1", "v2", "v3", "v4")
POSITION = np.array([[0, 1, 2, 3], [3, 1, 0, 2]])
TIME = np.array([[0.0, 0.4, 1.7, 4.0], [0.0, 1.0, 2.0, 7.5]])
LEVEL = np.array([[0, 0, 1, 1], [1, 0, 1, 0]])
ROWS = Rows(position=POSITION, time=TIME, level=LEVEL, log_covariate=np.log(1 + TIME))
BY_VISIT = Rows(position=POSITION, time=TIME, level=POSITION, log_covariate=np.log(1 + TIME))


class RationalQuadratic(bl.TimeCorrelation):
    """1/(1 + (u/r)²), the example of the contributor's section."""

    def at(self, lag, κ, xp):
        return 1 / (1 + (lag / κ[0]) * (lag / κ[0]))


def structure(correlation, *, by=None, power=False):
    """(structure, rows) with a common scale, by a stratum, or by position."""
    labels = {"stratum": ("a", "b"), "visit": VISITS}.get(by)
    scale = Scale("sigma", labels, power=power)
    positions = VISITS if correlation.reads == "position" else ()
    return Structure(correlation, scale, positions), (BY_VISIT if by == "visit" else ROWS)


def correlations():
    yield bl.Independent(), [[]]
    yield bl.CompoundSymmetry(), [[0.4], [0.0], [-0.33], [0.9999]]
    free = [0.5, 0.3, 0.4, 0.1, 0.2, 0.6]
    yield bl.Unstructured(), [free, [0.0] * 6, [0.99, 0.98, 0.99, 0.97, 0.98, 0.99]]
    yield bl.AR1(), [[0.6], [0.0], [-0.7], [0.9999]]
    yield bl.Toeplitz(), [[0.5, 0.2, -0.1], [0.0] * 3, [0.99, 0.97, 0.94]]
    yield bl.Antedependence(), [[0.5, 0.2, -0.1], [0.0] * 3, [0.999, -0.999, 0.999]]
    for kind in (bl.Exponential, bl.Gaussian, bl.Matern32, bl.Matern52, bl.Spherical, RationalQuadratic):
        yield kind("t"), [[1.3], [1e-2], [5.0]]


def structures():
    for correlation, points in correlations():
        for by in (None, "stratum", "visit"):
            for power in (False, True):
                if isinstance(correlation, bl.Unstructured) and (by != "visit" or power):
                    continue  # unstructured has a variance for each visit
                yield correlation, by, power, points, f"{type(correlation).__name__}-{by}{'-power' if power else ''}"


def cases():
    for correlation, by, power, points, name in structures():
        for point in points:
            yield pytest.param(correlation, by, power, point, id=f"{name}-{point}")


def natural(s, point):
    sd = np.linspace(0.8, 1.7, s.scale.levels)
    return np.concatenate([sd, [0.3] if s.scale.power else [], point])


def compiled(s, rows, weights):
    """PyTensor's value, and gradient and Hessian of the weighted sum of the matrix."""
    import pytensor
    import pytensor.tensor as pt
    from pytensor.compile.mode import Mode

    x = pt.vector("x", shape=(s.size,))
    graph = s.matrix(x, rows, pt)
    total = (graph * weights).sum()
    gradient = pytensor.grad(total, x, disconnected_inputs="ignore", return_disconnected="zero")
    hessian = pytensor.gradient.jacobian(gradient, x, disconnected_inputs="ignore", vectorize=True)
    plain = Mode(linker="py", optimizer=None)
    return pytensor.function([x], [graph, gradient, hessian], mode=plain, on_unused_input="ignore")


@pytest.mark.parametrize(
    ("correlation", "by", "power", "points"), [pytest.param(*x[:4], id=x[4]) for x in structures()]
)
def test_numpy_jets_and_pytensor_agree(correlation, by, power, points):
    s, rows = structure(correlation, by=by, power=power)
    weights = np.random.default_rng(1).normal(size=(2, 4, 4))
    symbolic = compiled(s, rows, weights)
    for point in points:
        θ = s.linear_from_natural(natural(s, point))
        value = s.matrix(θ, rows)
        v, d, h = jets.derivatives(s.matrix(jets.variables(θ), rows, jets), s.size)
        h = np.zeros((s.size, s.size, *v.shape)) if h is None else np.broadcast_to(h, (s.size, s.size, *v.shape))
        g, first, second = symbolic(θ)
        np.testing.assert_allclose(v, value, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(np.broadcast_to(g, value.shape), value, rtol=1e-12, atol=1e-12)
        scale = max(1.0, np.abs(first).max(), np.abs(second).max())
        np.testing.assert_allclose(np.tensordot(d, weights, 3), first, rtol=1e-9, atol=1e-9 * scale)
        np.testing.assert_allclose(np.tensordot(h, weights, 3), second, rtol=1e-9, atol=1e-9 * scale)


@pytest.mark.parametrize(("correlation", "by", "power", "point"), list(cases()))
def test_positive_definite_with_the_right_diagonal(correlation, by, power, point):
    s, rows = structure(correlation, by=by, power=power)
    x = natural(s, point)
    Σ = s.matrix(s.linear_from_natural(x), rows)
    np.testing.assert_allclose(Σ, np.swapaxes(Σ, 1, 2), atol=1e-14)
    assert (np.linalg.eigvalsh(Σ) > 0).all()
    sd = np.full(rows.position.shape, x[0]) if by is None else x[: s.scale.levels][rows.level]
    if power:
        sd = sd * np.exp(0.3 * rows.log_covariate)
    np.testing.assert_allclose(np.diagonal(Σ, axis1=1, axis2=2), sd**2, rtol=1e-12)


@pytest.mark.parametrize(("correlation", "by", "power", "point"), list(cases()))
def test_coordinates_go_there_and_back(correlation, by, power, point):
    s, _ = structure(correlation, by=by, power=power)
    x = natural(s, point)
    θ = s.linear_from_natural(x)
    np.testing.assert_allclose(s.natural_from_linear(θ), x, rtol=1e-9, atol=1e-12)
    w = s.working_from_linear(θ)
    np.testing.assert_allclose(s.linear_from_working(w), θ, rtol=1e-7, atol=1e-9)


def test_sum_of_structures_is_the_sum_of_matrices():
    data = bl.load_dataset("bodyweight")
    model = bl.LMM("weight ~ Time + (1 | Rat)", data, residual=bl.Exponential("Time") + bl.Independent())
    rows = np.flatnonzero(data["Rat"].astype(str) == "3")
    θ = np.array([4.0, 2.0, 9.0, 1.5])
    lag = np.abs(np.subtract.outer(data["Time"].to_numpy()[rows], data["Time"].to_numpy()[rows]))
    from bayeslmm.marginal.covariances import subject_covariance

    R = subject_covariance(model.design, model.covariance, model.residual, θ, rows, marginal=False)
    np.testing.assert_allclose(R, 2 * np.exp(-lag / 9) + 1.5 * np.eye(len(rows)), rtol=1e-12)


def test_a_new_correlation_takes_one_class():
    """The contributor's example: written outside the package, it fits, and it is found again in simulated data."""
    rng = np.random.default_rng(3)
    subject, time = np.repeat(np.arange(150), 8), np.tile(np.arange(8.0), 150)
    lag = np.abs(np.subtract.outer(np.arange(8.0), np.arange(8.0)))
    C = np.linalg.cholesky(4.0 / (1 + (lag / 2.0) ** 2) + 0.5 * np.eye(8))
    y = (rng.normal(size=(150, 8)) @ C.T).ravel()
    data = {"y": y, "t": time, "id": subject}
    residual = RationalQuadratic("t", subject="id") + bl.Independent()
    fit = bl.LMM("y ~ 1", data, residual=residual).fit()
    assert fit.convergence.status == "converged"
    assert fit.parameters["sigma_serial"] == pytest.approx(2.0, rel=0.12)
    assert fit.parameters["range"] == pytest.approx(2.0, rel=0.15)
    assert fit.parameters["sigma"] == pytest.approx(np.sqrt(0.5), rel=0.2)


def test_jets_refuse_what_they_cannot_differentiate():
    x = jets.variables([2.0])
    with pytest.raises(TypeError, match="whole powers"):
        x**0.5
