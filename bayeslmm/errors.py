"""Everything that bayeslmm raises on purpose, one tree, grouped by the stage where it enters.

Each message says what was found, why it matters and what to do.
"""


class BayesLMMError(Exception):
    """Base of every error that bayeslmm raises on purpose."""


class FormulaError(BayesLMMError, ValueError):
    """The text of a formula cannot be read; the message points at the place."""

    def __init__(self, message: str, text: str | None = None, position: int | None = None, length: int = 1):
        if text is not None and position is not None:
            message = f"{message}\n  {text}\n  {' ' * position}{'^' * max(length, 1)}"
        super().__init__(message)
        self.text, self.position = text, position


class DataError(BayesLMMError, ValueError):
    """The table does not fit the model: a missing column, a wrong type, an unknown level."""


class DesignError(BayesLMMError, ValueError):
    """The design cannot carry the model: rank-deficient X, one group only, as many effects as rows."""


class CovarianceError(BayesLMMError, ValueError):
    """A covariance structure does not fit the design or its parameters."""


class InferenceError(BayesLMMError, ValueError):
    """A question has no answer in this model, or an option does not exist."""


class SamplingError(BayesLMMError, RuntimeError):
    """The posterior cannot be defined or sampled."""


class DataNote(UserWarning):
    """A fact about the data that changes what is fitted, such as rows that were left out."""


class ConvergenceNote(UserWarning):
    """A computation that took another way than the usual one, such as Markov chains in the place of weights."""
