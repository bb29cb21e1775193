"""BSDS300: patches of natural pictures, drawn from the pictures or read from the published file.

Uria, Murray, Larochelle. RNADE: the real-valued neural autoregressive density-estimator. 2013, arXiv:1306.0186.
Papamakarios, Pavlakou, Murray. Masked autoregressive flow for density estimation. 2017, arXiv:1705.07057.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..errors import DataError
from .cache import build_once, cache_path
from .checks import Place, as_float32
from .images import image_table, picture_files
from .parts import open_parts, write_parts
from .readers import sentence
from .schema import Data
from .split import PARTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

ROWS = (1_000_000, 50_000, 250_000)
SIDE = 8
_SEEDS = (0, 1, 2)  # of places and noise, a part each
_BLOCK = 2**14


def load_bsds300(folder: Path, rows: Sequence[int] = ROWS) -> Data:
    """63 real numbers a row, x_j = y_j - mean(y), y = (v + u) / 256, of 8x8 grey patches v, u uniform on [0, 1)^64.

    The noise enters before the division and the mean, so all 64 pixels have it; the mean is over all 64, and the last
    pixel, minus the sum of the others, is dropped. The noise is part of the data, drawn once: a likelihood is the
    density of x in nats, not a probability of integers, and compares with the published table as it is.

    Pictures: `bsds300_train` (200) and `bsds300_test` (100), grey by 0.299 R + 0.587 G + 0.114 B. A fixed random tenth
    of the training pictures is for validation, the others for training, the test pictures for test: no two parts share
    a picture. Row i of a part is from its picture i mod n, at a random place that no other row of the picture has;
    places and noise are from fixed seeds. Made once in the cache ($DIFFEO_CACHE), 330 MB, and memory-mapped.

    A file BSDS300.hdf5 (Zenodo record 1161203, the paper's own draw) in the folder is read instead, with h5py.
    Raises DataError where neither is there.
    """
    published = folder / "BSDS300.hdf5"
    if published.is_file():
        return _published(published)
    pictures = pictures_of(folder)
    state = [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for part in pictures for f in part]
    cached = cache_path("bsds300", [str(folder.resolve()), list(rows), _SEEDS, state])

    def build(place: Path) -> None:
        drawn = zip(PARTS, pictures, rows, _SEEDS, strict=True)
        blocks = ((part, x) for part, found, n, seed in drawn for x in _patches(found, n, seed))
        of = ", ".join(f"{len(found)} {part}" for part, found in zip(PARTS, pictures, strict=True))
        write_parts(place, blocks, notes=[f"8x8 patches of {of} pictures", "seeds 0, 1, 2"])

    if not cached.is_dir():
        build_once(cached, build)
    parts = open_parts(cached)
    return _data([parts.rows[part] for part in PARTS], "; ".join([str(folder), *parts.notes]))


def pictures_of(folder: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """The pictures for training, validation and test. Raises DataError where they are not there."""
    import numpy as np

    for name in ("bsds300_train", "bsds300_test"):
        if not (folder / name).is_dir():
            raise DataError(
                f"there is no {folder / name} of pictures and no BSDS300.hdf5 beside it, which the data set 'bsds300' "
                "needs: the file is bsds300/BSDS300.hdf5 here, BSDS300/BSDS300.hdf5 of data.tar.gz in the MAF release, "
                "https://zenodo.org/record/1161203."
            )
    found, test = (picture_files(folder / name) for name in ("bsds300_train", "bsds300_test"))
    if len(found) < 2:
        raise DataError(f"{folder / 'bsds300_train'} holds one picture, expected 200.")
    order = np.random.RandomState(0).permutation(len(found)).tolist()
    held_out = set(order[: max(1, len(found) // 10)])
    train = [file for i, file in enumerate(found) if i not in held_out]
    return train, [file for i, file in enumerate(found) if i in held_out], test


def _patches(pictures: Sequence[Path], rows: int, seed: int) -> Iterator[Array]:
    """The rows of a part, some at a time, float32 [n, 63]."""
    import numpy as np

    rng = np.random.RandomState(seed)
    grey = np.empty((rows, SIDE**2), np.uint8)
    for i, path in enumerate(pictures):
        here = grey[i :: len(pictures)]
        here[:] = _some_patches(path, len(here), rng)
    for start in range(0, rows, _BLOCK):
        x = grey[start : start + _BLOCK].astype(np.float64)
        yield centred((x + rng.random_sample(x.shape)) / 256)


def centred(y: Array) -> Array:
    """x_j = y_j - mean(y) without the last column, which is minus the sum of the others; float32."""
    import numpy as np

    x: Array = (y - y.mean(1, keepdims=True))[:, :-1].astype(np.float32)
    return x


def _some_patches(path: Path, n: int, rng: Any) -> Array:
    """n patches [n, 64] of a picture at different places."""
    import numpy as np

    table = image_table(path.parent, [path], image_size=None, fit="resize", channels=1)
    (block,) = table.blocks(0, 1)
    places = np.lib.stride_tricks.sliding_window_view(block.values[0, 0], (SIDE, SIDE))
    height, width = places.shape[:2]
    if height * width < n:
        raise DataError(f"{path} has {height * width} patches of 8x8, expected at least {n}.")
    row, column = np.divmod(rng.choice(height * width, n, replace=False), width)
    return places[row, column].reshape(n, -1)


def _published(path: Path) -> Data:
    """The rows of the published file, train, validation and test, [n, 63] each."""
    try:
        h5py: Any = import_module("h5py")
    except ImportError as error:
        raise DataError(
            f"{path} is read with h5py, which is not installed: pip install h5py, or take the file away to draw "
            "patches from the pictures."
        ) from error
    try:
        with h5py.File(path, "r") as file:
            found = [file[part][:] for part in PARTS]
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{path} is not the published file: {sentence(error)}") from error
    for part, x in zip(PARTS, found, strict=True):
        if x.ndim != 2 or x.shape[1] != SIDE**2 - 1:
            raise DataError(f"{path} ({part}) has the shape {list(x.shape)}, expected [n, 63].")
    return _data([as_float32(x, Place(str(path), 0)) for x in found], f"{path}: as published")


def _data(parts: Sequence[Array], source: str) -> Data:
    train, validation, test = (torch.from_numpy(part) for part in parts)
    return Data(
        name="bsds300",
        train=train,
        validation=validation,
        test=test,
        levels=None,
        columns=None,
        labels=None,
        density=None,
        source=source,
    )
