"""Files of mixed columns as a data set: a schema, then rows of numbers in three parts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from ..columns import Column, Schema
from ..columns import schema as as_schema
from ..errors import ConfigError, DataError
from .arrow_files import arrow_tables, check_typed
from .cache import build_once, cache_path
from .codec import encode
from .inference import infer
from .parts import Parts, Source, is_large, make_parts, open_parts
from .schema import Data
from .split import PARTS
from .table import Block, Table

BUILTIN = ("adult",)
"""Folders of $DIFFEO_DATA with train.parquet and test.parquet."""


def located(source: str) -> tuple[Path, Path | None]:
    """The file of a source and, of a built-in one, that of its test part. Raises DataError."""
    if source not in BUILTIN:
        return check_typed(Path(source).expanduser()), None
    folder = Path(os.environ.get("DIFFEO_DATA") or "../shared/data") / source
    if not folder.is_dir():
        raise DataError(
            f"the data set {source!r} needs the folder {folder}, which is not there; set DIFFEO_DATA to the "
            f"folder that holds {source}."
        )
    return folder / "train.parquet", folder / "test.parquet"


def schema_of(
    source: str,
    declared: Mapping[str, Any] | None = None,
    *,
    columns: tuple[str, ...] | None = None,
    given: tuple[str, ...] = (),
) -> tuple[Schema, dict[str, str]]:
    """The schema of a file, and remarks by column: declared where that is complete, else inferred (see `infer`)."""
    known = dict(declared or {})
    if known.get("complete"):
        return as_schema({k: v for k, v in known.items() if k != "complete"}), {}
    if isinstance(known.get("columns"), Mapping):
        given = given or tuple(known.get("given", ()))
        known = dict(known["columns"])
    path, _ = located(source)
    return infer(path, known, columns=columns, given=given)


def load_typed(
    source: str,
    schema: Schema,
    *,
    validation: str | None = None,
    test: str | None = None,
    seed: int = 0,
    split: tuple[float, float, float] = (0.8, 0.1, 0.1),
) -> Data:
    """The rows of a .csv or .parquet file as events of a schema; what is given of each is in `Data.contexts`.

    Read once, in blocks; large files are kept in the cache and memory-mapped. Raises DataError for a cell that the
    schema does not allow.
    """
    path, own_test = located(source)
    paths = {"train": path}
    for part, given in (("validation", validation), ("test", test)):
        if given is not None:
            paths[part] = check_typed(Path(given).expanduser())
        elif part == "test" and own_test is not None:
            paths[part] = own_test
    name = " and ".join(dict.fromkeys(str(p) for p in paths.values()))
    tables = {part: typed_table(p, schema) for part, p in paths.items()}
    opened = Source(name, tables, typed=True)

    def parts(folder: Path | None = None) -> Parts:
        return make_parts(opened, seed=seed, split=split, levels=None, bits=None, folder=folder)

    def build(folder: Path) -> None:
        parts(folder)

    if is_large(opened, None):
        states = [
            [str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns] for p in paths.values()
        ]
        folder = cache_path(path.stem, [schema.plain(), states, list(paths), seed, list(split)])
        if not folder.is_dir():
            build_once(folder, build)
        made = open_parts(folder)
    else:
        made = parts()
    width = schema.event_shape[0]
    rows = [torch.from_numpy(made.rows[part]) for part in PARTS]
    contexts = [r[:, width:] for r in rows] if schema.given else None
    return Data(
        name=source if source in BUILTIN else path.stem,
        train=rows[0][:, :width],
        validation=rows[1][:, :width],
        test=rows[2][:, :width],
        levels=None,
        columns=schema.entries,
        labels=None,
        density=None,
        source="; ".join([name, *made.notes]),
        contexts=None if contexts is None else (contexts[0], contexts[1], contexts[2]),
        schema=schema,
    )


def typed_table(path: Path, schema: Schema, *, strict: bool = True) -> Table:
    """A file as rows of entries: those of the event, then those of the conditions. strict: as for `encode`."""
    check_typed(path)

    def blocks(start: int, size: int) -> Iterator[Block]:
        row = start
        for table in arrow_tables(path, schema.names, size, start):
            yield Block(encode(table, schema, row=row, name=str(path), strict=strict))
            row += len(table)

    width = schema.event_shape[0] + (schema.context_shape or (0,))[0]
    return Table(path, _entries(schema), None, (width,), True, blocks)


def _entries(schema: Schema) -> tuple[str, ...]:
    columns: tuple[Column, ...] = (*schema.events, *schema.conditions)
    return tuple(n for c in columns for n in (c.name, f"{c.name} is missing")[: c.width])


def read_declared(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A schema file: YAML, a mapping from names to kinds or to mappings. Raises ConfigError."""
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise ConfigError(f"cannot read the schema {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the schema {path} is no YAML: {' '.join(str(error).split())}"
        ) from error
    if not isinstance(values, dict):
        raise ConfigError(f"the schema {path} must be a mapping from column names to kinds")
    return values
