"""fit: train a flow by maximum likelihood on whatever data the user has."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..errors import ConfigError
from ..flow import Flow
from ..transforms.reversible import Memory
from .rows import Once, Repeated, Rows, Stream, gather, unpack
from .settings import TrainingSettings, checked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lightning.pytorch.callbacks import Callback
    from lightning.pytorch.loggers import Logger

    from .module import MaximumLikelihood

# Settings that a run which goes on may have otherwise: none of them touches the weights.
FREE = ("checkpoint_minutes", "checkpoint_steps", "loggers")


@dataclass(frozen=True)
class Run:
    """What a training run left: the flow holds the best weights; curves are (step, mean -log p in nats).

    stopped: `budget`, `early stopping` or `interrupted` (by Ctrl-C).
    """

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
    resume: bool = False,
    progress: bool = True,
    loggers: Sequence[Logger | str | Mapping[str, Any]] = (),
    **settings: Any,
) -> Run:
    """Minimize the mean of -log p(x | context) with AdamW; leaves the best weights in `flow`, in eval mode.

    objective: `maximum_likelihood`, or `flow_matching` for a flow with one continuous layer, whose losses are mean
    squares and no nats (see `diffeo.objectives.flow_matching`); by default what the card of the model says.

    data: an array or tensor [n, *event_shape] (memory-mapped ones are read a batch at a time), a pair (x, context), a
    Dataset of x or (x, context), a DataLoader of batches, or a `diffeo.data.Data`. validation: the same forms; without
    it the best weights are the last. weights: one number per row. folder: where metrics.csv and checkpoints/ go.
    resume: go on from the checkpoint in `folder`, if there is one; on one machine's CPU the weights become bit for bit
    those of a run that was never interrupted (budgets in steps or epochs; rows, not a DataLoader). loggers:
    `tensorboard`, {class path: arguments}, or Lightning's loggers. Other keywords are those of `TrainingSettings`.
    Ctrl-C ends after the step at hand; a second one at once.

    Raises InputError for data that do not fit, ConfigError for unknown settings, TrainingError when it diverges (the
    flow then holds the last good weights) or cannot write.
    """
    from .interrupts import interrupts

    chosen: TrainingSettings = checked(TrainingSettings, settings, "fit").budget()
    chosen = _compilable(chosen, chosen.memory or flow.memory)
    home = flow.device
    rows, held_out = _sources(data, validation, context, weights)
    for source in (rows, held_out):
        if isinstance(source, Rows):
            # A misfit is one sentence here, not a traceback from inside the trainer.
            flow.check(*source.head(1))
    state = _read(folder, rows, chosen) if resume else None
    logs = [*loggers, *chosen.loggers]
    with (
        torch.random.fork_rng(),
        _threads(chosen.threads),
        _memory(flow, chosen.memory),
        _quiet(),
        interrupts() as interrupted,
    ):
        torch.manual_seed(chosen.seed)
        if state is None:
            _initialize(flow, rows, chosen)
        module = _module(flow, rows, held_out, chosen, folder, state, interrupted)
        try:
            _train(module, rows, folder, progress, logs)
        except BaseException:
            flow.eval().to(home)
            raise
        if module.averages is not None:
            module.averages.to(flow.device)
            module.averages.copy(module.averages.values)
    best = module.best
    if best.weights is not None:
        flow.load_state_dict(best.weights)
    flow.eval().to(home)
    metrics = {"steps": float(module.step), "seconds": module.seconds()}
    if module.history["train"]:
        metrics["train"] = module.history["train"][-1][1]
    if best.weights is not None:
        metrics |= {"validation": best.value, "best_step": float(best.step)}
    return Run(flow, metrics, module.history, chosen, module.stopped)


def _compilable(settings: TrainingSettings, memory: Memory) -> TrainingSettings:
    """compile `auto` is off where backward recomputes. Raises ConfigError for `on`."""
    if memory == "plain" or settings.compile == "off":
        return settings
    if settings.compile == "on":
        raise ConfigError(
            f"compile = 'on' compiles the whole loss, which then stores all activations, but memory is {memory!r}: "
            "leave out one of them, or compile single networks before, as in coupling.net.compile()"
        )
    return settings.model_copy(update={"compile": "off"})


Source = Rows | DataLoader[Any]


def _sources(
    data: Any, validation: Any, context: Any, weights: Any
) -> tuple[Source, Source | None]:
    from ..data import Data

    if isinstance(data, Data):
        made: Any = None if data.given is None else data.context
        first, second = data.contexts[:2] if data.contexts is not None else (made, made)
        rows = gather(data.train, weights, first if context is None else context)
        if validation is None:
            return rows, gather(data.validation, context=second)
        return rows, gather(validation)
    rows = gather(data, weights, context)
    return rows, None if validation is None else gather(validation)


def _read(
    folder: str | Path | None, rows: Source, settings: TrainingSettings
) -> dict[str, Any] | None:
    """The state to go on from. Raises ConfigError if it belongs to other data or settings."""
    from .checkpoint import read_checkpoint

    if folder is None:
        raise ConfigError("resume needs the folder of the run that was interrupted")
    if not isinstance(rows, Rows):
        raise ConfigError(
            "a DataLoader brings its own order, so its run cannot be resumed: give arrays or a Dataset"
        )
    state = read_checkpoint(folder)
    if state is None:
        return None
    facts, before = _facts(rows, settings), state["facts"]
    if before["data"] != facts["data"]:
        raise ConfigError(f"the data are not those that the run in {folder} began with")
    for name, value in facts["settings"].items():
        if name not in FREE and before["settings"].get(name) != value:
            raise ConfigError(
                f"the run in {folder} began with {name} = {before['settings'].get(name)!r}, so it cannot go on with "
                f"{value!r}"
            )
    return state


def _facts(rows: Source, settings: TrainingSettings) -> dict[str, Any]:
    digest = rows.fingerprint() if isinstance(rows, Rows) else None
    return {"data": digest, "settings": settings.model_dump(mode="json")}


def _initialize(flow: Flow, rows: Source, settings: TrainingSettings) -> None:
    """Data-dependent initialization on rows of the training split, drawn under the seed; the same on every process."""
    if flow.initialized:
        return
    if isinstance(rows, Rows):
        generator = torch.Generator().manual_seed(settings.seed)
        # A picture has as many values of each channel as it has pixels, and takes as much more memory.
        most = settings.initialize_rows or (256 if len(flow.event_shape) == 3 else 4096)
        index = torch.randperm(len(rows), generator=generator)[:most]
        x, context, _ = rows[index]
    else:
        x, context, _ = unpack(next(iter(rows)))
    flow.eval().initialize(x, context)


def _module(
    flow: Flow,
    rows: Source,
    held_out: Source | None,
    settings: TrainingSettings,
    folder: str | Path | None,
    state: dict[str, Any] | None,
    interrupted: Any,
) -> MaximumLikelihood:
    from .checkpoint import Checkpoint
    from .module import MaximumLikelihood

    per_epoch = _stream(rows, settings, 0).per_epoch
    totals = [settings.steps] if settings.steps is not None else []
    if settings.epochs is not None and per_epoch is not None:
        totals.append(settings.epochs * per_epoch)
    checkpoint = None
    if folder is not None:
        checkpoint = Checkpoint(
            folder, minutes=settings.checkpoint_minutes, steps=settings.checkpoint_steps
        )
    batches: Once | Repeated | None = None
    if isinstance(held_out, Rows):
        batches = Once(held_out, max(settings.batch_size, 1000), settings.validate_rows)
    elif held_out is not None:
        batches = Repeated(held_out, 1)
    return MaximumLikelihood(
        flow,
        settings,
        total=min(totals, default=None),
        held_out=batches,
        every=settings.validate_every or max(100, per_epoch or 100),
        checkpoint=checkpoint,
        state=state,
        facts=_facts(rows, settings),
        interrupted=interrupted,
    )


def _stream(rows: Source, settings: TrainingSettings, start: int) -> Stream | Repeated:
    if isinstance(rows, Rows):
        return Stream(rows, settings.batch_size, seed=settings.seed, start=start)
    return Repeated(rows, settings.epochs)


def _train(
    module: MaximumLikelihood,
    rows: Source,
    folder: str | Path | None,
    progress: bool,
    loggers: Sequence[Any],
) -> None:
    """Run Lightning's Trainer for what is left of the budget."""
    import lightning.pytorch as pl

    from .batch_norm import global_batch_norm
    from .compiling import unit
    from .divergence import Diverged
    from .logs import make_loggers
    from .machines import main_process, trainer_arguments

    if module.ended:
        return
    settings, start = module.settings, module.step
    place = trainer_arguments(settings)
    if folder is not None and main_process():
        assert module.checkpoint is not None
        module.checkpoint.begin(fresh=not module.resumed)
    callbacks: list[Callback] = []
    more: tuple[str, ...] = ()
    if module.flow.memory == "reversible":
        from .memory import ReconstructionWatch

        callbacks.append(ReconstructionWatch())
        more = ("reconstruction",)
    logs = make_loggers(loggers, None if folder is None else Path(folder), start, more)
    if progress:
        from .progress import BudgetBar

        callbacks.append(BudgetBar(*unit(module.flow, settings)))
    trainer = pl.Trainer(
        **place,
        max_epochs=1,
        max_steps=-1 if module.total is None else module.total - start,
        callbacks=callbacks,
        logger=logs or False,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=progress,
        enable_model_summary=False,
        inference_mode=False,
        use_distributed_sampler=False,
    )
    start_weights = None if module.checkpoint is not None else _copy(module.flow)
    shared = global_batch_norm(module.flow) if trainer.world_size > 1 else nullcontext()
    try:
        with shared:
            trainer.fit(module, _stream(rows, settings, start))
    except Diverged:
        module.flow.to("cpu").load_state_dict(_last_good(module) or start_weights or {})
        raise


def _last_good(module: MaximumLikelihood) -> dict[str, Tensor] | None:
    """The best validated weights, or those of the last checkpoint."""
    from .checkpoint import read_checkpoint

    if module.best.weights is not None or module.checkpoint is None:
        return module.best.weights
    state = read_checkpoint(module.checkpoint.folder)
    return None if state is None else state["flow"]


def _copy(flow: Flow) -> dict[str, Tensor]:
    return {k: v.detach().cpu().clone() for k, v in flow.state_dict().items()}


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
def _memory(flow: Flow, memory: Memory | None) -> Iterator[None]:
    """Train with this `flow.memory`, and leave it as it was."""
    before = flow.memory
    flow.memory = memory or before
    try:
        yield
    finally:
        flow.memory = before


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the trainer's hints about hardware and workers away from the user, and restore its logger after."""
    # The import itself sets the level of its logger.
    import lightning.pytorch  # noqa: F401

    log = logging.getLogger("lightning.pytorch")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        log.setLevel(before)
