"""Jets against calculus."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayeslmm import jets

FUNCTIONS = {
    "exp": (jets.exp, np.exp, np.exp, np.exp),
    "log": (jets.log, np.log, lambda x: 1 / x, lambda x: -1 / x**2),
    "sqrt": (jets.sqrt, np.sqrt, lambda x: 0.5 / np.sqrt(x), lambda x: -0.25 * x**-1.5),
    "tanh": (jets.tanh, np.tanh, lambda x: 1 / np.cosh(x) ** 2, lambda x: -2 * np.tanh(x) / np.cosh(x) ** 2),
    "sin": (jets.sin, np.sin, np.cos, lambda x: -np.sin(x)),
    "cos": (jets.cos, np.cos, lambda x: -np.sin(x), lambda x: -np.cos(x)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@given(a=st.floats(0.1, 3), b=st.floats(0.1, 3))
def test_chain_rule(name, a, b):
    """f(ab) has derivatives b f', a f' and second derivatives b²f'', a²f'', f' + ab f''."""
    f, value, first, second = FUNCTIONS[name]
    x = jets.variables([a, b])
    y = f(x[0] * x[1])
    u = a * b
    np.testing.assert_allclose(y.v, value(u), rtol=1e-13)
    np.testing.assert_allclose(y.d, np.array([b, a]) * first(u), rtol=1e-9, atol=1e-12)
    mixed = first(u) + u * second(u)
    np.testing.assert_allclose(y.h, [[b * b * second(u), mixed], [mixed, a * a * second(u)]], rtol=1e-9, atol=1e-12)


@given(a=st.floats(-3, 3), b=st.floats(0.2, 3))
def test_quotient_power_and_broadcasting(a, b):
    x = jets.variables([a, b])
    grid = np.arange(6.0).reshape(2, 3)
    y = (x[0] ** 3 + grid) / x[1] - 2
    np.testing.assert_allclose(y.v, (a**3 + grid) / b - 2)
    np.testing.assert_allclose(y.d[0], np.full((2, 3), 3 * a**2 / b), atol=1e-12)
    np.testing.assert_allclose(y.d[1], -(a**3 + grid) / b**2, atol=1e-12)
    np.testing.assert_allclose(y.h[0, 0], np.full((2, 3), 6 * a / b), atol=1e-12)
    np.testing.assert_allclose(y.h[0, 1], np.full((2, 3), -3 * a**2 / b**2), atol=1e-12)
    np.testing.assert_allclose(y.h[1, 1], 2 * (a**3 + grid) / b**3, atol=1e-12)


def test_stack_gather_and_linear_parts_stay_linear():
    x = jets.variables([1.0, 2.0])
    table = jets.stack([1.0, x[0], x[1]])[np.array([[0, 2], [1, 0]])]
    assert table.h is None
    np.testing.assert_array_equal(table.v, [[1, 2], [1, 1]])
    np.testing.assert_array_equal(table.d[1], [[0, 1], [0, 0]])


def test_maximum_has_no_slope_where_the_bound_holds():
    x = jets.variables([0.5])
    y = jets.maximum(1 - np.array([1.0, 4.0]) * x[0], 0.0)
    np.testing.assert_array_equal(y.v, [0.5, 0.0])
    np.testing.assert_array_equal(y.d, [[-1.0, 0.0]])
