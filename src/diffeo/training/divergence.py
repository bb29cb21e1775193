"""Why a step went wrong: the batch once more, with a hook on every layer. Runs only after the failure."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import TrainingError
from ..families import Family
from ..flow import Flow
from ..transforms import Transform

Loss = Callable[[], Tensor]


class Diverged(TrainingError):
    """A loss or a gradient is not finite; names the step, the layer, the parameter and the statistic."""


def diagnose(flow: Flow, x: Tensor, loss: Loss) -> str:
    """A clause that names the layer, the parameter and the statistic that went wrong.

    loss: computes the failing step's loss anew, with the same noise and dropout.
    """
    if x.is_floating_point() and not bool(torch.isfinite(x).all()):
        return "the batch itself holds NaN or infinite values: remove or fill them"
    for name, p in flow.named_parameters():
        if not bool(torch.isfinite(p).all()):
            return f"{_parameter(flow, name)} is not finite"
    seen = _Seen(flow)
    with seen, torch.enable_grad():
        value = loss()
    if seen.first is not None:
        return f"the first value that is not finite comes from {seen.first}{seen.extremes()}"
    if not bool(torch.isfinite(value)):
        base = type(flow.base).__name__
        return f"the density of the base {base} is not finite{seen.extremes()}"
    return _gradients(flow, value)


class _Seen:
    """Hooks that note the first output that is not finite, and the extremes on the way to it."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.first: str | None = None
        self.log_scale = (0.0, "")
        self.output = (0.0, "")
        self._handles: list[Any] = []

    def __enter__(self) -> None:
        for name, module in self.flow.named_modules():
            if name:
                self._handles.append(module.register_forward_hook(self._hook(name)))

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, outputs: Any) -> None:
            if self.first is not None:
                return
            tensors = [t for t in _tensors(outputs) if t.is_floating_point()]
            # An inner layer ends before the one around it, so the first to be noted is the innermost.
            if any(not bool(torch.isfinite(t).all()) for t in tensors):
                self.first = _layer(self.flow, name)
                reached = max((_largest(t) for t in _tensors(inputs)), default=0.0)
                self.first += f", whose inputs reached {reached:.3g}"
            if isinstance(module, Family) and len(tensors) == 2:
                owner = name.rpartition(".")[0]
                self.log_scale = max(self.log_scale, (_largest(tensors[1]), owner))
            if isinstance(module, Transform) and tensors:
                self.output = max(self.output, (_largest(tensors[0]), name))

        return hook

    def extremes(self) -> str:
        """The largest log-scale, output and parameter, where each is worth a word."""
        words = ""
        if self.log_scale[1]:
            words += f"; the log-scale of {self.log_scale[1]} reached {self.log_scale[0]:.3g}"
        if self.output[1]:
            words += f"; the output of {self.output[1]} reached {self.output[0]:.3g}"
        size, name = max((_largest(p), name) for name, p in self.flow.named_parameters())
        return f"{words}; the largest parameter is {_parameter(self.flow, name)}, up to {size:.3g}"


def _gradients(flow: Flow, loss: Tensor) -> str:
    named = [(n, p) for n, p in flow.named_parameters() if p.requires_grad]
    grads = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True)
    pairs = [(n, g) for (n, _), g in zip(named, grads, strict=True) if g is not None]
    broken = [(n, g) for n, g in pairs if not bool(torch.isfinite(g).all())]
    if broken:
        # Backward runs from the latent to the data: the last layer is the first to break.
        name, grad = broken[-1]
        count = int((~torch.isfinite(grad)).sum())
        return (
            f"the gradient of {_parameter(flow, name)} is not finite in {count} of {grad.numel()} entries, "
            f"as that of {len(broken)} of {len(pairs)} parameters"
        )
    size, name = max((float(g.double().norm()), n) for n, g in pairs)
    return f"the gradient's norm overflows; the largest is that of {_parameter(flow, name)}, {size:.3g}"


def _layer(flow: Flow, name: str) -> str:
    return f"{name} ({type(flow.get_submodule(name)).__name__})"


def _parameter(flow: Flow, name: str) -> str:
    owner = flow.get_submodule(name.rpartition(".")[0])
    return f"{name} ({type(owner).__name__})"


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [t for v in value for t in _tensors(v)] if isinstance(value, list | tuple) else []


def _largest(t: Tensor) -> float:
    """The largest magnitude among the finite entries."""
    values = t.detach().double().abs()
    values = values[torch.isfinite(values)]
    return float(values.max()) if values.numel() else math.nan
