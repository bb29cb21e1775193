"""Flow: a transform on top of a distribution, the thing users hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .distributions import Distribution, StandardNormal
from .errors import ConfigError, DirectionError, DomainError, InputError, ShapeError
from .nets import Conditioner
from .nets.embedding import FromContext, resolve_context
from .parts import ContextShape, Part, Shape, refresh, register
from .properties import Kind, Properties
from .rows import broadcast, check_dtype, chunked, context_rows, expand, show
from .tracing import may_look
from .transforms import Chain, Level, Transform
from .transforms.base import Context, Noise, common_context_shape
from .transforms.reversible import Memory, run

if TYPE_CHECKING:
    from .freezing import FrozenFlow
    from .view import FlowDistribution


@register
class Flow(Part):
    """log p(x) = log p_base(f(x)) + log |det df/dx|, f a transform from data to latent.

    transform: a Transform. base: a distribution of the latent; N(0, I) if None. embedding: a network applied to each
    context row once; the parts then see its output. It is a Conditioner with that context, such as a DeepSet, or any
    module that takes the context as its one argument. `flow.memory = "reversible"`: from then on, backward recomputes
    the activations of log_prob through the inverse instead of storing them (see `diffeo.transforms.reversible.run`).

    Raises ShapeError, DomainError or ConfigError where the parts do not fit, and for a context that no part reads.
    """

    def __init__(
        self,
        transform: Transform,
        base: Distribution | None = None,
        *,
        embedding: nn.Module | None = None,
        context_shape: Any = None,
    ) -> None:
        super().__init__()
        if not isinstance(transform, Transform):
            raise ConfigError(f"a Flow takes a Transform, got {type(transform).__name__}")
        if base is None:
            base = StandardNormal(transform.latent_shape)
        if base.event_shape != transform.latent_shape:
            raise ShapeError(
                f"the base {type(base).__name__} is over {base.event_shape}, but {transform.name} gives "
                f"{transform.latent_shape}"
            )
        codomain = transform.properties.codomain
        if codomain is not None and not base.domain.within(codomain):
            raise DomainError(
                f"the base {type(base).__name__} draws from {base.domain}, but {transform.name} can only invert "
                f"{codomain}"
            )
        inner = common_context_shape(transform.context_shape, base.context_shape)
        self.context_shape: ContextShape
        self.context_shape, embedding = resolve_context(context_shape, embedding, inner)
        self.transform = transform
        self.base = base
        self.embedding = embedding
        self.provenance: dict[str, Any] = {}
        self.memory: Memory = "plain"

    # -- what it is ---------------------------------------------------------------------------------------------------

    @property
    def event_shape(self) -> Shape:
        """Shape of one example."""
        return self.transform.event_shape

    @property
    def event_size(self) -> int:
        """Number of entries of one example."""
        return math.prod(self.event_shape)

    @property
    def num_parameters(self) -> int:
        """Number of learned numbers."""
        return sum(p.numel() for p in self.parameters())

    @property
    def latent_shape(self) -> Shape:
        """Shape of the latent of one example."""
        return self.transform.latent_shape

    @property
    def properties(self) -> Properties:
        """The declared promises of the whole."""
        return self.transform.properties

    @property
    def likelihood(self) -> Kind:
        """`exact`, `estimate` (stochastic) or `bound` (a lower bound on log p of data)."""
        return self.properties.kind

    @property
    def levels(self) -> tuple[Level, ...]:
        """Per level, fine to coarse: its slice of the flat latent and its shape."""
        return self.transform.levels

    @property
    def discrete(self) -> bool:
        """Whether the data are integers, so that log_prob is of probabilities and not of densities."""
        return self.properties.measure == "counting"

    @property
    def dequantized(self) -> bool:
        """Whether the first layer adds noise: to integers, or to the columns of a table."""
        return any(part.dequantizes for part in self._parts[:1])

    @property
    def _parts(self) -> list[Transform]:
        return list(self.transform) if isinstance(self.transform, Chain) else [self.transform]

    @property
    def continuous(self) -> Flow:
        """The exact float flow under a dequantizer, sharing its weights; the flow itself otherwise."""
        if not self.dequantized:
            return self
        parts = self._parts
        if len(parts) < 2:
            raise ConfigError(
                "a flow over integers must be a Chain that starts with its dequantizer"
            )
        flow = Flow(
            Chain(parts[1].event_shape, parts[1:]),
            self.base,
            embedding=self.embedding,
            context_shape=self.context_shape,
        )
        flow.memory = self.memory
        return flow.train(self.training)

    @property
    def device(self) -> torch.device:
        return self.base.like.device

    @property
    def dtype(self) -> torch.dtype:
        return self.base.like.dtype

    # -- the numbers --------------------------------------------------------------------------------------------------

    def forward(
        self,
        x: Tensor,
        context: Context = None,
        *,
        batch_size: int | None = None,
        generator: torch.Generator | None = None,
        noise: Noise = None,
    ) -> Tensor:
        """`log_prob`, under the name that hooks, compilers and parallel wrappers call."""
        batch, rows, context = self._rows(x, context)
        if self.transform.stochastic and noise is None:
            noise = self.transform.draw(rows.shape[0], generator=generator, like=self.base.like)
        out = chunked(self._log_prob, rows.shape[0], batch_size, rows, context, noise)
        return out.reshape(batch)

    def log_prob(
        self,
        x: Tensor,
        context: Context = None,
        *,
        batch_size: int | None = None,
        generator: torch.Generator | None = None,
        noise: Noise = None,
    ) -> Tensor:
        """log p(x | context) in nats, in the units of the data; shape: the broadcast batch shape.

        x: [*batch, *event_shape]. context: [*batch, *context_shape], broadcast against it, or a dict of such; integers,
        such as one-hot labels, become numbers. For integer data it is the log-probability bound of one draw of the
        dequantization noise, taken under `generator`, or given as `noise`. batch_size: work in chunks of that many
        rows. Points outside the support get -inf.

        Raises ShapeError or InputError for an x or a context that does not fit.
        """
        out: Tensor = self(x, context, batch_size=batch_size, generator=generator, noise=noise)
        return out

    def _log_prob(self, x: Tensor, context: Context, noise: Noise) -> Tensor:
        z, ladj = self._forward(x, context, noise)
        base: Tensor = self.base.log_prob(z, context)
        return base + ladj

    def _forward(self, x: Tensor, context: Context, noise: Noise) -> tuple[Tensor, Tensor]:
        return run(self.memory, self.transform, x, context, noise)

    def encode(
        self, x: Tensor, context: Context = None, *, batch_size: int | None = None
    ) -> Tensor:
        """z = f(x), [*batch, *latent_shape]; integers are taken at the centre of their bin."""
        batch, rows, context = self._rows(x, context)
        noise = self.transform.draw(rows.shape[0], center=True, like=self.base.like)
        z = chunked(
            lambda x, c, n: self._forward(x, c, n)[0],
            rows.shape[0],
            batch_size,
            rows,
            context,
            noise,
        )
        return z.reshape(*batch, *self.latent_shape)

    def decode(
        self, z: Tensor, context: Context = None, *, batch_size: int | None = None
    ) -> Tensor:
        """x = f^-1(z), [*batch, *event_shape]; integers for integer data."""
        batch, rows, context = self._rows(z, context, latent=True)
        self._refresh()
        x = chunked(self.transform.decode, rows.shape[0], batch_size, rows, context)
        return x.reshape(*batch, *self.event_shape)

    @torch.no_grad()
    def sample(
        self,
        sample_shape: Sequence[int] | int = (),
        context: Context = None,
        temperature: float = 1.0,
        *,
        generator: torch.Generator | None = None,
        batch_size: int | None = None,
        batch_shape: Sequence[int] | None = None,
    ) -> Tensor:
        """Samples [*sample_shape, *batch, *event_shape], `batch` being that of the context (none: empty).

        temperature multiplies the latent's deviation from its mean. The context is embedded once per row. batch_shape:
        a larger batch, to which that of the context is broadcast.
        """
        if not temperature >= 0:
            raise InputError(f"temperature must be zero or more, got {temperature}")
        shape, n, context = self._sample_rows(sample_shape, context, batch_shape)
        self._refresh()
        z = self.base.sample(n, context, temperature=temperature, generator=generator)
        x = chunked(self.transform.decode, n, batch_size, z, context)
        return x.reshape(*shape, *self.event_shape)

    def rsample_and_log_prob(
        self,
        sample_shape: Sequence[int] | int = (),
        context: Context = None,
        *,
        generator: torch.Generator | None = None,
        batch_shape: Sequence[int] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """x with gradients to the parameters, and log q(x), from one pass of the inverse.

        Shapes [*sample_shape, *batch, *event_shape] and [*sample_shape, *batch]. Where the likelihood is an estimate,
        log q(x) is that of `log_prob` at x, with noise drawn after that of x. Raises DirectionError for integer data
        (use `flow.continuous`) and for bases whose samples have no gradient.
        """
        if self.dequantized:
            raise DirectionError(
                "samples of integers have no gradient: use flow.continuous.rsample_and_log_prob"
            )
        if not self.base.reparameterized:
            raise DirectionError(
                f"samples of a {type(self.base).__name__} have no gradient to its parameters: use sample and log_prob"
            )
        shape, n, context = self._sample_rows(sample_shape, context, batch_shape)
        self._refresh()
        z = self.base.sample(n, context, generator=generator)
        x, ladj = self.transform.inverse(z, context)
        if self.transform.stochastic:
            noise = self.transform.draw(n, generator=generator, like=self.base.like)
            log_q = self._log_prob(x, context, noise)
        else:
            log_q = self.base.log_prob(z, context) - ladj
        return x.reshape(*shape, *self.event_shape), log_q.reshape(shape)

    def bits_per_dim(
        self,
        x: Tensor,
        context: Context = None,
        *,
        batch_size: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """-log2 P(x) / D per example, for integer data; its kind is `flow.likelihood` (an upper bound for `bound`).

        Raises InputError for continuous data, whose densities have no bits.
        """
        if not self.discrete:
            raise InputError(
                "bits per dimension are for integer data, and this flow models real numbers: use log_prob"
            )
        log_prob = self.log_prob(x, context, batch_size=batch_size, generator=generator)
        return -log_prob / (self.event_size * math.log(2))

    def at(self, context: Context = None, *, validate_args: bool | None = None) -> FlowDistribution:
        """The flow at a context as a `torch.distributions.Distribution`, with the context's batch shape.

        validate_args: whether log_prob refuses values outside the support; as torch's default if None.
        """
        from .view import FlowDistribution

        return FlowDistribution(self, context, validate_args=validate_args)

    def check(self, x: Tensor, context: Context = None) -> None:
        """Raise ShapeError or InputError, in one sentence, if log_prob could not take x and context."""
        self._rows(x, context)

    def _refresh(self) -> None:
        """Before an iterative inverse that may look at values: state that follows the weights, up to these."""
        if self.properties.inverse == "iterative" and may_look():
            refresh(self)

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Context = None) -> None:
        """Data-dependent initialization from one named batch, layer by layer, once."""
        _, rows, context = self._rows(x, context)
        self.transform.initialize(rows, context)

    @property
    def initialized(self) -> bool:
        """Whether no layer waits for `initialize`."""
        flags = [b for name, b in self.named_buffers() if name.rsplit(".", 1)[-1] == "initialized"]
        return all(bool(flag) for flag in flags)

    def resized(self, event_shape: Sequence[int]) -> Flow:
        """The same convolutional model for images of another size, sharing its parameters.

        Raises ShapeError where the size does not divide, or a parameter depends on it.
        """
        from .resizing import resized

        return resized(self, event_shape)

    def frozen(self) -> FrozenFlow:
        """A fixed copy for sampling and scoring: the same numbers in eval mode, from weights without gradients.

        Runs of parts that are linear along the first axis, such as ActNorm and InvertibleConv1x1, become one matrix
        whose inverse and log|det| are computed once; weight-normalized kernels and those of Lipschitz networks become
        plain ones. Later changes of this flow do not reach the copy, which cannot be trained, saved or resized.
        `fast = flow.frozen()`, or `with flow.frozen() as fast:`.
        """
        from .freezing import frozen

        return frozen(self)

    # -- files --------------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> Path:
        """Write config.json, model.safetensors and README.md into a folder, atomically."""
        from .saving import save

        return save(self, folder)

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> Any:
        """The same files by the model hub's mixin; options: its own. See `diffeo.integrations.hub`."""
        from .integrations.hub import HubFlow

        return HubFlow(self).save_pretrained(save_directory, **options)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        local_files_only: bool = True,
        **options: Any,
    ) -> Flow:
        """A flow from a folder, or by its name on the model hub: nothing downloads unless local_files_only is False."""
        from .integrations.hub import HubFlow

        return HubFlow.from_pretrained(
            pretrained_model_name_or_path, local_files_only=local_files_only, **options
        )

    def config(self) -> dict[str, Any]:
        return {
            "transform": self.transform,
            "base": self.base,
            "embedding": self.embedding,
            "context_shape": self.context_shape,
        }

    # -- rows ---------------------------------------------------------------------------------------------------------

    def _rows(
        self, x: Tensor, context: Context, latent: bool = False
    ) -> tuple[Shape, Tensor, Context]:
        """The broadcast batch shape, x as [rows, *event], and the embedded context as rows."""
        event = self.latent_shape if latent else self.event_shape
        what = "latent" if latent else "event"
        if not isinstance(x, Tensor):
            raise InputError(f"expected a tensor [*batch, {show(event)}], got {type(x).__name__}")
        if x.ndim < len(event) or tuple(x.shape[x.ndim - len(event) :]) != event:
            raise ShapeError(
                f"expected a tensor whose last axes are the {what} shape {event}, got {tuple(x.shape)}"
            )
        check_dtype(x, self.dtype, integers=self.discrete and not latent)
        batch: Shape = tuple(x.shape[: x.ndim - len(event)])
        given, context = self._embed(context)
        if given != batch and context is not None:
            batch = broadcast(batch, given, f"{what}s")
            x = x.expand(*batch, *event)
        rows = x.reshape(-1, *event)
        return batch, rows, expand(context, given, batch)

    def _sample_rows(
        self,
        sample_shape: Sequence[int] | int,
        context: Context,
        batch_shape: Sequence[int] | None,
    ) -> tuple[Shape, int, Context]:
        samples = (sample_shape,) if isinstance(sample_shape, int) else tuple(sample_shape)
        batch, context = self._embed(context)
        shape = (*samples, *(batch if batch_shape is None else batch_shape))
        return shape, math.prod(shape), expand(context, batch, shape)

    def _embed(self, context: Context) -> tuple[Shape, Context]:
        """The batch shape of a context, and its rows, embedded."""
        if self.context_shape is None:
            if context is not None:
                raise InputError("this flow takes no context, but got one")
            return (), None
        batch, rows = self._context_rows(context)
        if self.embedding is not None:
            rows = self.embedding(rows)
        return batch, rows

    def _context_rows(self, context: Context) -> tuple[Shape, Any]:
        """The batch shape of a context, and its rows."""
        assert self.context_shape is not None
        net = self.embedding
        # A module of the user's own, such as nn.Embedding, may want integers.
        foreign = net is not None and not isinstance(net, Conditioner | FromContext)
        return context_rows(context, self.context_shape, None if foreign else self.dtype)
