"""Data sets in three parts (train, validation, test), from a built-in name or from a file."""

from __future__ import annotations

import csv
import difflib
import os
import zipfile
import zlib
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import torch
from torch import Tensor

from diffeo.data.densities import Density2D, density, density_names
from diffeo.errors import DataError, InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]
    Table = NDArray[np.float64]

__all__ = ["Data", "builtin_names", "load"]

_FOLDER_SETS = ("mnist", "cifar10")
_SUFFIXES = (".npy", ".npz", ".csv")
_IMAGE_CHANNELS = (1, 3)
_FEWEST_ROWS = 10

_BROKEN_FILE: tuple[type[Exception], ...] = (
    ValueError,
    EOFError,
    OSError,
    MemoryError,
    NotImplementedError,  # an unknown compression
    RuntimeError,  # a password
    zipfile.BadZipFile,
    zlib.error,
)
try:
    from lzma import LZMAError
except ImportError:  # Python built without it cannot meet the error either
    pass
else:
    _BROKEN_FILE += (LZMAError,)


@dataclass(frozen=True, eq=False)
class Data:
    """Three parts [n, *event]: float32, or uint8 or int64 in 0..levels-1 for discrete data."""

    name: str
    train: Tensor
    validation: Tensor
    test: Tensor
    levels: int | None
    columns: tuple[str, ...] | None
    labels: tuple[Tensor, Tensor, Tensor] | None
    density: Density2D | None
    source: str

    @property
    def event_shape(self) -> torch.Size:
        """Shape of one example."""
        return self.train.shape[1:]


def builtin_names() -> tuple[str, ...]:
    """Names that `load` knows; those of $DIFFEO_DATA are in the list where their folder exists."""
    found = (name for name in _FOLDER_SETS if (_data_folder() / name).is_dir())
    return ("digits", *density_names(), *found)


def load(
    source: str | os.PathLike[str],
    *,
    seed: int = 0,
    levels: int | None = None,
    size: int = 20000,
) -> Data:
    """Load a built-in data set by name, or a .npy, .npz or .csv file by path.

    `seed` draws the random split (or the samples of a 2-D density, `size` of them for training).
    `levels` says that the values are the integers 0..levels-1.
    InputError for a bad option, DataError for data that cannot be used.
    """
    source = os.fspath(source)
    _check_integer("seed", seed, 0)
    _check_integer("size", size, _FEWEST_ROWS)
    if levels is not None:
        _check_integer("levels", levels, 2)
    if source in density_names():
        return _load_density(density(source), seed, levels, size)
    builtin: dict[str, Callable[[int, int | None], Data]] = {
        "digits": _load_digits,
        "mnist": _load_mnist,
        "cifar10": _load_cifar10,
    }
    if source in builtin:
        return builtin[source](seed, levels)
    return _load_file(source, seed, levels)


