"""Files and folders of pictures as a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..errors import DataError, InputError
from .cache import build_once, cache_path
from .checks import check_number
from .images import class_names, image_table, picture_files
from .parts import Parts, Source, is_large, make_parts, open_parts
from .readers import listed, main_array, read_npz
from .schema import Data
from .split import PARTS
from .stream import check_file, read_table, with_columns
from .strings import check_alphabet, is_text, strings_of, text_table
from .table import Table, array_table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[Any]

_ALIASES = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class Options:
    """How files are read and split; `diffeo.data.load` explains them."""

    seed: int
    split: tuple[float, float, float]
    levels: int | None
    columns: tuple[str, ...] | None
    image_size: tuple[int, int] | None
    fit: str
    channels: int | None
    bits: int | None
    alphabet: str | None = None
    length: int | None = None


def with_strings(options: Options, alphabet: str | None, length: int | None) -> Options:
    """The options with those of strings, checked. Raises InputError or ConfigError."""
    if alphabet is not None:
        check_alphabet(alphabet)
    if length is not None:
        check_number("length", length, 1)
    return replace(options, alphabet=alphabet, length=length)


def load_files(paths: dict[str, Path], options: Options) -> Data:
    """The data set of a file or folder for training and perhaps others for validation and test. Raises DataError."""
    paths = _given_parts(paths)
    name = " and ".join(dict.fromkeys(str(path) for path in paths.values()))
    files = {part: _files(path) for part, path in paths.items()}
    options = _of_strings(name, paths["train"], options)
    for part, path in paths.items():
        if part != "train" and path.resolve() == paths["train"].resolve():
            raise DataError(f"{path} is given for train and for {part}, expected different data.")
    key = [vars(options), [[part, [_state(f) for f in found]] for part, found in files.items()]]
    folder = cache_path(paths["train"].stem, key)
    if folder.is_dir():
        return _data(paths["train"].stem, name, open_parts(folder), options.alphabet)
    source = _open(name, paths, files, options)
    _agree(source)

    def parts(folder: Path | None = None) -> Parts:
        return make_parts(
            source,
            seed=options.seed,
            split=options.split,
            levels=options.levels,
            bits=options.bits,
            folder=folder,
        )

    if not is_large(source, options.levels):
        return _data(paths["train"].stem, name, parts(), options.alphabet)

    def build(folder: Path) -> None:
        parts(folder)

    build_once(folder, build)
    return _data(paths["train"].stem, name, open_parts(folder), options.alphabet)


def _of_strings(name: str, train: Path, options: Options) -> Options:
    """The options with the alphabet and the length of the strings in a text file, found there if not given."""
    if is_text(train):
        strings = strings_of(train, options.alphabet, options.length)
        if options.levels not in (None, strings.levels):
            raise InputError(
                f"{name} holds strings of {len(strings.alphabet)} characters, so it has {strings.levels} levels, got "
                f"levels = {options.levels}: leave levels out."
            )
        if options.columns is not None or options.bits is not None:
            option = "bits" if options.columns is None else "columns"
            raise InputError(f"{option} is not for strings, and {name} holds strings.")
        return replace(options, alphabet=strings.alphabet, length=strings.length, levels=None)
    if options.alphabet is not None or options.length is not None:
        option = "length" if options.alphabet is None else "alphabet"
        raise InputError(f"{option} is for strings in a .txt or .txt.gz file, {name} is none.")
    return options


def _given_parts(paths: dict[str, Path]) -> dict[str, Path]:
    """A folder of pictures may hold its parts: the subfolders train and test, perhaps validation or val."""
    folder = paths["train"]
    if len(paths) > 1 or not (folder / "train").is_dir():
        return paths
    return {part: folder / name for name, part in _ALIASES.items() if (folder / name).is_dir()}


def _files(path: Path) -> list[Path]:
    return picture_files(path) if path.is_dir() else [check_file(path)]


def _state(path: Path) -> list[Any]:
    status = path.stat()
    return [str(path.resolve()), status.st_size, status.st_mtime_ns]


def _open(
    name: str, paths: dict[str, Path], files: dict[str, list[Path]], options: Options
) -> Source:
    if paths["train"].is_dir():
        return _pictures(name, paths, files, options)
    if options.image_size is not None or options.channels is not None:
        option = "channels" if options.image_size is None else "image_size"
        raise InputError(f"{option} is for folders of pictures, {name} is a file.")
    if is_text(paths["train"]):
        strings = strings_of(paths["train"], options.alphabet, options.length)
        note = f"strings of at most {strings.length} of {len(strings.alphabet)} characters"
        texts = {part: text_table(path, strings) for part, path in paths.items()}
        return Source(name, texts, notes=[note])
    if len(paths) == 1 and paths["train"].suffix.lower() == ".npz":
        return _archive(name, paths["train"], options.columns)
    tables = {"train": read_table(paths["train"], options.columns)}
    for part, path in paths.items():
        if part != "train":
            tables[part] = read_table(path, tables["train"].columns)
    return Source(name, tables)


def _archive(name: str, path: Path, columns: tuple[str, ...] | None) -> Source:
    arrays = read_npz(path)
    if "train" in arrays:
        tables = {
            _ALIASES[key]: with_columns(array_table(path, value, f"{path} ({key})"), columns)
            for key, value in arrays.items()
            if key in _ALIASES
        }
        return Source(name, tables)
    key = main_array(path, arrays)
    table = with_columns(array_table(path, arrays[key]), columns)
    labels = arrays.get("labels")
    if labels is None or key == "labels":
        return Source(name, {"train": table})
    if labels.dtype.kind not in "biu" or labels.shape != arrays[key].shape[:1]:
        raise DataError(
            f"{path}: 'labels' must be one integer a row of {key!r}, "
            f"got {labels.dtype} of shape {list(labels.shape)} for {listed({key: arrays[key]})}."
        )
    return Source(name, {"train": table}, {"train": labels.astype("int64")})


def _pictures(
    name: str, paths: dict[str, Path], files: dict[str, list[Path]], options: Options
) -> Source:
    if options.columns is not None:
        raise InputError(f"columns is for tables, {name} is a folder of pictures.")
    if options.levels not in (None, 256):
        raise InputError(
            f"pictures have 256 levels, got levels = {options.levels}; for fewer levels set bits."
        )
    tables: dict[str, Table] = {}
    for part, found in files.items():
        if not paths[part].is_dir():
            raise DataError(f"{paths[part]} is a file, expected a folder of pictures as for train.")
        tables[part] = image_table(
            paths[part],
            found,
            image_size=options.image_size,
            fit=options.fit,
            channels=options.channels,
        )
    notes = [f"{sum(map(len, files.values()))} pictures"]
    if options.image_size is not None:
        how = "resized" if options.fit == "resize" else "scaled and cropped"
        notes.append(f"{how} to {options.image_size[0]}x{options.image_size[1]}")
    classes = {part: class_names(paths[part], found) for part, found in files.items()}
    known = sorted({label for found in classes.values() for label in found or ()})
    if any(found is None for found in classes.values()):
        return Source(name, tables, notes=notes)
    notes.append(f"labels 0..{len(known) - 1} are the subfolders {', '.join(known[:20])}")
    number = {label: i for i, label in enumerate(known)}
    return Source(
        name, tables, {p: _numbers(found or [], number) for p, found in classes.items()}, notes
    )


def _numbers(labels: Sequence[str], number: dict[str, int]) -> NDArray[np.int64]:
    import numpy as np

    return np.array([number[label] for label in labels], dtype=np.int64)


def _agree(source: Source) -> None:
    """Raise DataError unless the parts have rows of one shape and kind."""
    train = source.tables["train"]
    for part, table in source.tables.items():
        if table.event_shape != train.event_shape or table.real != train.real:
            raise DataError(
                f"{table.name or table.path}: the part {part!r} has rows of {_kind(table)}, "
                f"but 'train' has rows of {_kind(train)}."
            )


def _kind(table: Table) -> str:
    return f"{'real numbers' if table.real else 'integers'} {list(table.event_shape)}"


def _data(name: str, source: str, parts: Parts, alphabet: str | None = None) -> Data:
    train, validation, test = (torch.from_numpy(parts.rows[part]) for part in PARTS)
    labels = None
    if parts.labels is not None:
        a, b, c = (torch.from_numpy(parts.labels[part]) for part in PARTS)
        labels = (a, b, c)
    return Data(
        name=name,
        train=train,
        validation=validation,
        test=test,
        levels=parts.levels,
        columns=parts.columns,
        labels=labels,
        density=None,
        source="; ".join([source, *parts.notes]),
        alphabet=alphabet,
    )
