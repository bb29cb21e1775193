"""What every stored result says of itself, and how it is written."""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
IMAGES = ROOT / "docs" / "images"


def provenance(command: str) -> dict[str, str]:
    """Command, machine, versions and date."""
    import torch

    import diffeo
    from diffeo.training.machines import processor

    return {
        "command": command,
        "machine": f"{processor()}, one thread a run",
        "versions": f"diffeo {diffeo.__version__}, torch {torch.__version__}, "
        f"Python {platform.python_version()}",
        "date": time.strftime("%Y-%m-%d"),
    }


def read(name: str) -> dict[str, Any]:
    """results/NAME.json, or an empty document."""
    path = RESULTS / f"{name}.json"
    document: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return document


def write(name: str, document: dict[str, Any]) -> None:
    """results/NAME.json, in one move."""
    from diffeo.files import write_atomically

    write_atomically(RESULTS / f"{name}.json", json.dumps(document, indent=1) + "\n")
