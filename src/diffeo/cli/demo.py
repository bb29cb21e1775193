"""The demo: one recipe on built-in data, good numbers within minutes."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..errors import ConfigError
from ..training.recipe import Recipe, recipe


def demo_recipe(minutes: float) -> Recipe:
    """A neural spline flow over the 64 pixels of the digits, with a logit and dropout."""
    return recipe(
        {
            "model": "nsf_coupling",
            "hyper": {
                "layers": 8,
                "hidden": [128, 128],
                # The logit ends at -4.6 and 4.6: no pixel lies outside the splines.
                "alpha": 0.01,
                "bound": 5.0,
                "mixing": "permutation",
                "unconditional": False,
                "dropout": 0.4,
            },
            "data": {"source": "digits"},
            "training": {"minutes": minutes, "lr": 3e-3, "ema": 0.998, "threads": 1},
            "description": "The demo: 8x8 scans of digits, 17 levels.",
        }
    )


def replace_demo(folder: Path) -> None:
    """Remove the run of an earlier demo. Raises ConfigError for a folder that holds anything else."""
    if not folder.exists() or not any(folder.iterdir()):
        return
    note = folder / "recipe.yaml"
    if not note.is_file() or "The demo:" not in note.read_text():
        raise ConfigError(f"{folder} holds something other than a demo run: choose another --out")
    shutil.rmtree(folder)
