"""What every stored result says of itself, and how it is written."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
IMAGES = ROOT / "docs" / "images"


def machine() -> str:
    """The processor, its cores, and that each run has one of them."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [s.split(":", 1)[1].strip() for s in lines if s.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores, one thread a run"


def provenance(command: str) -> dict[str, str]:
    """Command, machine, versions and date."""
    import torch

    import diffeo

    return {
        "command": command,
        "machine": machine(),
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
    RESULTS.mkdir(exist_ok=True)
    temporary = RESULTS / f"{name}.tmp"
    temporary.write_text(json.dumps(document, indent=1) + "\n")
    temporary.replace(RESULTS / f"{name}.json")
