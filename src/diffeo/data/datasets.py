"""Data sets in three parts (train, validation, test), from a built-in name or from a file."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import DataError, InputError
from .densities import Density2D, density, density_names
from .files import FEWEST_ROWS, load_file, to_discrete
from .readers import listed, read_npz
from .schema import Data

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]
    Table = NDArray[np.float64]

__all__ = ["builtin_names", "load"]

_FOLDER_SETS = ("mnist", "cifar10")
_SUFFIXES = (".npy", ".npz", ".csv")


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
    _check_integer("size", size, FEWEST_ROWS)
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
    path = Path(source).expanduser()
    _check_path(source, path)
    return load_file(path, seed, levels)


def _check_integer(name: str, value: object, lowest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
        raise InputError(f"{name} must be an integer of {lowest} or more, got {value!r}.")


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

    parts = tuple(to_discrete(images[r], levels, name, None) for r in rows)
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
