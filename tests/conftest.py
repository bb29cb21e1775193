"""Quiet logs: pytest would keep all of dynamo's trace. And quick tests: coverage does not follow the compiler."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

logging.getLogger("torch.__trace").propagate = False


def untraced(call: Callable[..., Any]) -> Callable[..., Any]:
    """The same call, while which no line is counted: what is compiled runs in eager mode, too, and is counted there."""

    def quick(*args: Any, **kwargs: Any) -> Any:
        trace = sys.gettrace()
        sys.settrace(None)
        try:
            return call(*args, **kwargs)
        finally:
            sys.settrace(trace)

    return quick


@pytest.fixture(autouse=True)
def coverage_leaves_out_the_compiler(monkeypatch):
    compile_it = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *a, **k: untraced(compile_it(*a, **k)))
    monkeypatch.setattr(torch.export, "export", untraced(torch.export.export))
