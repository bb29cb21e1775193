"""Missing cells filled by draws from the model given the cells that are there.

The model's density is over the latents v of TypedColumns, where every cell is a few real numbers: a real cell that is
there fixes them, a level that is there confines them to its share, a missing cell leaves them free. Metropolis steps on
what is free leave p(v | cells) invariant, exactly, discrete cells included: no bound enters.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..columns import Column, Schema
from ..data.arrow_files import arrow_names, arrow_tables
from ..data.codec import absent, arrow_type, decode, encode, flat
from ..errors import DataError, InputError
from ..flow import Flow
from ..transforms import Chain
from ..transforms.typed_columns import TypedColumns
from .blocks import check_whole
from .outputs import check_not_input, check_suffix, replacing, table_output
from .synthesis import FORMATS, _schema

_LOG_ROOT = 0.5 * math.log(2 * math.pi)
_TARGET = 0.3  # share of accepted local moves that the scale aims at


@dataclass(frozen=True)
class Imputed:
    """What was filled: rows, of which so many had missing cells; the share of accepted moves."""

    path: Path
    rows: int
    filled: int
    accepted: float


@torch.no_grad()
def impute(
    flow: Flow,
    x: Tensor,
    missing: Tensor,
    context: Tensor | None = None,
    *,
    draws: int = 1,
    steps: int = 200,
    candidates: int = 16,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, float]:
    """Draws of events [draws, n, *event] whose missing cells are filled given the others, and the acceptance rate.

    flow: of a table (`tabular`). x: events [n, *event]; missing: [n, columns], True for a cell to be drawn, whose
    entries do not count; a value is drawn for it, never "missing". Every draw is its own chain: one of `candidates`
    starts, by weight, then `steps` sweeps of Metropolis moves (each missing cell drawn anew from its marginal, and all
    that is free moved a little, with a scale adapted in the first half). Raises InputError for another flow or shape.
    """
    layer, chain = _parts(flow)
    columns = layer.schema.events
    if missing.shape != (len(x), len(columns)):
        raise InputError(
            f"missing must be [rows, columns] = {(len(x), len(columns))}, got {tuple(missing.shape)}"
        )
    check_whole("draws", draws, 1)
    check_whole("steps", steps, 1)
    check_whole("candidates", candidates, 1)
    rest = (
        flow.continuous
        if layer.stochastic
        else Flow(chain, flow.base, embedding=flow.embedding, context_shape=flow.context_shape)
    )
    x, missing = (t.repeat(draws, *(1 for _ in t.shape[1:])) for t in (x, missing))
    given = None if context is None else context.repeat(draws, 1)
    target = _Target(layer, rest, x, missing, given)
    free = target.noise(generator)
    log_p = target(free)
    total = log_p - target.prior(free)
    for _ in range(candidates - 1):
        # One of all candidates so far, in proportion to p / q, by a running choice.
        other = target.noise(generator)
        found = target(other)
        weight = found - target.prior(other)
        total = torch.logaddexp(total, weight)
        swap = _uniform(log_p, generator).log() < weight - total
        free, log_p = torch.where(swap[:, None], other, free), torch.where(swap, found, log_p)
    scale = torch.full_like(log_p, 0.5)
    moved, tried = 0.0, 0
    for step in range(steps):
        for cells in target.cells:
            free, log_p, _ = target.anew(free, log_p, cells, generator)
        free, log_p, accepted = target.local(free, log_p, scale, generator)
        if step < steps // 2:
            rate = 1 / math.sqrt(step + 1)
            scale = (scale.log() + rate * (accepted.to(scale) - _TARGET)).exp().clamp(1e-4, 3.0)
        else:
            moved, tried = moved + float(accepted.double().mean()), tried + 1
    filled = target.events(free)
    return filled.reshape(draws, -1, *flow.event_shape), moved / max(1, tried)


def _uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.rand(like.shape, generator=generator, dtype=like.dtype, device=like.device)


def _parts(flow: Flow) -> tuple[TypedColumns, Chain]:
    chain = flow.transform
    if not isinstance(chain, Chain) or not isinstance(first := next(iter(chain)), TypedColumns):
        raise InputError("imputation is for models of tables: train tabular")
    parts = list(chain)
    return first, Chain(parts[1].event_shape, parts[1:])


class _Target:
    """log p of what is free, w [n, latents], all N(0, 1) if the columns were independent.

    A missing cell's latents are w; a level that is there has the noise Phi(w); a real cell that is there ignores w.
    """

    def __init__(
        self, layer: TypedColumns, rest: Flow, x: Tensor, missing: Tensor, context: Tensor | None
    ) -> None:
        self.layer, self.rest, self.context = layer, rest, context
        self.missing = missing
        self.x = x.clone()
        mask = torch.zeros(len(x), *layer.latent_shape, dtype=torch.bool, device=x.device)
        self.cells: list[slice] = []
        self.places: list[tuple[int, slice]] = []
        for i, (c, (entries, latents)) in enumerate(
            zip(layer.schema.events, layer.slices.values(), strict=True)
        ):
            gone = missing[:, i]
            value = slice(latents.start, latents.stop - c.flagged)
            self.places.append((entries.start, value))
            mask[:, value] = gone[:, None]
            # Entries in the support, so that the forward map is finite; the flag says that there is a value.
            self.x[:, entries.start] = torch.where(
                gone, x.new_tensor(c.filling), x[:, entries.start]
            )
            if c.flagged:
                self.x[:, entries.start + 1] = torch.where(
                    gone, x.new_zeros(()), x[:, entries.start + 1]
                )
            if bool(gone.any()) and value.stop > value.start:
                self.cells.append(value)
        self.mask = mask

    def noise(self, generator: torch.Generator | None) -> Tensor:
        """A start: all from N(0, 1)."""
        return torch.randn(
            self.mask.shape, generator=generator, dtype=self.x.dtype, device=self.x.device
        )

    def prior(self, w: Tensor) -> Tensor:
        """log N(w)."""
        return -(w.square() / 2 + _LOG_ROOT).sum(1)

    def latents(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """v, and log |dv/dw| of the cells that are there; -inf where a cell would be drawn as missing."""
        u = torch.special.ndtr(w)
        v, ladj = self.layer(self.x, None, u if self.layer.stochastic else None)
        for i, (c, coding) in enumerate(self.layer._pairs()):
            entry, value = self.places[i]
            gone = self.missing[:, i]
            # What stands in the place of a missing cell is no part of the row.
            own = coding.encode(self.x[:, entry], u[:, value])[1]
            ladj = torch.where(gone, ladj - own, ladj)
            if c.kind == "categorical" and c.missing:
                nothing = coding.decode(w[:, value])[0] == len(c.values)
                ladj = ladj.masked_fill(gone & nothing, -math.inf)
        return torch.where(self.mask, w, v), ladj

    def __call__(self, w: Tensor) -> Tensor:
        """log p up to a constant of the row."""
        v, ladj = self.latents(w)
        log_p = self.rest.log_prob(v, self.context)
        # Noise u = Phi(w) is uniform where w is N(0, 1).
        return log_p + ladj + self.prior(torch.where(self.mask, torch.zeros_like(w), w))

    def anew(
        self, w: Tensor, log_p: Tensor, cells: slice, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The latents of one column drawn from N(0, 1) where its cell is missing."""
        change = torch.zeros_like(self.mask)
        change[:, cells] = self.mask[:, cells]
        proposal = torch.where(change, self.noise(generator), w)
        found = self(proposal)
        log_ratio = found - log_p + self.prior(w) - self.prior(proposal)
        return self._accept(w, log_p, proposal, found, log_ratio, generator)

    def local(
        self, w: Tensor, log_p: Tensor, scale: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """All of w a little: a step that would leave N(0, 1) as it is, so that only the ratio to it counts."""
        shrink = (1 - scale.clamp(max=0.999).square()).sqrt()
        proposal = shrink[:, None] * w + scale.clamp(max=0.999)[:, None] * self.noise(generator)
        found = self(proposal)
        log_ratio = found - log_p + self.prior(w) - self.prior(proposal)
        return self._accept(w, log_p, proposal, found, log_ratio, generator)

    def _accept(
        self,
        w: Tensor,
        log_p: Tensor,
        proposal: Tensor,
        found: Tensor,
        log_ratio: Tensor,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        yes = _uniform(log_p, generator).log() < log_ratio
        return torch.where(yes[:, None], proposal, w), torch.where(yes, found, log_p), yes

    def events(self, w: Tensor) -> Tensor:
        """The events, missing cells filled and the others as they were."""
        v, _ = self.latents(w)
        drawn, _ = self.layer.inverse(v)
        out = self.x.clone()
        for i, (entry, _) in enumerate(self.places):
            out[:, entry] = torch.where(self.missing[:, i], drawn[:, entry], out[:, entry])
        return out


def impute_table(
    flow: Flow,
    table: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    draws: int = 1,
    steps: int = 200,
    seed: int = 0,
    batch_size: int = 1000,
    progress: Callable[[int, int | None], None] | None = None,
) -> Imputed:
    """Write a table with its missing cells filled, `draws` times; columns that the model does not know are copied.

    With more than one draw each row comes `draws` times, one after the other, behind a first column `draw`. The given
    columns of a conditional model must be there. See `impute`. Raises InputError or DataError.
    """
    import pyarrow

    path, source, schema = Path(out), Path(table).expanduser(), _schema(flow)
    check_suffix(path, FORMATS, "filled tables")
    check_not_input(path, source)
    check_whole("seed", seed, 0)
    check_whole("batch_size", batch_size, 1)
    check_whole("draws", draws, 1)
    names = arrow_names(source)
    for name in schema.names:
        if name not in names:
            raise DataError(
                f"{source} has no column {name!r}, which the model has; give it empty cells"
            )
    flow.eval()
    generator = torch.Generator(flow.device).manual_seed(seed)
    rows = filled = 0
    moves: list[float] = []
    with replacing(path) as temporary, table_output(temporary) as write:
        for piece in arrow_tables(source, None, batch_size):
            made, gone, accepted = _fill(
                flow, schema, piece, rows, str(source), draws, steps, generator
            )
            moves += accepted
            filled += gone
            rows += len(piece)
            whole = pyarrow.concat_tables(made)
            if draws > 1:
                # Draws of a row together.
                order = torch.arange(len(whole)).reshape(draws, -1).T.reshape(-1)
                number = torch.arange(draws).repeat(len(piece))
                whole = whole.take(order.numpy()).add_column(
                    0, "draw", pyarrow.array(number.numpy())
                )
            write(whole)
            if progress is not None:
                progress(rows, None)
        if not rows:
            raise DataError(f"{source} holds no row")
    return Imputed(path, rows, filled, sum(moves) / max(1, len(moves)))


def _fill(
    flow: Flow,
    schema: Schema,
    piece: Any,
    row: int,
    name: str,
    draws: int,
    steps: int,
    generator: torch.Generator,
) -> tuple[list[Any], int, list[float]]:
    """A piece of the table filled, once for each draw; how many of its rows had missing cells."""
    import pyarrow
    from pyarrow import compute

    whole, gone = piece, []
    for c in schema.events:
        array = flat(piece.column(c.name))
        empty = absent(array)
        gone.append(torch.from_numpy(empty.copy()))
        array = compute.if_else(pyarrow.array(empty), _placeholder(c, array.type), array)
        whole = whole.set_column(whole.column_names.index(c.name), c.name, array)
    missing = torch.stack(gone, 1)
    entries = torch.from_numpy(encode(whole, schema, row=row, name=name)).to(
        flow.device, flow.dtype
    )
    width = schema.event_shape[0]
    x, context = entries[:, :width], entries[:, width:] if schema.given else None
    some = missing.any(1).nonzero().flatten().to(flow.device)
    result, accepted = x.expand(draws, *x.shape).clone(), []
    if len(some):
        drawn, share = impute(
            flow,
            x[some],
            missing[some.cpu()].to(flow.device),
            None if context is None else context[some],
            draws=draws,
            steps=steps,
            generator=generator,
        )
        result[:, some] = drawn
        accepted.append(share)
    made = []
    for one in result:
        given = None if context is None else context.cpu().double().numpy()
        table = decode(one.cpu().double().numpy(), schema, given)
        made.append(_merged(piece, table, schema, missing))
    return made, len(some), accepted


def _merged(piece: Any, filled: Any, schema: Schema, missing: Tensor) -> Any:
    """The cells of the file where they are there, in the schema's types, and the drawn ones elsewhere."""
    import pyarrow
    from pyarrow import compute

    out = piece
    for i, c in enumerate(schema.events):
        kind = arrow_type(c.type)
        array = flat(piece.column(c.name))
        gone = pyarrow.array(missing[:, i].numpy())
        kept = compute.if_else(gone, pyarrow.scalar(None, array.type), array)
        if kept.type != kind:
            # A csv's cells are text.
            try:
                kept = compute.utf8_trim_whitespace(kept).cast(kind)
            except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError):
                kept = flat(filled.column(c.name))
        cells = compute.if_else(gone, flat(filled.column(c.name)), kept)
        out = out.set_column(out.column_names.index(c.name), c.name, cells)
    return out


def _placeholder(c: Column, kind: Any) -> Any:
    """A value of the column as a scalar of an Arrow type."""
    import numpy as np
    import pyarrow

    entries = [[c.filling, 0.0][: c.width]]
    value = decode(np.array(entries), Schema((c,))).column(c.name)[0]
    if pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind):
        return pyarrow.scalar(str(value.cast(pyarrow.string())), kind)
    return value.cast(kind)
