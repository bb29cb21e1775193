"""Run folders as the commands open them."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..applications import Reading
from ..data.strings import LISTS, is_text
from ..errors import DataError, SavedModelError
from ..flow import Flow
from ..saving import load as load_flow

if TYPE_CHECKING:
    from ..data import Data
    from ..training.recipe import Recipe


@dataclass(frozen=True)
class Opened:
    """A flow, and how its data are read. columns: names of a table's columns."""

    flow: Flow
    columns: tuple[str, ...] | None
    reading: Reading


def check_run(folder: Path) -> None:
    """Raise SavedModelError for a folder that is not there, or holds no model."""
    if not folder.is_dir():
        raise SavedModelError(f"there is no run folder {folder}{_hint(folder)}")
    if (folder / "config.json").exists():
        return
    if (folder / "recipe.yaml").exists():
        raise SavedModelError(
            f"the run in {folder} is not finished: go on with diffeo train --resume --out {folder}"
        )
    raise SavedModelError(
        f"{folder} is no run folder (it holds no config.json): give a folder that `diffeo train` made"
        + _inside(folder)
    )


def open_flow(folder: Path) -> Opened:
    """The flow of a run, or of a folder that `flow.save` wrote. Raises SavedModelError or ConfigError."""
    check_run(folder)
    flow = load_flow(folder)
    if not (folder / "recipe.yaml").exists():
        return Opened(flow, None, Reading())
    from ..training.recipe import read_recipe, recipe

    chosen = recipe(read_recipe(folder / "recipe.yaml"))
    columns = _columns(folder, chosen)
    data = chosen.data
    size = (
        (data.image_size, data.image_size) if isinstance(data.image_size, int) else data.image_size
    )
    reading = Reading(columns, size, data.fit, data.channels, data.bits, data.given)
    return Opened(flow, columns, reading)


def other_data(folder: Path, chosen: Recipe, source: str) -> Recipe:
    """The recipe with other data, read in the same way, the same columns taken by name."""
    from ..data import builtin_names

    typed = chosen.model == "tabular"  # whose columns are in data.kinds
    table = not typed and source not in builtin_names() and not Path(source).expanduser().is_dir()
    changes: dict[str, Any] = {
        "source": source,
        "validation": None,
        "test": None,
        "columns": _columns(folder, chosen) if table else None,
    }
    text = source in LISTS or is_text(Path(source))
    schema = _schema(folder) if text else {}
    changes["alphabet"] = schema.get("alphabet")
    changes["length"] = schema["event_shape"][0] if changes["alphabet"] else None
    return chosen.model_copy(update={"data": chosen.data.model_copy(update=changes)})


def read_for(flow: Flow, folder: Path, chosen: Recipe, source: str | None) -> Data:
    """The run's data, or others; rows that fit the flow. Raises DataError."""
    from ..training.run import read_data

    data = read_data(chosen if source is None else other_data(folder, chosen, source))
    if tuple(data.event_shape) != flow.event_shape:
        raise DataError(
            f"{data.name} holds rows of shape {tuple(data.event_shape)}, but the model in {folder} is for "
            f"{flow.event_shape}"
        )
    flow.check(data.test[:1], data.context_rows("test", 0, 1))
    return data


def _columns(folder: Path, chosen: Recipe) -> tuple[str, ...] | None:
    """The columns that the model was trained on, in their order."""
    found = _schema(folder).get("columns", chosen.data.columns)
    return None if found is None else tuple(found)


def _schema(folder: Path) -> dict[str, Any]:
    """What the run says of its data; empty where it does not."""
    try:
        found = json.loads((folder / "results.json").read_text())["schema"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _hint(folder: Path) -> str:
    if not folder.parent.is_dir():
        return ""
    names = [p.name for p in folder.parent.iterdir() if p.is_dir()]
    close = difflib.get_close_matches(folder.name, names, n=1)
    return f": did you mean {folder.parent / close[0]}?" if close else ""


def _inside(folder: Path) -> str:
    runs = sorted(p.parent for p in folder.glob("*/config.json"))
    return f", for example {runs[0]}" if runs else ""
