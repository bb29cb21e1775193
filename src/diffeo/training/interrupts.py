"""Ctrl-C as a wish: the first lets the step end and the run be written, a second one ends at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from ..errors import TrainingError


@contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """A function that says whether Ctrl-C was pressed; outside of the main thread it never is."""
    pressed = False
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def press(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            # Not KeyboardInterrupt, which the trainer takes for a reason to leave the program.
            raise TrainingError(
                "stopped at once by a second Ctrl-C: --resume goes on from the last checkpoint"
            )
        pressed = True

    before = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)
