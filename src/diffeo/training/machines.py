"""Devices and processes: the user's settings, or what torchrun says, as arguments of Lightning's Trainer."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

from ..errors import ConfigError
from .settings import TrainingSettings

ACCELERATORS = {"cpu": "cpu", "cuda": "gpu", "mps": "mps", "auto": "auto"}


def trainer_arguments(settings: TrainingSettings) -> dict[str, Any]:
    """accelerator, devices, num_nodes, strategy and precision. Raises ConfigError for a device that is not there."""
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device cuda was asked for, but torch finds none: use --device cpu")
    if settings.device == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device mps was asked for, but torch finds none: use --device cpu")
    local, world = _launched()
    devices = settings.devices or local
    nodes = settings.num_nodes or world // local
    strategy = settings.strategy
    if strategy == "auto" and devices * nodes > 1:
        strategy = "ddp"
    return {
        "accelerator": ACCELERATORS[settings.device],
        "devices": devices,
        "num_nodes": nodes,
        "strategy": strategy,
        "precision": "bf16-mixed" if settings.precision == "bf16" else "32-true",
    }


def processor() -> str:
    """Model and number of cores of this machine's processor, for what says where a number was measured."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = (s.split(":", 1)[1].strip() for s in lines if s.startswith("model name"))
        model = next(names, model)
    except OSError:
        pass
    return f"{model}, {os.cpu_count()} cores"


def main_process() -> bool:
    """Whether this process is the one that writes."""
    from lightning.pytorch.utilities import rank_zero_only

    return int(getattr(rank_zero_only, "rank", 0) or 0) == 0


def _launched() -> tuple[int, int]:
    """Processes on this machine and in all, as torchrun says; 1 and 1 without it."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return 1, 1
    return int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
