"""Pictures edited by their latents: interpolation, manifolds and attributes."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import ConfigError, InputError, ShapeError
from ..flow import Flow

Path = Literal["linear", "spherical"]


@torch.no_grad()
def interpolate(
    flow: Flow,
    first: Tensor,
    second: Tensor,
    steps: int = 9,
    *,
    path: Path = "spherical",
    context: Any = None,
) -> Tensor:
    """x_t = f^-1(z_t), [steps, *event_shape], t = 0, ..., 1, from one event to another.

    path: linear, z_t = (1 - t) z_0 + t z_1 (Kingma & Dhariwal, Glow, 2018, arXiv:1807.03039), whose middle is closer
    to zero than samples are; or spherical, whose direction turns evenly and whose norm goes evenly from |z_0| to |z_1|.
    Raises ShapeError or InputError for events that do not fit.
    """
    if path not in ("linear", "spherical"):
        raise ConfigError(f"path must be linear or spherical, got {path!r}")
    _check_steps(steps)
    z = _latents(flow, (first, second), context)
    t = torch.linspace(0, 1, steps, dtype=z.dtype, device=z.device)[:, None]
    mixed = (1 - t) * z[0] + t * z[1]
    if path == "spherical":
        norms = z.norm(dim=1, keepdim=True)
        u, v = z / norms.clamp(min=torch.finfo(z.dtype).tiny)
        angle = (u * v).sum().clamp(-1, 1).acos()
        turned = ((1 - t) * angle).sin() * u + (t * angle).sin() * v
        norm = (1 - t) * norms[0] + t * norms[1]
        # Along a line through zero there is no direction in between to prefer.
        mixed = torch.where(angle.sin() > 1e-4, norm * turned / angle.sin(), mixed)
    return _decode(flow, mixed, context)


@torch.no_grad()
def manifold(flow: Flow, corners: Any, steps: int = 8, *, context: Any = None) -> Tensor:
    """f^-1(cos a (cos b z_1 + sin b z_2) + sin a (cos b z_3 + sin b z_4)), [steps, steps, *event_shape].

    corners: four events; a (rows) and b (columns) go round the circle evenly, from 0. Dinh et al., Real NVP, 2016,
    arXiv:1605.08803, figure 6. Raises ShapeError or InputError for events that do not fit.
    """
    _check_steps(steps)
    if len(corners) != 4:
        raise InputError(f"a manifold has four corners, got {len(corners)} events")
    z = _latents(flow, tuple(corners), context)
    angle = torch.arange(steps, dtype=z.dtype, device=z.device) * (2 * math.pi / steps)
    turn = torch.stack((angle.cos(), angle.sin()), 1)
    weights = (turn[:, None, :, None] * turn[None, :, None, :]).flatten(2)
    x: Tensor = _decode(flow, (weights @ z).flatten(0, 1), context).unflatten(0, (steps, steps))
    return x


@torch.no_grad()
def attribute(flow: Flow, with_it: Tensor, without: Tensor, *, batch_size: int = 256) -> Tensor:
    """The direction mean z(x with the attribute) - mean z(x without), [latent size].

    with_it, without: events [n, *event_shape]. Kingma & Dhariwal, Glow, 2018, arXiv:1807.03039, section 5.
    Raises ShapeError or InputError for events that do not fit, or none.
    """
    if not len(with_it) or not len(without):
        raise InputError(
            "an attribute needs events with it and events without it, got none of one kind"
        )
    means = [flow.encode(x, batch_size=batch_size).flatten(1).mean(0) for x in (with_it, without)]
    return means[0] - means[1]


@torch.no_grad()
def shift(
    flow: Flow, x: Tensor, direction: Tensor, strengths: Any = (-1.0, -0.5, 0.0, 0.5, 1.0)
) -> Tensor:
    """f^-1(f(x) + s direction), [*batch, len(strengths), *event_shape], a direction of `attribute`.

    Raises ShapeError for a direction that is no latent.
    """
    size = math.prod(flow.latent_shape)
    if direction.shape != (size,):
        raise ShapeError(f"a direction has shape ({size},), got {tuple(direction.shape)}")
    z = flow.encode(x).reshape(*x.shape[: x.ndim - len(flow.event_shape)], 1, size)
    s = torch.as_tensor(strengths, dtype=z.dtype, device=z.device)[:, None]
    return flow.decode((z + s * direction).unflatten(-1, flow.latent_shape))


def _check_steps(steps: int) -> None:
    if steps < 2:
        raise InputError(f"steps must be 2 or more, got {steps}")


def _latents(flow: Flow, events: tuple[Any, ...], context: Any) -> Tensor:
    """[n, latent size]."""
    for x in events:
        if tuple(x.shape) != flow.event_shape:
            raise ShapeError(f"one event has shape {flow.event_shape}, got {tuple(x.shape)}")
    return flow.encode(torch.stack([torch.as_tensor(x) for x in events]), context).flatten(1)


def _decode(flow: Flow, z: Tensor, context: Any) -> Tensor:
    return flow.decode(z.unflatten(-1, flow.latent_shape), context)
