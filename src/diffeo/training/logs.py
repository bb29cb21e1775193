"""Curves as files: metrics.csv, which survives a kill, and any logger of Lightning by configuration."""

from __future__ import annotations

import csv
import importlib
import io
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from ..errors import ConfigError, TrainingError
from .machines import main_process

COLUMNS = ("step", "train", "validation", "lr", "seconds")
CSV = "metrics.csv"


class Metrics(Logger):
    """metrics.csv: a line per logged step, appended when a checkpoint is written; lines after `start` are cut off.

    more: columns beside the usual ones.
    """

    def __init__(self, folder: str | Path, start: int = 0, more: Iterable[str] = ()) -> None:
        super().__init__()
        self.path = Path(folder) / CSV
        self.columns = (*COLUMNS, *more)
        self._lines: list[list[Any]] = []
        if main_process():
            self._begin(start)

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kw: Any) -> None:
        """The recipe in the folder holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._lines.append([step, *(metrics.get(name, "") for name in self.columns[1:])])

    @rank_zero_only
    def save(self) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(self._lines)
        self._write("a", text.getvalue())
        self._lines.clear()

    def _begin(self, start: int) -> None:
        lines = []
        if start and self.path.exists():
            # A kill can leave half a line at the end, always beyond the checkpoint.
            rows = csv.reader(self.path.read_text().splitlines()[1:])
            lines = [
                row
                for row in rows
                if len(row) == len(self.columns) and row[0].isdigit() and int(row[0]) <= start
            ]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.columns, *lines])
        self._write("w", text.getvalue())

    def _write(self, mode: str, text: str) -> None:
        try:
            with self.path.open(mode) as file:
                file.write(text)
        except OSError as error:
            raise TrainingError(f"cannot write {self.path}: {error.strerror or error}") from error


def make_loggers(
    chosen: Iterable[Logger | str | Mapping[str, Any]],
    folder: Path | None,
    start: int = 0,
    more: Iterable[str] = (),
) -> list[Logger]:
    """Loggers from `csv`, `tensorboard`, {class path: arguments} or objects; csv is always there with a folder.

    Raises ConfigError for a name that is no logger, or arguments that it does not take.
    """
    logs: list[Logger] = [] if folder is None else [Metrics(folder, start, more)]
    for item in chosen:
        if isinstance(item, Logger):
            logs.append(item)
        elif item == "tensorboard":
            arguments: dict[str, Any] = {"save_dir": folder or ".", "name": "", "version": item}
            if start:
                arguments["purge_step"] = start + 1
            logs.append(_make("lightning.pytorch.loggers.TensorBoardLogger", arguments))
        elif isinstance(item, Mapping):
            logs += [_make(path, arguments or {}) for path, arguments in item.items()]
        elif item != "csv":
            raise ConfigError(
                f"loggers are csv, tensorboard or a mapping of a class path to arguments, got {item!r}"
            )
    return logs


def _make(path: str, arguments: Mapping[str, Any]) -> Logger:
    module, _, name = path.rpartition(".")
    try:
        made = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"there is no logger {path!r}: {error}") from error
    if not (isinstance(made, type) and issubclass(made, Logger)):
        raise ConfigError(f"{path!r} is no logger of Lightning")
    try:
        logger: Logger = made(**arguments)
    except (TypeError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"the logger {path!r} cannot be made: {reason}") from error
    return logger
