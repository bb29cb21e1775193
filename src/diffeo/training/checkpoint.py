"""Checkpoints: everything that the rest of a run depends on, as tensors and plain data, written whole or not at all."""

from __future__ import annotations

import io
import pickle
import time
from pathlib import Path
from typing import Any

import torch

from ..errors import SavedModelError, TrainingError
from ..files import write_atomically

FOLDER, NAME = "checkpoints", "last.ckpt"
FORMAT, SCHEMA = "diffeo checkpoint", 1


class Checkpoint:
    """`checkpoints/last.ckpt` in a run folder, replaced every so many minutes and steps.

    The file of before stays until the new one is complete.
    """

    def __init__(self, folder: str | Path, *, minutes: float | None, steps: int | None) -> None:
        self.folder = Path(folder)
        self.path = checkpoint_path(folder)
        self.minutes = minutes
        self.steps = steps
        self.step: int | None = None
        self._written = time.monotonic()

    def due(self, step: int) -> bool:
        """Whether a checkpoint is to be written after this step."""
        if self.steps is not None and step % self.steps == 0:
            return True
        return self.minutes is not None and time.monotonic() - self._written >= 60 * self.minutes

    def write(self, state: dict[str, Any]) -> None:
        """Replace the file. Raises TrainingError in one sentence where that fails, and keeps the last good one."""
        buffer = io.BytesIO()
        torch.save({"format": FORMAT, "schema": SCHEMA, **state}, buffer)
        try:
            write_atomically(self.path, buffer.getvalue())
        except OSError as error:
            kept = "there is none yet" if self.step is None else f"that of step {self.step} is kept"
            raise TrainingError(
                f"step {state['step']}: cannot write the checkpoint {self.path}: {error.strerror or error}; {kept}, "
                "make room and go on with --resume"
            ) from error
        self.step = state["step"]
        self._written = time.monotonic()

    def begin(self, *, fresh: bool) -> None:
        """Make the folder; remove what a killed process left half-written, and for a fresh run the old checkpoint.

        Raises TrainingError where the folder cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            for path in self.path.parent.glob(f".{NAME}.*"):
                path.unlink(missing_ok=True)
            if fresh:
                self.path.unlink(missing_ok=True)
        except OSError as error:
            raise TrainingError(
                f"cannot write into {self.folder}: {error.strerror or error}"
            ) from error


def checkpoint_path(folder: str | Path) -> Path:
    return Path(folder) / FOLDER / NAME


def read_checkpoint(folder: str | Path) -> dict[str, Any] | None:
    """The state in a run folder, None if there is none. Raises SavedModelError for a file that is no checkpoint."""
    path = checkpoint_path(folder)
    if not path.exists():
        return None
    try:
        # weights_only: tensors and plain data, never foreign code.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise SavedModelError(
            f"{path} is no checkpoint that can be read: it was truncated or edited"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise SavedModelError(f"{path} was not written by diffeo")
    if state.get("schema") != SCHEMA:
        raise SavedModelError(
            f"{path} has schema {state.get('schema')!r} and this diffeo reads {SCHEMA}"
        )
    return state
