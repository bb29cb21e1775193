"""What the shell offers on Tab: names of models and data sets, and run folders."""

from __future__ import annotations

from pathlib import Path

from ..pretrained import names


def model_names(incomplete: str) -> list[tuple[str, str]]:
    """Published models with their titles, and recipes in this folder."""
    from .. import zoo

    models = [(name, zoo.card(name).title) for name in zoo.names() if name.startswith(incomplete)]
    return models + [(name, "a recipe") for name in _paths(incomplete, "*.yaml")]


def data_names(incomplete: str) -> list[str]:
    """Built-in data sets, and the files and folders that there are."""
    from ..data import builtin_names

    return [n for n in builtin_names() if n.startswith(incomplete)] + _paths(incomplete, "*")


def run_folders(incomplete: str) -> list[str]:
    """Folders that hold a model, folders on the way to them, and flows that come with diffeo."""
    found: list[str] = []
    for name in _paths(incomplete, "*"):
        path = Path(name)
        if not path.is_dir():
            continue
        runs = [p.parent for p in path.glob("*/model.safetensors")]
        if (path / "model.safetensors").is_file():
            found.append(name)
        elif runs:
            found += sorted(str(p) for p in runs)
        elif incomplete:
            found.append(f"{name}/")
    return found + [name for name in names() if name.startswith(incomplete)]


def _paths(incomplete: str, pattern: str) -> list[str]:
    """Paths that begin with what is typed."""
    folder, _, start = incomplete.rpartition("/")
    place = Path(folder or ("/" if incomplete.startswith("/") else "."))
    try:
        names = sorted(p.name for p in place.glob(pattern) if not p.name.startswith("."))
    except OSError:
        return []
    head = incomplete[: len(incomplete) - len(start)]
    return [head + name for name in names if name.startswith(start)]
