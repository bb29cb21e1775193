"""Small trained flows that come with the package: run folders, found by name."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).resolve().parent


def names() -> tuple[str, ...]:
    """Their names, each of which `diffeo.load` and the commands take in place of a folder.

    >>> "digits-glow" in names()
    True
    """
    return tuple(sorted(p.parent.name for p in HERE.glob("*/config.json")))


def located(folder: str | Path) -> Path:
    """The folder itself, or that of the shipped flow of this name where there is no such folder."""
    path = Path(folder).expanduser()
    return path if path.exists() or str(path) not in names() else HERE / path
