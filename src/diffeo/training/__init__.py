"""Training: maximum likelihood on Lightning."""

from .fit import Run, fit
from .rows import Rows
from .settings import TrainingSettings

__all__ = ["Rows", "Run", "TrainingSettings", "fit"]
