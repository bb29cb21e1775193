"""fit: train a flow by maximum likelihood on whatever data the user has."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader

from ..flow import Flow
from .rows import Rows, gather, loader
from .settings import TrainingSettings, checked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lightning.pytorch.loggers import Logger


@dataclass(frozen=True)
class Run:
    """What a training run left: the flow holds the best weights; curves are (step, mean -log p in nats)."""

    flow: Flow = field(repr=False)
    metrics: dict[str, float]
    history: dict[str, list[tuple[int, float]]] = field(repr=False)
    settings: TrainingSettings
    stopped: str


def fit(
    flow: Flow,
    data: Any,
    *,
    validation: Any = None,
    context: Any = None,
    weights: Any = None,
    folder: str | Path | None = None,
    progress: bool = True,
    loggers: Sequence[Logger] = (),
    **settings: Any,
) -> Run:
    """Minimize the mean of -log p(x | context) with AdamW; leaves the best weights in `flow`, in eval mode.

    data: an array or tensor [n, *event_shape], a pair (x, context), a Dataset of x or (x, context), a DataLoader of
    batches, or a `diffeo.data.Data`. validation: the same forms; without it the best weights are the last. weights:
    one number per row. folder: where metrics.csv and checkpoints/ go. Other keywords are those of `TrainingSettings`:
    epochs, steps, minutes, batch_size, lr, warmup, schedule, weight_decay, clip, ema, patience, validate_every, seed,
    device, threads, precision.

    Raises InputError for data that do not fit, ConfigError for unknown settings, TrainingError when it diverges.
    """
    import lightning.pytorch as pl
    from lightning.pytorch.callbacks import Callback, ModelCheckpoint
    from lightning.pytorch.loggers import CSVLogger

    from .module import Best, MaximumLikelihood, averaging

    chosen: TrainingSettings = checked(TrainingSettings, settings, "fit").budget()
    home = flow.device
    rows, held_out = _sources(data, validation, context, weights)
    for source in (rows, held_out):
        if isinstance(source, Rows):
            # A misfit is one sentence here, not a traceback from inside the trainer.
            flow.check(*source.head(1))

    with torch.random.fork_rng(), _threads(chosen.threads), _quiet():
        torch.manual_seed(chosen.seed)
        _initialize(flow, rows, chosen)
        train, valid = _loaders(rows, held_out, chosen)
        module = MaximumLikelihood(flow, chosen)
        best = Best(chosen.patience)
        callbacks: list[Callback] = [best]
        if chosen.ema is not None:
            callbacks.append(averaging(chosen.ema))
        logs: list[Logger] = list(loggers)
        if folder is not None:
            Path(folder).mkdir(parents=True, exist_ok=True)
            logs.append(CSVLogger(str(folder), name="", version=""))
            checkpoints = Path(folder) / "checkpoints"
            each = timedelta(minutes=1)
            callbacks.append(
                ModelCheckpoint(checkpoints, filename="last", train_time_interval=each)
            )
        if progress:
            from .progress import BudgetBar

            bits = 1 / (flow.event_size * math.log(2))
            callbacks.append(
                BudgetBar("bits/dim", bits) if flow.discrete else BudgetBar("nats", 1.0)
            )
        per_epoch = _length(train)
        every = chosen.validate_every or max(100, per_epoch or 100)
        trainer = pl.Trainer(
            accelerator="cpu" if chosen.device == "cpu" else "auto",
            devices=1 if chosen.device == "cpu" else "auto",
            precision="bf16-mixed" if chosen.precision == "bf16" else "32-true",
            max_epochs=chosen.epochs if chosen.epochs is not None else -1,
            max_steps=chosen.steps if chosen.steps is not None else -1,
            max_time=None if chosen.minutes is None else timedelta(minutes=chosen.minutes),
            gradient_clip_val=chosen.clip,
            check_val_every_n_epoch=None,
            val_check_interval=every if valid is not None else None,
            num_sanity_val_steps=0,
            callbacks=callbacks,
            logger=logs or False,
            log_every_n_steps=1,
            enable_checkpointing=folder is not None,
            enable_progress_bar=progress,
            enable_model_summary=False,
            inference_mode=False,
        )
        flow.train()
        trainer.fit(module, train, valid)
        steps = trainer.global_step
        if folder is not None:
            trainer.save_checkpoint(checkpoints / "last.ckpt")
        if valid is not None and (
            not module.history["validation"] or module.history["validation"][-1][0] != steps
        ):
            trainer.validate(module, valid, verbose=False)
    if best.weights is not None:
        flow.load_state_dict(best.weights)
    flow.eval().to(home)
    metrics = {"steps": float(steps), "seconds": module.seconds()}
    if module.history["train"]:
        metrics["train"] = module.history["train"][-1][1]
    if best.weights is not None:
        metrics |= {"validation": best.best, "best_step": float(best.best_step)}
    stopped = "early stopping" if best.stopped else "budget"
    return Run(flow, metrics, module.history, chosen, stopped)


Source = Rows | DataLoader[Any]


def _sources(
    data: Any, validation: Any, context: Any, weights: Any
) -> tuple[Source, Source | None]:
    from ..data import Data

    if isinstance(data, Data):
        held_out = data.validation if validation is None else validation
        return gather(data.train, weights, context), gather(held_out)
    rows = gather(data, weights, context)
    return rows, None if validation is None else gather(validation)


def _initialize(flow: Flow, rows: Source, settings: TrainingSettings) -> None:
    """Data-dependent initialization on rows of the training split, drawn under the seed."""
    if flow.initialized:
        return
    if isinstance(rows, Rows):
        generator = torch.Generator().manual_seed(settings.seed)
        index = torch.randperm(len(rows), generator=generator)[: settings.initialize_rows]
        x, context, _ = rows[index]
        flow.eval().initialize(x, context if rows.context is not None else None)
    else:
        from .module import unpack

        x, context, _ = unpack(next(iter(rows)))
        flow.eval().initialize(x, context)


def _loaders(
    rows: Source, held_out: Source | None, settings: TrainingSettings
) -> tuple[DataLoader[Any], DataLoader[Any] | None]:
    size, seed = settings.batch_size, settings.seed
    train = loader(rows, size, shuffle=True, seed=seed) if isinstance(rows, Rows) else rows
    if isinstance(held_out, Rows):
        return train, loader(held_out, max(size, 1000), shuffle=False)
    return train, held_out


def _length(source: DataLoader[Any]) -> int | None:
    try:
        return len(source)
    except TypeError:
        return None


@contextmanager
def _threads(n: int | None) -> Iterator[None]:
    """Run with n threads, and with as many as before afterwards."""
    before = torch.get_num_threads()
    try:
        if n is not None:
            torch.set_num_threads(n)
        yield
    finally:
        if n is not None:
            torch.set_num_threads(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the trainer's hints about hardware and workers away from the user, and restore its logger after."""
    log = logging.getLogger("lightning.pytorch")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        log.setLevel(before)
