"""One progress bar over the whole budget, whatever the budget is."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as TimeRemaining

from .module import MaximumLikelihood


class BudgetBar(ProgressBar):
    """Steps done, share of the budget, last training loss and best validation so far, on standard error."""

    def __init__(self, unit: str, scale: float) -> None:
        super().__init__()
        self.unit = unit
        self.scale = scale
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._shown = 0.0

    def disable(self) -> None:
        """Called on ranks that must not print."""
        self._bar = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f}%"),
            TextColumn("{task.fields[steps]} steps"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemaining(),
            TextColumn("{task.fields[numbers]}"),
            console=Console(stderr=True),
            refresh_per_second=4,
            transient=True,
        )
        self._task = self._bar.add_task("training", total=1.0, steps=0, numbers="")
        self._bar.start()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        now = time.monotonic()
        if self._bar is None or now - self._shown < 0.1:
            return
        self._shown = now
        assert isinstance(pl_module, MaximumLikelihood)
        numbers = [
            f"{name} {points[-1][1] * self.scale:.3f}"
            for name, points in pl_module.history.items()
            if points
        ]
        self._bar.update(
            self._task,
            completed=min(1.0, pl_module.progress(pl_module.step)),
            steps=pl_module.step,
            numbers=", ".join(numbers) + (f" {self.unit}" if numbers else ""),
        )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
