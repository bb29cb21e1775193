"""Data sets in three parts (train, validation, test), from a built-in name or from a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor

from ..errors import DataError, InputError
from .checks import FEWEST_ROWS, Place, as_levels, check_number, nearest
from .densities import Density2D, density, density_names
from .files import Options, load_files, with_strings
from .given import given_shape
from .picture_sets import bsds300_crops, orl_faces
from .readers import listed, read_npz
from .schema import Data
from .stream import SUFFIXES
from .strings import LISTS, is_text
from .suite import SUITE, load_suite

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[Any]

__all__ = ["builtin_names", "load"]

PICTURES = {"orl_faces": orl_faces, "bsds300_crops": bsds300_crops}
_FOLDER_SETS = ("mnist", "cifar10", "orl_faces", "bsds300_crops", *SUITE)
_FOLDERS = {"bsds300_crops": "bsds300"}  # where it is not that of the name


def builtin_names() -> tuple[str, ...]:
    """Names that `load` knows; those of $DIFFEO_DATA are in the list where their folder exists."""
    found = (n for n in _FOLDER_SETS if (_data_folder() / _FOLDERS.get(n, n)).is_dir())
    lists = (n for n, file in LISTS.items() if (_data_folder() / "strings" / file).is_file())
    return ("digits", *density_names(), *found, *lists)


def load(
    source: str | os.PathLike[str],
    *,
    validation: str | os.PathLike[str] | None = None,
    test: str | os.PathLike[str] | None = None,
    seed: int = 0,
    split: Sequence[float] = (0.8, 0.1, 0.1),
    levels: int | None = None,
    bits: int | None = None,
    columns: Sequence[str] | None = None,
    image_size: int | Sequence[int] | None = None,
    fit: str = "resize",
    channels: int | None = None,
    alphabet: str | None = None,
    length: int | None = None,
    size: int = 20000,
    given: str | None = None,
) -> Data:
    """Load a built-in data set by name, or a .npy, .npz, .csv, .parquet or .txt file or a folder of pictures by path.

    split: fractions of rows for train, validation and test, drawn with `seed`; equal rows are always in one part.
    A part given as a file of its own (`validation`, `test`), or in a .npz or a folder under its name, is taken as
    it is; built-in sets have their own split. levels: the values are the integers 0..levels-1. bits: keep so many
    of 8 bits, floor(x / 2^(8 - bits)). columns: names of the columns of a table to use, in this order.
    image_size: (height, width), or one number for both, of the pictures in a folder; fit: "resize" to exactly that,
    or "crop" the centre after scaling the short side. channels: 1 or 3, as the pictures unless given. alphabet, length:
    the characters and the largest length of the strings in a .txt or .txt.gz file, one a line, as found there unless
    given. size: training points of a built-in 2-D density. given: of pictures, what a conditional model is
    given: grey (of pictures in colour), half or quarter (their size): see `diffeo.data.given_of`.

    Files larger than memory are read once into the cache ($DIFFEO_CACHE), and the parts are memory-mapped.
    InputError for a bad option, DataError for data that cannot be used.
    """
    source = os.fspath(source)
    options = _options(seed, split, levels, bits, columns, image_size, fit, channels)
    options = with_strings(options, alphabet, length)
    check_number("size", size, FEWEST_ROWS)
    others = {"validation": validation, "test": test}
    files = {part: Path(path).expanduser() for part, path in others.items() if path is not None}
    if source in ("digits", *_FOLDER_SETS, *density_names()):
        unused = {**files, "columns": columns, "image_size": image_size, "channels": channels}
        unused |= {"alphabet": alphabet, "length": length}
        for option, value in unused.items():
            if value is not None:
                raise InputError(
                    f"{option} is for files, the built-in data set {source!r} has its own, got {value!r}."
                )
        data = _load_builtin(source, seed, levels, size)
        return _giving(data if bits is None else _with_bits(data, bits), given)
    path = _text_file(source) if source in LISTS else Path(source).expanduser()
    if not path.exists() and path.suffix.lower() not in SUFFIXES and not is_text(path):
        _refuse_name(source)
    return _giving(load_files({"train": path, **files}, options), given)


def _text_file(name: str) -> Path:
    """The file of a list of strings in $DIFFEO_DATA. Raises DataError where it is not there."""
    path = _data_folder() / "strings" / LISTS[name]
    if not path.is_file():
        raise DataError(
            f"the data set {name!r} needs the file {path}, which is not there; "
            "set DIFFEO_DATA to the folder that holds strings."
        )
    return path


def _options(
    seed: int,
    split: Sequence[float],
    levels: int | None,
    bits: int | None,
    columns: Sequence[str] | None,
    image_size: int | Sequence[int] | None,
    fit: str,
    channels: int | None,
) -> Options:
    """The options of files, checked. Raises InputError."""
    check_number("seed", seed, 0)
    if levels is not None:
        check_number("levels", levels, 2)
    if bits is not None:
        check_number("bits", bits, 1, 8)
    numbers = [x for x in split if isinstance(x, (int, float)) and 0 < x < 1]
    if len(split) != 3 or len(numbers) != 3 or abs(sum(numbers) - 1) > 1e-6:
        raise InputError(
            "split must be three fractions above 0 (train, validation, test) with the sum 1, "
            f"got {list(split)}."
        )
    if isinstance(columns, str) or (columns is not None and not columns):
        raise InputError(f"columns must be a list of names, got {columns!r}.")
    sizes = (image_size, image_size) if isinstance(image_size, int) else image_size
    if sizes is not None:
        whole = [n for n in sizes if isinstance(n, int) and not isinstance(n, bool) and n > 0]
        if len(sizes) != 2 or len(whole) != 2:
            raise InputError(
                f"image_size must be a height and a width in pixels, or one number above 0, got {image_size!r}."
            )
        sizes = (whole[0], whole[1])
    if fit not in ("resize", "crop"):
        raise InputError(f"fit must be resize or crop, got {fit!r}.")
    if channels not in (None, 1, 3):
        raise InputError(f"channels must be 1 or 3, got {channels!r}.")
    a, b, c = numbers
    names = None if columns is None else tuple(columns)
    return Options(seed, (a, b, c), levels, names, sizes, fit, channels, bits)


def _load_builtin(name: str, seed: int, levels: int | None, size: int) -> Data:
    if name in density_names():
        return _load_density(density(name), seed, levels, size)
    if name in SUITE:
        _check_continuous(name, levels)
        return load_suite(name, _data_folder() / name)
    if name in PICTURES:
        images, labels, rows, note = PICTURES[name](_set_folder(name), seed)
        return _image_data(name, images, labels, rows, 256 if levels is None else levels, note)
    loaders = {"digits": _load_digits, "mnist": _load_mnist, "cifar10": _load_cifar10}
    return loaders[name](seed, levels)


def _check_continuous(name: str, levels: int | None) -> None:
    if levels is not None:
        raise DataError(f"{name!r} is continuous, so levels must be left out, got {levels}.")


def _with_bits(data: Data, bits: int) -> Data:
    """8-bit data with the given number of bits: floor(x / 2^(8 - bits))."""
    if data.levels != 256:
        held = "real numbers" if data.levels is None else f"integers of {data.levels} levels"
        raise InputError(
            f"bits = {bits} is for integers of 256 levels, {data.name!r} holds {held}."
        )
    train, validation, test = (x >> (8 - bits) for x in (data.train, data.validation, data.test))
    return replace(
        data,
        train=train,
        validation=validation,
        test=test,
        levels=2**bits,
        source=f"{data.source}; {bits} of 8 bits kept",
    )


def _giving(data: Data, given: str | None) -> Data:
    """The same pictures for a model that is given something of them. Raises InputError or DataError."""
    if given is None:
        return data
    given_shape(tuple(data.event_shape), given)
    return replace(data, given=given, source=f"{data.source}; given {given}")


def _load_density(d: Density2D, seed: int, levels: int | None, size: int) -> Data:
    import numpy as np

    _check_continuous(d.name, levels)

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
    inside = _FOLDERS.get(name, name)
    folder = _data_folder() / inside
    if not folder.is_dir():
        raise DataError(
            f"the data set {name!r} needs the folder {folder}, which is not there; "
            f"set DIFFEO_DATA to the folder that holds {inside}."
        )
    return folder


def _read_images(files: Sequence[Path]) -> tuple[Array, Array]:
    """Images [N, C, H, W] and labels [N] of files with images [N, H, W, C], one after the other."""
    import numpy as np

    parts = [read_npz(file) for file in files]
    for file, part in zip(files, parts, strict=True):
        if "images" not in part or "labels" not in part:
            raise DataError(f"{file} must hold 'images' and 'labels', it holds {listed(part)}.")
        if part["images"].ndim != 4 or part["labels"].shape != part["images"].shape[:1]:
            raise DataError(f"{file} must hold images [N, H, W, C] and labels [N], {listed(part)}.")
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

    place = Place(name, 0)
    train, validation, test = (torch.from_numpy(as_levels(images[r], levels, place)) for r in rows)
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


def _refuse_name(source: str) -> NoReturn:
    known = builtin_names()
    names = (*known, *(name for name in (*_FOLDER_SETS, *LISTS) if name not in known))
    raise DataError(
        f"there is no built-in data set and no file {source!r}; {nearest(source, names)}"
    )
