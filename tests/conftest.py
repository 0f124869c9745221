"""Warnings are errors, but for those of other packages that nobody here can act on."""

_THIRD_PARTY = (
    # PyTensor asks for the BLAS of its C backend, which its numba backend does not use.
    "ignore:PyTensor could not link to a BLAS:UserWarning",
    # ArviZ divides by the variance of a constant: the diagonal of a correlation matrix.
    "ignore:invalid value encountered in scalar divide:RuntimeWarning:arviz_stats",
)


def pytest_configure(config):
    for line in _THIRD_PARTY:
        config.addinivalue_line("filterwarnings", line)
