"""Ray Data: the chunks of a job on the workers of a cluster, results in order."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .. import errors
from ..errors import ConfigError, DiffeoError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]

__all__ = ["check_installed", "ordered_map"]

_TASKS = 4096  # at most, with several chunks each where there are more


def ordered_map(
    make: Callable[[], Callable[[int], Array]], starts: Sequence[int]
) -> Iterator[Array]:
    """`work(start)` for each start, in order, `work = make()` being built once in each worker, with one CPU thread.

    Uses the cluster that Ray is connected to or that RAY_ADDRESS names, else one of this machine. Files that the work
    reads must be at the same path on every worker. Raises ConfigError without Ray, and what the work raised if that
    is a DiffeoError; else a DiffeoError that says what happened.
    """
    ray = _ray()
    started = not ray.is_initialized()
    if started:
        # No telemetry: a computation sends nothing anywhere.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR", num_gpus=None)
    try:
        yield from _run(ray, make, starts)
    finally:
        if started:
            ray.shutdown()


def check_installed() -> None:
    """Raise ConfigError where Ray Data is not installed."""
    _ray()


def _run(
    ray: Any, make: Callable[[], Callable[[int], Array]], starts: Sequence[int]
) -> Iterator[Array]:
    import logging

    import numpy as np

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    before = (context.enable_progress_bars, context.execution_options.preserve_order)
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    # In a list, so that Ray passes the reference on: each worker fetches the work once.
    made = ray.put(make)
    workers = max(1, int(ray.cluster_resources().get("CPU", 1)))
    try:
        chunks = ray.data.from_items(list(starts), override_num_blocks=min(len(starts), _TASKS))
        results = chunks.map(
            _Worker,
            fn_args=([made],),
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(workers, len(starts))),
            num_cpus=1,
        )
        for result in results.iter_rows():
            if result["error"]:
                raise getattr(errors, result["error"])(result["sentence"])
            yield np.load(io.BytesIO(result["array"]), allow_pickle=False)
    except ray.exceptions.RayError as error:
        first = str(error).strip().splitlines()[0]
        raise DiffeoError(f"Ray cannot go on: {first}") from error
    finally:
        context.enable_progress_bars, context.execution_options.preserve_order = before


class _Worker:
    """One actor: a chunk's start in, its array out as bytes, an error of the user's as a sentence."""

    def __init__(self) -> None:
        import torch

        torch.set_num_threads(1)
        self.work: Callable[[int], Array] | None = None

    def __call__(self, row: dict[str, Any], made: list[Any]) -> dict[str, Any]:
        import numpy as np
        import ray

        try:
            self.work = self.work or ray.get(made[0])()
            buffer = io.BytesIO()
            np.save(buffer, self.work(row["item"]), allow_pickle=False)
        except DiffeoError as error:
            return {"array": b"", "error": type(error).__name__, "sentence": str(error)}
        except Exception as error:
            sentence = f"a Ray worker failed with {type(error).__name__}: {error}"
            return {"array": b"", "error": "DiffeoError", "sentence": sentence}
        return {"array": buffer.getvalue(), "error": "", "sentence": ""}


def _ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ConfigError(
            "the engine 'ray' needs Ray Data, which is not installed: pip install 'diffeo[ray]'"
        ) from error
    return ray
