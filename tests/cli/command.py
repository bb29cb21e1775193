"""How the tests run a command."""

import sys

from diffeo import cli


def run(monkeypatch, *args):
    """Exit code of `diffeo ARGS`."""
    monkeypatch.setattr(sys, "argv", ["diffeo", *map(str, args)])
    try:
        cli.main()
    except SystemExit as end:
        return end.code or 0
    return 0
