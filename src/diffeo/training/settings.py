"""The settings of one training run, checked where the user's values enter."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import ConfigError


class TrainingSettings(BaseModel):
    """How to train; the budget is whichever of epochs, steps and minutes ends first (100 epochs if none is given)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    objective: Literal["maximum_likelihood", "flow_matching"] | None = Field(
        None, description="None: what the card of the model says"
    )
    path: Literal["linear", "variance_preserving"] = Field(
        "linear", description="of flow_matching, from data to noise"
    )
    coupling: Literal["independent", "optimal"] = Field(
        "independent",
        description="of flow_matching: which noise goes with which example of a batch",
    )
    epochs: int | None = Field(None, ge=1)
    steps: int | None = Field(None, ge=1)
    minutes: float | None = Field(None, gt=0)
    batch_size: int = Field(128, ge=1, description="examples per step, over all processes")
    lr: float = Field(1e-3, gt=0)
    warmup: int = Field(100, ge=0, description="steps over which the learning rate rises from zero")
    schedule: Literal["cosine", "constant", "exponential"] = "cosine"
    decay: float = Field(1.0, gt=0, le=1, description="per step, of the exponential schedule")
    final: float = Field(0.0, ge=0, le=1, description="share of lr below which it does not fall")
    betas: tuple[float, float] = Field((0.9, 0.999), description="of the Adam optimizer")
    eps: float = Field(1e-8, gt=0, description="of the Adam optimizer")
    weight_decay: float = Field(0.0, ge=0, description="of weight matrices only, decoupled")
    clip: float | None = Field(100.0, gt=0, description="largest norm of the gradient")
    ema: float | None = Field(
        None, gt=0, lt=1, description="decay of the moving average of weights"
    )
    patience: int | None = Field(
        None, ge=1, description="validations without improvement before stopping"
    )
    validate_every: int | None = Field(
        None, ge=1, description="steps; None: an epoch, but at least 100 steps"
    )
    validate_rows: int | None = Field(
        None, ge=1, description="first rows of the validation part, seen each time; None: all"
    )
    initialize_rows: int | None = Field(
        None,
        ge=1,
        description="rows for data-dependent initialization; None: 4096, of images 256",
    )
    seed: int = Field(0, ge=0)
    device: Literal["cpu", "cuda", "mps", "auto"] = "cpu"
    devices: int | None = Field(
        None, ge=1, description="processes per machine; None: 1, or as torchrun says"
    )
    num_nodes: int | None = Field(None, ge=1, description="machines; None: 1, or as torchrun says")
    strategy: str = Field("auto", description="Lightning's name: auto, ddp, fsdp, ...")
    threads: int | None = Field(
        None,
        ge=1,
        description="of the CPU; None: as torch chooses. Small networks are faster on one",
    )
    precision: Literal["32", "bf16"] = "32"
    compile: Literal["off", "on", "auto"] = "off"
    memory: Literal["plain", "checkpoint", "reversible"] | None = Field(
        None,
        description="what backward stores: all, each layer's input, or nothing that the inverse brings back; "
        "None: as flow.memory says",
    )
    checkpoint_minutes: float | None = Field(
        1.0, gt=0, description="wall time between two checkpoints"
    )
    checkpoint_steps: int | None = Field(None, ge=1, description="steps between two checkpoints")
    loggers: tuple[str | dict[str, dict[str, Any] | None], ...] = Field(
        (), description="csv (always there), tensorboard, or {class path: arguments}"
    )

    def budget(self) -> TrainingSettings:
        """These settings with the default budget filled in."""
        if self.epochs is None and self.steps is None and self.minutes is None:
            return self.model_copy(update={"epochs": 100})
        return self


def checked(model: type[BaseModel], values: Mapping[str, Any], what: str) -> Any:
    """Settings from plain values. Raises ConfigError in one sentence, with the nearest name for a misspelt key."""
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(p) for p in first["loc"])
        if first["type"] == "extra_forbidden":
            known = _fields(model, first["loc"][:-1])
            close = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
            hint = f", did you mean {close[0]!r}?" if close else ""
            raise ConfigError(
                f"{what} has no setting {place!r}{hint}; known: {', '.join(known)}"
            ) from error
        given = first.get("input")
        raise ConfigError(f"{what}: {place} = {given!r}: {first['msg'].lower()}") from error


def _fields(model: Any, path: tuple[int | str, ...]) -> list[str]:
    for name in path:
        field = getattr(model, "model_fields", {}).get(str(name))
        model = field.annotation if field is not None else None
    return list(getattr(model, "model_fields", {}))
