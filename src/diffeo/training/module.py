"""The Lightning side: maximum likelihood of a flow, its validation, and the callbacks around it."""

from __future__ import annotations

import copy
import math
import time
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, WeightAveraging
from torch import Tensor, nn

from ..errors import TrainingError
from ..flow import Flow
from .settings import TrainingSettings

LOG_EVERY = 10


def unpack(batch: Any) -> tuple[Tensor, Any, Tensor | None]:
    """x, context and weights of a batch of ours, or of a loader that gives x or (x, context)."""
    if isinstance(batch, Tensor):
        return batch, None, None
    x, context, *rest = batch
    if isinstance(context, Tensor) and context.numel() == 0:
        context = None
    return x, context, rest[0] if rest else None


class MaximumLikelihood(pl.LightningModule):
    """Minimizes the weighted mean of -log p(x | context), in nats."""

    def __init__(self, flow: Flow, settings: TrainingSettings) -> None:
        super().__init__()
        self.flow = flow
        self.settings = settings
        self.history: dict[str, list[tuple[int, float]]] = {"train": [], "validation": []}
        self._sums = torch.zeros(2, dtype=torch.float64)
        self._recent: list[Tensor] = []
        self._start = time.monotonic()

    def on_fit_start(self) -> None:
        self._start = time.monotonic()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, context, weights = unpack(batch)
        log_prob: Tensor = self.flow(x, context)
        loss = -(log_prob.mean() if weights is None else (weights * log_prob).mean())
        if not bool(torch.isfinite(loss)):
            bad = int((~torch.isfinite(log_prob)).sum())
            raise TrainingError(
                f"step {self.global_step}: log_prob is not finite for {bad} of {len(log_prob)} examples; "
                "check the data's range, or lower lr or clip"
            )
        self._recent.append(loss.detach())
        # Logging costs as much as a small layer, so not every step.
        if self.global_step % LOG_EVERY == 0:
            self.log("train", loss.detach(), on_step=True, on_epoch=False)
        return loss

    def on_validation_epoch_start(self) -> None:
        self._sums.zero_()
        self.record()

    def on_train_end(self) -> None:
        self.record()

    def record(self) -> None:
        """Append the mean training loss since the last record to the history."""
        if self._recent:
            value = float(torch.stack(self._recent).mean())
            self.history["train"].append((self.global_step, value))
            self._recent.clear()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, context, weights = unpack(batch)
        # The same noise at every validation, so that two of them differ by the weights alone.
        generator = torch.Generator(self.device).manual_seed(batch_idx)
        log_prob = self.flow.log_prob(x, context, generator=generator).double()
        w = torch.ones_like(log_prob) if weights is None else weights.double()
        self._sums += torch.stack([(w * log_prob).sum(), w.sum()]).cpu()

    def validation_loss(self) -> float:
        """Mean -log p over the validation rows seen since the epoch began."""
        return float(-self._sums[0] / self._sums[1])

    def seconds(self) -> float:
        """Wall time since fitting began."""
        return time.monotonic() - self._start

    def configure_optimizers(self) -> Any:
        s = self.settings
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for module in self.flow.modules():
            decays = isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)
            for name, p in module.named_parameters(recurse=False):
                (matrices if decays and name == "weight" else others).append(p)
        groups: list[dict[str, Any]] = [
            {"params": matrices, "weight_decay": s.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        # One fused kernel: on a CPU the loop over parameters costs as much as a small network. Under mixed precision
        # Lightning clips the gradients only of an optimizer that leaves their scale alone.
        fused = s.precision == "32"
        optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=s.lr, fused=fused)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def _rate(self, step: int) -> float:
        s = self.settings
        rise = min(1.0, (step + 1) / s.warmup) if s.warmup else 1.0
        if s.schedule == "constant":
            return rise
        return rise * 0.5 * (1 + math.cos(math.pi * min(1.0, self.progress(step))))

    def progress(self, step: int) -> float:
        """Share of the budget that is used up: the largest over steps, epochs and time."""
        s = self.settings
        shares = [0.0]
        if s.steps is not None:
            shares.append(step / s.steps)
        if s.epochs is not None and self._trainer is not None:
            batches = self.trainer.num_training_batches
            if math.isfinite(batches) and batches:
                shares.append(step / (s.epochs * batches))
        if s.minutes is not None:
            shares.append(self.seconds() / (60 * s.minutes))
        return max(shares)


class Best(Callback):
    """Records the validation curve, keeps the best weights, stops after `patience` validations without a better one.

    Must stand before the weight averaging in the list of callbacks: it then sees the averaged weights.
    """

    def __init__(self, patience: int | None) -> None:
        self.patience = patience
        self.best = math.inf
        self.best_step = 0
        self.weights: dict[str, Tensor] | None = None
        self.since = 0
        self.stopped = False

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, MaximumLikelihood)
        value = pl_module.validation_loss()
        pl_module.history["validation"].append((trainer.global_step, value))
        pl_module.log("validation", value)
        if value < self.best:
            self.best, self.best_step, self.since = value, trainer.global_step, 0
            self.weights = copy.deepcopy(pl_module.flow.state_dict())
        else:
            self.since += 1
            if self.patience is not None and self.since >= self.patience:
                self.stopped = True
                trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        return {
            "best": self.best,
            "best_step": self.best_step,
            "since": self.since,
            "weights": self.weights,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for key, value in state_dict.items():
            setattr(self, key, value)


def averaging(decay: float) -> WeightAveraging:
    """Moving average of weights: avg <- d avg + (1 - d) w, d = min(decay, (1 + n) / (10 + n)); buffers are copied."""

    def update(averages: Any, weights: Any, count: Tensor | int) -> None:
        n = float(count)
        torch._foreach_lerp_(averages, weights, 1 - min(decay, (1 + n) / (10 + n)))

    return WeightAveraging(use_buffers=False, multi_avg_fn=update)
