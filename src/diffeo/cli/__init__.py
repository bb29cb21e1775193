"""The command line: `diffeo`. A user's mistake is one sentence and exit code 2."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point."""
    from ..errors import DiffeoError, TrainingError
    from . import training, using  # noqa: F401  (they add their commands)
    from .app import app, say_error

    try:
        app()
    except DiffeoError as error:
        say_error(error)
        sys.exit(1 if isinstance(error, TrainingError) else 2)


__all__ = ["main"]
