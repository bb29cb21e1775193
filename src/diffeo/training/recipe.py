"""Recipes: everything that a run depends on, as YAML, checked before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from ..data.given import Given
from ..errors import ConfigError
from .settings import TrainingSettings, checked


class DataSettings(BaseModel):
    """Where the data comes from and how it is split: the arguments of `diffeo.data.load`, checked there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(description="a built-in name, a file, or a folder of pictures")
    validation: str | None = Field(None, description="a file of its own, not drawn from source")
    test: str | None = Field(None, description="a file of its own, not drawn from source")
    seed: int = 0
    split: tuple[float, float, float] = Field(
        (0.8, 0.1, 0.1), description="of a file: fractions for train, validation, test"
    )
    levels: int | None = Field(None, ge=2, description="of integer data in a file")
    bits: int | None = Field(None, ge=1, le=8, description="how many of 8 bits to keep")
    columns: tuple[str, ...] | None = Field(None, description="of a table, to use in this order")
    image_size: int | tuple[int, int] | None = Field(None, description="height and width")
    fit: Literal["resize", "crop"] = Field("resize", description="how pictures get image_size")
    channels: Literal[1, 3] | None = Field(None, description="None: as the pictures")
    alphabet: str | None = Field(None, description="characters of strings; None: as in source")
    length: int | None = Field(None, ge=1, description="of the longest string; None: as in source")
    size: int = Field(20000, ge=10, description="training points of a built-in density")
    given: Given | None = Field(None, description="of pictures: what the model is given of each")
    kinds: dict[str, Any] | None = Field(
        None, description="of tabular's columns, by name; what is not said is inferred"
    )
    conditions: tuple[str, ...] | None = Field(None, description="columns that tabular is given")


class Recipe(BaseModel):
    """A model, its data and its training."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    size: Literal["tiny", "small", "paper"] = "small"
    hyper: dict[str, Any] = Field(default_factory=dict)
    data: DataSettings
    training: TrainingSettings = Field(default_factory=lambda: TrainingSettings())
    start: str | None = Field(
        None, description="a run folder whose model and weights to start from"
    )
    description: str = ""

    def to_yaml(self) -> str:
        """The recipe as a file."""
        text: str = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
        return text


def recipe(values: Mapping[str, Any]) -> Recipe:
    """A checked recipe from plain values. Raises ConfigError."""
    made: Recipe = checked(Recipe, dict(values), "the recipe")
    return made


def read_recipe(path: str | Path) -> dict[str, Any]:
    """The plain values of a YAML file. Raises ConfigError if it is missing or no mapping."""
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"cannot read the recipe {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the recipe {path} is no YAML: {' '.join(str(error).split())}"
        ) from error
    if not isinstance(values, dict):
        raise ConfigError(f"the recipe {path} must be a mapping with model, data and training")
    return values


def override(values: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    """Values with `key.key=value` assignments applied; values are read as YAML. Raises ConfigError."""
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"expected key=value, got {text!r}")
        *path, last = key.split(".")
        place = values
        for name in path:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{name} in {text!r} is no group of settings")
        try:
            place[last] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"cannot read the value of {text!r}") from error
    return values
