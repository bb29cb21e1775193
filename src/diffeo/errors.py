"""Every error that a user's value can cause: one sentence each, with the value and the expectation."""

from __future__ import annotations


class DiffeoError(Exception):
    """Base of all errors raised by diffeo; the command line prints it as one sentence and exits with code 2."""


class ShapeError(DiffeoError, ValueError):
    """Two shapes that must meet do not; names the layer and both shapes."""


class DomainError(DiffeoError, ValueError):
    """Two domains that must meet do not, for example a real-valued latent under a logit."""


class DirectionError(DiffeoError, RuntimeError):
    """The direction asked for (forward or inverse) does not exist for this layer."""


class ConvergenceError(DiffeoError, RuntimeError):
    """An iterative inverse did not reach its tolerance; names the layer, the worst residual and the element count."""


class InputError(DiffeoError, ValueError):
    """A value given by the user does not fit: wrong dtype, wrong range, wrong number of rows."""


class ConfigError(DiffeoError, ValueError):
    """A part cannot be described by a configuration, or a configuration cannot be built."""


class DataError(DiffeoError, ValueError):
    """A data file or data set cannot be used; names the file, the row or the column."""


class SavedModelError(DiffeoError, ValueError):
    """A saved model is missing, truncated, edited, foreign or of an unknown schema."""


class TrainingError(DiffeoError, RuntimeError):
    """Training cannot go on; names the step and the statistic that went wrong."""
