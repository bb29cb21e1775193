"""The same convolutional model for images of another size: new shapes, shared weights."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from .errors import DiffeoError, ShapeError
from .flow import Flow
from .nets.pyramid import Pyramid
from .parts import Shape, as_shape, describe
from .variants import variant

SHAPES = ("event_shape", "in_shape", "out_shape")


def resized(flow: Flow, event_shape: Sequence[int]) -> Flow:
    """A flow over images [C, H', W'] that shares the parameters of one over [C, H, W].

    Raises ShapeError for other channels, for sizes that the squeezes do not divide, and, by name, for a parameter whose
    shape depends on the size of the image.
    """
    old, new = flow.event_shape, as_shape(event_shape)
    if len(old) != 3 or len(new) != 3 or old[0] != new[0]:
        raise ShapeError(
            f"cannot resize events {old} to {new}: only the height and width of images change"
        )
    ratio = (Fraction(new[1], old[1]), Fraction(new[2], old[2]))
    tree = describe(flow)
    pyramid = isinstance(flow.embedding, Pyramid)
    if pyramid:
        tree["embedding"] = _pictures(tree["embedding"], ratio)
        tree["context_shape"] = _image(tree["context_shape"], ratio)
    elif tree.get("embedding") is None:
        # The context of a flow is a picture where it is one for the first layer that reads it.
        whole = _scaled({"event_shape": list(old), "context_shape": tree["context_shape"]}, ratio)
        tree["context_shape"] = whole["context_shape"]
    tree["transform"] = _scaled(tree["transform"], ratio, pyramid)
    tree["base"] = tree["base"] | {"event_shape": _vector(tree["base"]["event_shape"], ratio)}
    try:
        return variant(flow, tree)
    except DiffeoError as error:
        raise ShapeError(f"this model cannot be resized to {new}: {error}") from error


def _scaled(tree: Any, ratio: tuple[Fraction, Fraction], pyramid: bool = False) -> Any:
    """A configuration at the other size; pyramid: a dict of contexts holds pictures."""
    if isinstance(tree, list):
        return [_scaled(v, ratio, pyramid) for v in tree]
    if not isinstance(tree, dict):
        return tree
    shapes = (*SHAPES, "context_shape") if pyramid or _context_is_picture(tree) else SHAPES
    return {
        k: _pictures(v, ratio) if k in shapes else _scaled(v, ratio, pyramid)
        for k, v in tree.items()
    }


def _pictures(tree: Any, ratio: tuple[Fraction, Fraction]) -> Any:
    """Shapes of pictures, and dicts of them, at the other size."""
    if isinstance(tree, dict):
        return {k: _pictures(v, ratio) for k, v in tree.items()}
    return _image(tree, ratio) if isinstance(tree, list) else tree


def _context_is_picture(tree: dict[str, Any]) -> bool:
    """Whether the context of a layer or network is one that `ContextMap` convolves: [k, a H, b W] beside [C, H, W]."""
    size = (tree.get("event_shape") or tree.get("in_shape") or [])[1:3]
    context = tree.get("context_shape")
    if not isinstance(context, list) or len(context) != 3 or len(size) != 2 or 0 in size:
        return False
    return all(m and m % n == 0 for n, m in zip(size, context[1:], strict=True))


def _image(shape: list[int], ratio: tuple[Fraction, Fraction]) -> list[int]:
    if len(shape) < 3:
        return shape
    h, w = shape[1] * ratio[0], shape[2] * ratio[1]
    if h.denominator != 1 or w.denominator != 1:
        raise ShapeError(
            f"an inner layer of {tuple(shape)} would have height {h} and width {w}: choose sizes that the squeezes "
            "divide"
        )
    return [shape[0], int(h), int(w), *shape[3:]]


def _vector(shape: Shape, ratio: tuple[Fraction, Fraction]) -> list[int]:
    if len(shape) != 1:
        return _image(list(shape), ratio)
    return [int(shape[0] * ratio[0] * ratio[1])]
