"""The registry of published models: a card and a function each."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_type_hints

from ..errors import ConfigError, DiffeoError, ShapeError
from ..flow import Flow
from ..nets import Conditioner
from ..parts import Shape, as_shape, describe

Size = Literal["tiny", "small", "paper"]
Builder = Callable[..., Flow]
Embedding = Conditioner | Callable[..., Conditioner]


@dataclass(frozen=True)
class Card:
    """A published model: where it comes from, what it models, and what its likelihood is for `event_shape`."""

    name: str
    title: str
    authors: str
    year: int
    arxiv: str
    domain: Literal["vector", "image", "audio", "series", "text"]
    likelihood: Literal["exact", "estimate", "bound"]
    event_shape: Shape
    description: str = ""
    notes: str = ""
    objective: Literal["maximum_likelihood", "flow_matching"] = "maximum_likelihood"

    @property
    def citation(self) -> str:
        """One line to cite."""
        return f"{self.authors}. {self.title}. {self.year}. arXiv:{self.arxiv}"


_CARDS: dict[str, Card] = {}
_BUILDERS: dict[str, Builder] = {}


def model(card: Card, sizes: dict[str, dict[str, Any]]) -> Callable[[Builder], Builder]:
    """Decorator: registers a function `(event_shape, context_shape, **hyper) -> Flow` as a model of the zoo.

    sizes: for each of tiny, small and paper, the settings that differ from the function's defaults.
    """

    def decorate(assemble: Builder) -> Builder:
        def build_model(
            event_shape: Sequence[int],
            context_shape: Any = None,
            size: str = "small",
            *,
            embedding: Embedding | None = None,
            **hyper: Any,
        ) -> Flow:
            if size not in sizes:
                raise ConfigError(f"size must be {', '.join(sizes)}, got {size!r}")
            shape = as_shape(event_shape)
            if 0 in shape:
                raise ShapeError(f"{card.name} needs an event with entries, got {shape}")
            settings = sizes[size] | _checked(card.name, assemble, hyper)
            net = None if embedding is None else _embedding(embedding, context_shape)
            seen = context_shape if net is None else net.out_shape
            try:
                flow = assemble(shape, seen, **settings)
            except DiffeoError:
                raise
            except ValueError as error:
                # A sentence of torch about a value, such as a probability.
                raise ConfigError(f"{card.name}: {error}") from error
            if net is not None:
                flow = Flow(flow.transform, flow.base, embedding=net, context_shape=context_shape)
            flow.provenance = {
                "name": card.name,
                "title": card.title,
                "citation": card.citation,
                "size": size,
                "hyper": {k: describe(v) for k, v in settings.items() if _plain(v)},
            }
            return flow

        build_model.__name__ = card.name
        build_model.__qualname__ = card.name
        build_model.__module__ = assemble.__module__
        build_model.__doc__ = assemble.__doc__
        _CARDS[card.name] = card
        _BUILDERS[card.name] = build_model
        return build_model

    return decorate


def names() -> tuple[str, ...]:
    """The published models.

    >>> "realnvp" in names()
    True
    """
    return tuple(sorted(_CARDS))


def card(name: str) -> Card:
    """The card of a model. Raises ConfigError for an unknown name."""
    return _CARDS[_known(name)]


def build(
    name: str,
    event_shape: Sequence[int],
    context_shape: Any = None,
    size: str = "small",
    *,
    embedding: Embedding | None = None,
    **hyper: Any,
) -> Flow:
    """Build a model: size is `tiny` (tests), `small` (a laptop's CPU) or `paper` (the publication's settings).

    embedding: a Conditioner of the context, or a callable `(in_shape, context_shape=) -> Conditioner`, such as
    `functools.partial(nets.DeepSet, out_shape=(16,))`; the layers then see its output, trained with them.

    Raises ConfigError for an unknown name, size or setting, ShapeError where the model cannot take the shape.

    >>> build("realnvp", (2,), size="tiny").event_shape
    (2,)
    """
    return _BUILDERS[_known(name)](event_shape, context_shape, size, embedding=embedding, **hyper)


def _embedding(embedding: Embedding, context_shape: Any) -> Conditioner:
    if context_shape is None:
        raise ConfigError("an embedding needs the context_shape that it reads")
    if not isinstance(embedding, Conditioner):
        try:
            embedding = embedding((0,), context_shape=context_shape)
        except TypeError as error:
            raise ConfigError(
                f"cannot make the embedding ({error}): give a Conditioner, or for example "
                "partial(nets.DeepSet, out_shape=(16,))"
            ) from error
    if not isinstance(embedding, Conditioner):
        raise ConfigError(f"an embedding must be a Conditioner, got {type(embedding).__name__}")
    return embedding


def _known(name: str) -> str:
    if name not in _CARDS:
        close = difflib.get_close_matches(str(name), _CARDS, n=1)
        hint = f", did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"there is no model {name!r}{hint}; the models are {', '.join(names())}")
    return name


def _checked(name: str, assemble: Builder, hyper: dict[str, Any]) -> dict[str, Any]:
    """Settings of the annotated types, as a file or a command line may give them: "1e-6" is a number, [64] a tuple.

    Raises ConfigError for the first one that is unknown or of another type.
    """
    if not hyper:
        return hyper
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    known = list(inspect.signature(assemble).parameters)[2:]
    types = get_type_hints(assemble)
    out = dict(hyper)
    for key, value in hyper.items():
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f", did you mean {close[0]!r}?" if close else ""
            raise ConfigError(
                f"{name} has no setting {key!r}{hint}; its settings are {', '.join(known)}"
            )
        if _plain(value):
            expected = TypeAdapter(types[key], config=ConfigDict(arbitrary_types_allowed=True))
            try:
                out[key] = expected.validate_python(value)
            except ValidationError as error:
                complaint = error.errors()[0]["msg"].lower()
                raise ConfigError(f"{name}: {key} = {value!r}: {complaint}") from error
    return out


def _plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_plain(v) for v in value)
    return value is None or isinstance(value, bool | int | float | str)
