"""The Lightning side: maximum likelihood of a flow, one step after the other, with validation and checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from ..flow import Flow
from ..parts import TRAINING_TOLERANCE, Refreshed, refresh
from .averages import Averages, Best
from .checkpoint import Checkpoint
from .compiling import CompiledLoss, LossFunction, loss_function, matching_loss, wanted
from .divergence import Diverged, diagnose
from .noise import noise_of, seed_layers
from .rows import Batch, place
from .settings import TrainingSettings

LOG_EVERY = 10


class MaximumLikelihood(pl.LightningModule):
    """Minimizes the weighted mean of -log p(x | context), in nats.

    total: steps of the whole run, where known. held_out: validation batches. every: steps between two validations.
    state: of a checkpoint to go on from. interrupted: says whether the user wants an end.
    """

    def __init__(
        self,
        flow: Flow,
        settings: TrainingSettings,
        *,
        total: int | None = None,
        held_out: Iterable[Batch] | None = None,
        every: int = 100,
        checkpoint: Checkpoint | None = None,
        state: dict[str, Any] | None = None,
        facts: dict[str, Any] | None = None,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__()
        self.flow = flow
        self.settings = settings
        self.total = settings.steps if total is None else total
        self.held_out = held_out
        self.every = every
        self.checkpoint = checkpoint
        self.facts = facts or {}
        self.interrupted = interrupted
        self.step = 0
        self.stopped = "budget"
        self.history: dict[str, list[tuple[int, float]]] = {"train": [], "validation": []}
        self.best = Best(settings.patience)
        self._weights = list(flow.parameters())
        self._refreshes = any(isinstance(m, Refreshed) for m in flow.modules())
        self._sum, self._count = 0.0, 0
        self._extra: Tensor | None = None
        self._earlier = 0.0
        self._start = time.monotonic()
        self.resumed = state is not None
        self._state = state
        self._agreed_end = False
        if state is not None:
            self._restore(state)
        self.averages = None if settings.ema is None else Averages(flow, settings.ema)
        if state is not None and self.averages is not None:
            self.averages.load_state_dict(state["averages"])
        self._matching = matching_loss(flow, settings)
        self._loss: LossFunction = loss_function(flow, settings)
        if wanted(settings, self.total, flow):
            self._loss = CompiledLoss(flow, settings)

    # -- one step -----------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        self._start = time.monotonic()
        if self.averages is not None:
            self.averages.to(self.device)

    def on_train_start(self) -> None:
        self.flow.train()
        refresh(self.flow)
        if self.resumed and self._state is not None:
            self._optimizer().load_state_dict(self._state["optimizer"])
            self._state = None
        elif self.checkpoint is not None:
            self._write()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        s = self.settings
        rank, world = place()
        rate = s.lr * self._rate(batch.step)
        for group in self._optimizer().param_groups:
            group["lr"] = rate
        noise = noise_of(self.flow, batch, s.seed, batch.step)
        # The gradients are averaged over the processes, hence `world`.
        self._inputs = (batch.x, batch.context, batch.weights, noise, world / batch.total)
        seed_layers(self.device, s.seed, batch.step, rank)
        loss = self._loss(*self._inputs)
        self._last = loss.detach()
        if loss.ndim:
            # What is shown as the loss, in curves and messages, is the likelihood alone.
            self._last, self._extra = self._last
            loss = loss.sum()
        return loss

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clip the gradient's norm, and stop where it or the loss is not finite: one synchronization for all of it."""
        grads = [p.grad for p in self._weights if p.grad is not None]
        norm, loss = self._numbers(torch.nn.utils.get_total_norm(grads, foreach=True))
        if not math.isfinite(norm + loss):
            self._diverged(norm, loss)
        self._sum += loss
        self._count += 1
        clip = self.settings.clip
        if clip is not None and norm > clip:
            torch._foreach_mul_(grads, clip / norm)

    def _numbers(self, norm: Tensor) -> tuple[float, float]:
        """The gradient's norm and the loss of the global batch."""
        if place()[1] == 1:
            numbers = torch.stack((norm, self._last.to(norm.dtype))).tolist()
            return numbers[0], numbers[1]
        end = float(self.interrupted() or self._out_of_time())
        shared = torch.stack((self._last, self._last.new_tensor(end)))
        loss, ends = self.trainer.strategy.reduce(shared, reduce_op="mean").tolist()
        # All processes must end after the same step.
        self._agreed_end = ends > 0
        return float(norm), loss

    def _diverged(self, norm: float, loss: float) -> None:
        def again() -> Tensor:
            seed_layers(self.device, self.settings.seed, self.step, place()[0])
            with self.trainer.precision_plugin.forward_context():
                return loss_function(self.flow, self.settings)(*self._inputs).sum()

        what = f"the gradient's norm is {norm}" if math.isfinite(loss) else f"the loss is {loss}"
        why = diagnose(self.flow, self._inputs[0], again)
        raise Diverged(
            f"training diverged at step {self.step}: {what}; {why}; lower lr (now {self.settings.lr:g}) or clip "
            f"(now {self.settings.clip}), or check the data's range"
        )

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        self.step = batch.step + 1
        if self._refreshes:
            refresh(self.flow, TRAINING_TOLERANCE)
        if self.averages is not None:
            self.averages.update()
        if self.step % LOG_EVERY == 0:
            extra = {} if self._extra is None else {"auxiliary": float(self._extra)}
            self._log(train=float(self._last), lr=self._optimizer().param_groups[0]["lr"], **extra)
        if self.held_out is not None and self.step % self.every == 0:
            self.validate()
        if self.best.stopped:
            self._end("early stopping")
        elif self._wants_end():
            self._end("interrupted" if self.interrupted() else "budget")
        elif self.checkpoint is not None and self.checkpoint.due(self.step):
            self._write()

    def _wants_end(self) -> bool:
        if place()[1] > 1:
            return self._agreed_end
        return self.interrupted() or self._out_of_time()

    def _out_of_time(self) -> bool:
        minutes = self.settings.minutes
        return minutes is not None and self.seconds() >= 60 * minutes

    def _end(self, why: str) -> None:
        self.stopped = why
        self.trainer.should_stop = True

    def on_train_end(self) -> None:
        # What an interruption adds to the curves is not part of the run that goes on.
        if self.stopped != "interrupted":
            self._last_words()
        if self.checkpoint is not None:
            self._write()
        self._last_words()
        refresh(self.flow)

    def _last_words(self) -> None:
        validated = self.history["validation"]
        if self.held_out is not None and (not validated or validated[-1][0] != self.step):
            self.validate()
        self.record()

    @property
    def ended(self) -> bool:
        """Whether the budget is used up, or patience is."""
        done = self.total is not None and self.step >= self.total
        return done or self.best.stopped or self._out_of_time()

    # -- validation ---------------------------------------------------------------------------------------------------

    def validate(self) -> None:
        """Note the validation loss, under the averaged weights if there are any, and keep the best weights."""
        self.record()
        with nullcontext() if self.averages is None else self.averages.in_place():
            refresh(self.flow)
            value = self.validation_loss()
            self.history["validation"].append((self.step, value))
            self.best.see(value, self.step, self.flow)
        self._log(validation=value)

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Mean -log p over the validation rows, in the flow's own precision; or the mean of another objective.

        The same noise every time, so that two validations differ by the weights alone.
        """
        assert self.held_out is not None
        training = self.flow.training
        self.flow.eval()
        sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        for batch in self.held_out:
            x, context, weights = self._moved((batch.x, batch.context, batch.weights))
            noise = noise_of(self.flow, batch, batch.step)
            if self._matching is None:
                log_prob = self.flow(x, context, noise=noise).double()
            else:
                seed_layers(self.device, 0, batch.step, place()[0])
                log_prob = -self._matching(x, context, noise).double()
            w = torch.ones_like(log_prob) if weights is None else weights.double()
            sums += torch.stack([(w * log_prob).sum(), w.sum()])
        if place()[1] > 1:
            torch.distributed.all_reduce(sums)
        self.flow.train(training)
        total, weight = sums.tolist()
        return -total / weight if weight else math.nan

    def record(self) -> None:
        """Append the mean training loss since the last record to the history, and the extra loss of the last step."""
        if self._count:
            self.history["train"].append((self.step, self._sum / self._count))
            self._sum, self._count = 0.0, 0
            if self._extra is not None:
                self.history.setdefault("auxiliary", []).append((self.step, float(self._extra)))

    def _moved(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(self.device)
        if isinstance(value, dict):
            return {k: self._moved(v) for k, v in value.items()}
        return tuple(self._moved(v) for v in value) if isinstance(value, tuple) else value

    def _log(self, step: int | None = None, /, **numbers: float) -> None:
        # Not self.log, which costs as much as a small layer.
        numbers["seconds"] = round(self.seconds(), 3)
        for logger in self.trainer.loggers:
            logger.log_metrics(numbers, step=self.step if step is None else step)

    # -- optimizer and schedule ---------------------------------------------------------------------------------------

    def configure_optimizers(self) -> torch.optim.Optimizer:
        s = self.settings
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        decayed = set(weight_matrices(self.flow))
        for p in self.flow.parameters():
            (matrices if p in decayed else others).append(p)
        groups: list[dict[str, Any]] = [
            {"params": matrices, "weight_decay": s.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        # One fused kernel: on a CPU the loop over parameters costs as much as a small network.
        return torch.optim.AdamW(
            [g for g in groups if g["params"]], lr=s.lr, betas=s.betas, eps=s.eps, fused=True
        )

    def _optimizer(self) -> torch.optim.Optimizer:
        return self.trainer.optimizers[0]

    def _rate(self, step: int) -> float:
        s = self.settings
        rise = min(1.0, (step + 1) / s.warmup) if s.warmup else 1.0
        if s.schedule == "constant":
            return rise
        if s.schedule == "exponential":
            return rise * max(s.decay**step, s.final)
        wave = 0.5 * (1 + math.cos(math.pi * min(1.0, self.progress(step))))
        return rise * (s.final + (1 - s.final) * wave)

    def progress(self, step: int) -> float:
        """Share of the budget that is used up: the larger of steps and time."""
        shares = [0.0]
        if self.total is not None:
            shares.append(step / self.total)
        if self.settings.minutes is not None:
            shares.append(self.seconds() / (60 * self.settings.minutes))
        return max(shares)

    def seconds(self) -> float:
        """Time spent in fitting, that before an interruption included."""
        return self._earlier + time.monotonic() - self._start

    # -- state --------------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        assert self.checkpoint is not None
        if place()[0] != 0:
            return
        for logger in self.trainer.loggers:
            logger.save()
        self.checkpoint.write(self.state())

    def state(self) -> dict[str, Any]:
        """All that the rest of the run depends on, between two steps."""
        return {
            "step": self.step,
            "stopped": self.stopped,
            "seconds": self.seconds(),
            "flow": self.flow.state_dict(),
            "optimizer": self._optimizer().state_dict(),
            "averages": None if self.averages is None else self.averages.state_dict(),
            "best": self.best.state_dict(),
            "history": self.history,
            "recent": (self._sum, self._count),
            "facts": self.facts,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.flow.load_state_dict(state["flow"])
        self.step = state["step"]
        if state["stopped"] != "interrupted":
            self.stopped = state["stopped"]
        self.best.load_state_dict(state["best"])
        self.history = {k: [tuple(p) for p in v] for k, v in state["history"].items()}
        self._sum, self._count = state["recent"]
        self._earlier = state["seconds"]


def weight_matrices(flow: nn.Module) -> Iterator[nn.Parameter]:
    """What weight decay is for: kernels of linear maps and convolutions, and what other layers list as `decayed`."""
    for module in flow.modules():
        plain = isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)
        for name in ("weight",) if plain else getattr(module, "decayed", ()):
            found = getattr(module, name)
            many = found if isinstance(found, nn.ParameterList) else [found]
            yield from (p for p in many if isinstance(p, nn.Parameter))
