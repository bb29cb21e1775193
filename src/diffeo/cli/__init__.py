"""The command line: `diffeo`. A user's mistake is one sentence and exit code 2."""

from __future__ import annotations


def main() -> None:
    """Entry point."""
    from . import anomaly, editing, looking, strings, tabular, training, using  # noqa: F401  (they add their commands)
    from .app import app

    app(prog_name="diffeo")


__all__ = ["main"]