def _check_integer(name: str, value: object, lowest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
        raise InputError(f"{name} must be an integer of {lowest} or more, got {value!r}.")


# Built-in sets


def _load_density(d: Density2D, seed: int, levels: int | None, size: int) -> Data:
    import numpy as np

    if levels is not None:
        raise DataError(f"{d.name!r} is continuous, so levels must be left out, got {levels}.")

    def part(index: int, n: int) -> Tensor:
        state = int(np.random.SeedSequence((seed, index)).generate_state(1, np.uint64)[0])
        generator = torch.Generator().manual_seed(state)
        return d.sample(n, generator=generator, dtype=torch.float32)

    return Data(
        name=d.name,
        train=part(0, size),
        validation=part(1, size // 5),
        test=part(2, size // 2),
        levels=None,
        columns=("x", "y"),
        labels=None,
        density=d,
        source=f"drawn from the 2-D density {d.name}: {d.description}; "
        f"one generator a part, seed {seed}",
    )


def _load_digits(seed: int, levels: int | None) -> Data:
    import numpy as np
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.RandomState(0).permutation(1797)
    return _image_data(
        "digits",
        bunch.images[:, None].astype(np.uint8),
        bunch.target,
        (order[:1297], order[1297:1437], order[1437:]),
        17 if levels is None else levels,
        "scikit-learn load_digits, 8x8 images of 17 levels; rows RandomState(0).permutation(1797), "
        "first 1297 train, next 140 validation, last 360 test",
    )


def _load_mnist(seed: int, levels: int | None) -> Data:
    import numpy as np

    folder = _set_folder("mnist")
    images, labels = _read_images([folder / "train.npz", folder / "test.npz"])
    rows = np.arange(len(images))
    if len(rows) != 70000:
        raise DataError(f"{folder} must hold 70000 images for the official split, got {len(rows)}.")
    return _image_data(
        "mnist",
        images,
        labels,
        (rows[:50000], rows[50000:60000], rows[60000:]),
        256 if levels is None else levels,
        f"{folder}: official order, train 0-49999, validation 50000-59999 of train.npz, test.npz",
    )


def _load_cifar10(seed: int, levels: int | None) -> Data:
    import numpy as np

    folder = _set_folder("cifar10")
    train, train_labels = _read_images([folder / "train_a.npz", folder / "train_b.npz"])
    test, test_labels = _read_images([folder / "test.npz"])
    images, labels = np.concatenate((train, test)), np.concatenate((train_labels, test_labels))
    n_train = len(train)
    order = np.random.RandomState(seed % 2**32).permutation(n_train)
    return _image_data(
        "cifar10",
        images,
        labels,
        (order[:-800], order[-800:], np.arange(n_train, len(images))),
        256 if levels is None else levels,
        f"{folder}: train_a.npz and train_b.npz in the order RandomState({seed})"
        f".permutation({n_train}), last 800 validation, the others train; test.npz",
    )


def _data_folder() -> Path:
    return Path(os.environ.get("DIFFEO_DATA") or "../shared/data")


def _set_folder(name: str) -> Path:
    folder = _data_folder() / name
    if not folder.is_dir():
        raise DataError(
            f"the data set {name!r} needs the folder {folder}, which is not there; "
            f"set DIFFEO_DATA to the folder that holds {name}."
        )
    return folder


def _read_images(files: Sequence[Path]) -> tuple[Array, Array]:
    """Images [N, C, H, W] and labels [N] of files with images [N, H, W, C], one after the other."""
    import numpy as np

    parts = [_read_npz(file) for file in files]
    for file, part in zip(files, parts, strict=True):
        if "images" not in part or "labels" not in part:
            raise DataError(f"{file} must hold 'images' and 'labels', it holds {_listed(part)}.")
        if part["images"].ndim != 4 or part["labels"].shape != part["images"].shape[:1]:
            raise DataError(
                f"{file} must hold images [N, H, W, C] and labels [N], {_listed(part)}."
            )
    images = np.concatenate([part["images"] for part in parts]).transpose(0, 3, 1, 2)
    return images, np.concatenate([part["labels"] for part in parts])


def _image_data(
    name: str,
    images: Array,
    labels: Array,
    rows: Sequence[NDArray[np.int64]],
    levels: int,
    source: str,
) -> Data:
    import numpy as np

    parts = tuple(_to_discrete(images[r], levels, name, None) for r in rows)
    train, validation, test = parts
    first, second, third = (torch.from_numpy(labels[r].astype(np.int64)) for r in rows)
    return Data(
        name=name,
        train=train,
        validation=validation,
        test=test,
        levels=levels,
        columns=None,
        labels=(first, second, third),
        density=None,
        source=source,
    )


# Files


@dataclass(frozen=True)
class _Contents:
    """What a file holds: one array to be split, or the parts that it comes with."""

    parts: dict[str, Array]  # "train" and perhaps "validation" and "test"
    labels: Array | None = None  # of one array only
    columns: tuple[str, ...] | None = None
    lines: array[int] | None = None  # line of each row in a text file

    def place(self, row: int) -> str:
        return f"row {row}" if self.lines is None else f"row {row} (line {self.lines[row]})"


def _load_file(source: str, seed: int, levels: int | None) -> Data:
    path = Path(source).expanduser()
    _check_path(source, path)
    readers = {".npy": _npy_contents, ".npz": _npz_contents, ".csv": _csv_contents}
    contents = readers[path.suffix.lower()](path)
    arrays = {part: _checked(value, path, part, contents) for part, value in contents.parts.items()}
    shape, dtype = arrays["train"].shape[1:], arrays["train"].dtype
    for part, value in arrays.items():
        if value.shape[1:] != shape or value.dtype.kind != dtype.kind:
            raise DataError(
                f"{path}: the part {part!r} has rows of {value.dtype} {list(value.shape[1:])}, "
                f"but 'train' has rows of {dtype} {list(shape)}."
            )
    notes = []
    levels, note = _infer_levels(arrays, levels, path)
    notes.append(note)
    # Bad values are found before the split, while the row numbers are those of the file.
    tensors = {
        part: _to_float(value, path, contents)
        if levels is None
        else _to_discrete(value, levels, str(path), contents)
        for part, value in arrays.items()
    }
    tensors, note = _channels_first(tensors, levels)
    notes.append(note)
    labels = None if contents.labels is None else torch.from_numpy(contents.labels.astype("int64"))
    tensors, split_labels, note = _split(tensors, labels, seed)
    notes.append(note)
    if levels is None and len(shape) == 1:
        _check_constant_columns(tensors["train"], contents.columns, path)
    return Data(
        name=path.stem,
        train=tensors["train"],
        validation=tensors["validation"],
        test=tensors["test"],
        levels=levels,
        columns=contents.columns,
        labels=split_labels,
        density=None,
        source="; ".join([str(path), *(note for note in notes if note)]),
    )


def _check_path(source: str, path: Path) -> None:
    if path.suffix.lower() in _SUFFIXES:
        if path.is_dir():
            raise DataError(f"{path} is a folder, expected a file.")
        if not path.exists():
            raise DataError(f"there is no file {path}.")
        return
    if path.exists():
        kind = "a folder" if path.is_dir() else f"a file with the ending {path.suffix!r}"
        raise DataError(f"{path} is {kind}, expected a file that ends in .npy, .npz or .csv.")
    names = (*builtin_names(), *(name for name in _FOLDER_SETS if name not in builtin_names()))
    close = difflib.get_close_matches(source.lower(), names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}."
    raise DataError(f"there is no built-in data set and no file {source!r}; {hint}")


def _npy_contents(path: Path) -> _Contents:
    with _open(path) as file:
        return _Contents({"train": _read_array(file, str(path))})


def _npz_contents(path: Path) -> _Contents:
    arrays = _read_npz(path)
    aliases = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
    if "train" in arrays:
        return _Contents({aliases[key]: value for key, value in arrays.items() if key in aliases})
    candidates = list(arrays) if len(arrays) == 1 else ["images", "data", "x"]
    key = next((key for key in candidates if key in arrays), None)
    if key is None:
        raise DataError(
            f"{path} must hold one array, or one named train, images, data or x; "
            f"it holds {_listed(arrays)}."
        )
    labels = arrays.get("labels")
    if labels is not None and (
        labels.dtype.kind not in "biu" or labels.shape != arrays[key].shape[:1]
    ):
        raise DataError(
            f"{path}: 'labels' must be one integer a row of {key!r}, "
            f"got {labels.dtype} of shape {list(labels.shape)} for {list(arrays[key].shape)}."
        )
    return _Contents({"train": arrays[key]}, labels)


def _open(path: Path) -> BinaryIO:
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path} is empty.")
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


def _read_array(file: BinaryIO, name: str) -> Array:
    import numpy as np

    try:
        # Not numpy.load: that takes any file without the npy mark for a pickle.
        return cast("Array", np.lib.format.read_array(file, allow_pickle=False))
    except _BROKEN_FILE as error:
        if "Object arrays" in str(error):
            raise DataError(
                f"{name} holds Python objects (a pickle), which diffeo never opens; "
                "save it as an array of numbers."
            ) from error
        raise DataError(f"{name} is not a readable npy array: {_sentence(error)}") from error


def _read_npz(path: Path) -> dict[str, Array]:
    with _open(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                arrays = {}
                for member in archive.namelist():
                    with archive.open(member) as stream:
                        name = member.removesuffix(".npy")
                        arrays[name] = _read_array(cast("BinaryIO", stream), f"{path} ({name})")
        except DataError:
            raise
        except _BROKEN_FILE as error:
            raise DataError(f"{path} is not a readable npz file: {_sentence(error)}") from error
    if not arrays:
        raise DataError(f"{path} is empty: it holds no array.")
    return arrays


def _csv_contents(path: Path) -> _Contents:
    """A table of numbers; the first row is a header if it has text and no number."""
    import numpy as np

    with _open(path):  # an empty or unreadable file ends here
        pass
    columns: tuple[str, ...] | None = None
    width = 0
    values, lines = array("d"), array("l")
    try:
        # utf-8-sig, since spreadsheets write a byte order mark, which would become part of a name.
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(",;\t", key=first.count))
            for cells in reader:
                if not cells:
                    continue
                if not width:
                    width = len(cells)
                    if _is_header(cells):
                        columns = tuple(c.strip() or f"column {i}" for i, c in enumerate(cells))
                        continue
                place = f"{path}, row {len(lines)} (line {reader.line_num})"
                if len(cells) != width:
                    raise DataError(f"{place} has {len(cells)} cells, the rows above have {width}.")
                values.extend(_parse_row(cells, columns, place))
                lines.append(reader.line_num)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a readable csv file: {_sentence(error)}") from error
    if not lines:
        raise DataError(f"{path} holds no row of numbers.")
    table = np.frombuffer(values, dtype=np.float64).reshape(len(lines), width)
    return _Contents({"train": table}, None, columns, lines)


def _is_header(cells: Sequence[str]) -> bool:
    texts = [cell for cell in cells if cell.strip()]
    return bool(texts) and not any(_is_number(cell) for cell in texts)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _parse_row(cells: Sequence[str], columns: Sequence[str] | None, place: str) -> list[float]:
    try:
        return [float(cell) for cell in cells]
    except ValueError as error:
        column = next(i for i, cell in enumerate(cells) if not _is_number(cell))
        name = f"column {columns[column]!r}" if columns else f"column {column}"
        if not cells[column].strip():
            raise DataError(f"{place}, {name} is empty; fill in or drop missing values.") from error
        raise DataError(
            f"{place}, {name} holds {cells[column]!r}, expected a number; "
            "drop the column or code it as numbers."
        ) from error


# From arrays to tensors


def _checked(value: Array, path: Path, part: str, contents: _Contents) -> Array:
    """The array as [n, *event] with a usable dtype and enough rows."""
    name = str(path) if len(contents.parts) == 1 else f"{path} ({part})"
    if value.dtype.kind not in "biuf":
        raise DataError(f"{name} holds values of dtype {value.dtype}, expected real numbers.")
    if value.ndim == 0:
        raise DataError(f"{name} holds a single number, expected an array [n, ...] of n rows.")
    fewest = _FEWEST_ROWS if part == "train" else 1
    if len(value) < fewest:
        raise DataError(f"{name} has {len(value)} rows, expected at least {fewest}.")
    if 0 in value.shape:
        raise DataError(
            f"{name} has rows of the shape {list(value.shape[1:])}, which hold no value."
        )
    return value[:, None] if value.ndim == 1 else value


def _infer_levels(
    arrays: dict[str, Array], levels: int | None, path: Path
) -> tuple[int | None, str]:
    """The number of levels, None for continuous data, and a note for the source line."""
    train = arrays["train"]
    if levels is not None:
        return levels, f"{levels} levels as given"
    if train.dtype.kind == "f":
        return None, ""
    if train.ndim == 2:
        return None, "integers taken as continuous (no levels given)"
    if train.dtype.kind == "b":
        return 2, "2 levels (booleans)"
    lowest = min(int(cast("Any", value).min()) for value in arrays.values())
    highest = max(int(cast("Any", value).max()) for value in arrays.values())
    if lowest < 0:
        raise DataError(f"{path} holds the integer {lowest}, expected levels from 0 on.")
    if highest < 256:
        return 256, "256 levels (none given)"
    return highest + 1, f"{highest + 1} levels (the largest value plus 1, none given)"


def _check_finite(value: Array, name: str, contents: _Contents | None) -> None:
    import numpy as np

    finite = np.isfinite(cast("Table", value).reshape(len(value), -1)).all(1)
    if finite.all():
        return
    rows = np.flatnonzero(~finite)
    shown = ", ".join(_place(contents, int(row)) for row in rows[:3])
    raise DataError(
        f"{name} holds NaN or Inf in {len(rows)} of {len(value)} rows, the first: {shown} "
        "(counted from 0); fill in or drop them."
    )


def _place(contents: _Contents | None, row: int) -> str:
    return f"row {row}" if contents is None else contents.place(row)


def _to_float(value: Array, path: Path, contents: _Contents) -> Tensor:
    import numpy as np

    if value.dtype.kind == "f":
        _check_finite(value, str(path), contents)
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(value, dtype=np.float32)
    overflow = ~np.isfinite(single.reshape(len(single), -1)).all(1)
    if overflow.any():
        row = int(np.flatnonzero(overflow)[0])
        raise DataError(
            f"{path}, {contents.place(row)} holds a value beyond 3.4e38, the largest in float32; "
            "scale the data."
        )
    # A table read from text is a read-only view on its buffer, which torch would let users write.
    return torch.from_numpy(single.copy() if not single.flags.writeable else single)


def _to_discrete(value: Array, levels: int, name: str, contents: _Contents | None) -> Tensor:
    """Integers in 0..levels-1 as uint8, or as int64 above 256 levels."""
    import numpy as np

    if value.dtype.kind == "f":
        _check_finite(value, name, contents)
    numbers = cast("Table", value).reshape(len(value), -1)
    wrong = (numbers < 0) | (numbers >= levels)
    if value.dtype.kind == "f":
        wrong |= numbers != np.floor(numbers)
    if wrong.any():
        row, column = (int(index) for index in np.argwhere(wrong)[0])
        raise DataError(
            f"{name}, {_place(contents, row)} holds {numbers[row, column]!s}, "
            f"expected an integer in 0..{levels - 1} (levels = {levels})."
        )
    return torch.from_numpy(value.astype(np.uint8 if levels <= 256 else np.int64, order="C"))


def _channels_first(
    tensors: dict[str, Tensor], levels: int | None
) -> tuple[dict[str, Tensor], str]:
    """[n, H, W, C] -> [n, C, H, W] for 1 or 3 channels, and discrete [n, H, W] -> [n, 1, H, W]."""
    shape = tensors["train"].shape
    if len(shape) == 3 and levels is not None:
        return {k: v[:, None] for k, v in tensors.items()}, "[n, H, W] turned into [n, 1, H, W]"
    if len(shape) == 4 and shape[-1] in _IMAGE_CHANNELS and shape[1] not in _IMAGE_CHANNELS:
        moved = {k: v.permute(0, 3, 1, 2).contiguous() for k, v in tensors.items()}
        return moved, "[n, H, W, C] turned into [n, C, H, W]"
    return tensors, ""


def _split(
    tensors: dict[str, Tensor], labels: Tensor | None, seed: int
) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor, Tensor] | None, str]:
    """Take each part that is missing, validation or test, as a random 10% of the training rows."""
    import numpy as np

    missing = [part for part in ("validation", "test") if part not in tensors]
    if not missing:
        return tensors, None, "split as in the file"
    n = len(tensors["train"])
    order = torch.from_numpy(np.random.default_rng(seed).permutation(n))
    # Of n = 10 m + r rows each missing part gets m, at least one.
    tenth = n // 10
    rows = {part: order[i * tenth : (i + 1) * tenth] for i, part in enumerate(missing)}
    rows["train"] = order[len(missing) * tenth :]
    parts = tensors | {part: tensors["train"][index] for part, index in rows.items()}
    # Only a file of one array has labels, and then all three parts are drawn here.
    split_labels = (
        None
        if labels is None
        else (labels[rows["train"]], labels[rows["validation"]], labels[rows["test"]])
    )
    if len(missing) == 2:
        note = f"random 80/10/10 split, each row in one part, seed {seed}"
    else:
        note = f"{missing[0]} is a random tenth of the file's train rows (held out), seed {seed}"
    return parts, split_labels, note


def _check_constant_columns(train: Tensor, columns: tuple[str, ...] | None, path: Path) -> None:
    constant = (train == train[0]).all(0).nonzero().flatten().tolist()
    if constant:
        names = ", ".join(repr(columns[i]) if columns else str(i) for i in constant[:5])
        more = f" and {len(constant) - 5} more" if len(constant) > 5 else ""
        raise DataError(
            f"{path}: column {names}{more} has one value in every training row, "
            "so its density would be infinite; drop it."
        )


def _listed(arrays: dict[str, Array]) -> str:
    return ", ".join(f"{name} {list(value.shape)}" for name, value in arrays.items())


def _sentence(error: BaseException) -> str:
    """The first line of an error as the end of a sentence."""
    text = (str(error) or type(error).__name__).splitlines()[0].strip()
    return text if text.endswith(".") else f"{text}."
