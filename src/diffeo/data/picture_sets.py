"""Built-in sets of pictures in $DIFFEO_DATA with a split of their own: ORL faces by person, crops of BSDS300."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from .images import image_table
from .readers import listed, read_npz
from .suite_patches import pictures_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

Found = tuple["Array", "Array", Sequence["Array"], str]
"""Images [N, C, H, W], labels [N], the rows of each part, and where they are from."""

SIDE = 32
PEOPLE = (30, 4)  # for training and for validation, of 40


def orl_faces(folder: Path, seed: int) -> Found:
    """400 grey faces of 64x64, ten of each of 40 people: no two parts share a person.

    The people in the order of RandomState(seed): 30 for training, 4 for validation, 6 for test; labels are people.
    AT&T Laboratories Cambridge, The ORL database of faces. Raises DataError for a file of another layout.
    """
    import numpy as np

    path = folder / "orl_faces_64x64.npz"
    found = read_npz(path)
    if "images" not in found or "labels" not in found or found["images"].shape[1:] != (64, 64, 1):
        raise DataError(
            f"{path} must hold images [n, 64, 64, 1] and labels [n], it holds {listed(found)}."
        )
    images, labels = found["images"].transpose(0, 3, 1, 2), found["labels"]
    people = np.unique(labels)
    order = np.random.RandomState(seed % 2**32).permutation(people)
    parts = np.split(order, np.cumsum(PEOPLE))
    rows = [np.flatnonzero(np.isin(labels, part)) for part in parts]
    if not all(len(r) for r in rows):
        raise DataError(f"{path} holds {len(people)} people, expected 40.")
    who = "/".join(str(len(part)) for part in parts)
    return images, labels, rows, f"{folder}: {who} people, RandomState({seed}).permutation"


def bsds300_crops(folder: Path, seed: int) -> Found:
    """Colour crops of 32x32, side by side, from the BSDS300 photographs at half their size (means of 2x2 pixels).

    35 of each picture; those of a fixed tenth of the 200 training pictures are for validation, those of the 100 test
    pictures for test; labels are the numbers of the pictures. The seed does not matter. Martin et al., A database of
    human segmented natural images, 2001. Raises DataError where the pictures are not there.
    """
    import numpy as np

    parts = pictures_of(folder)
    crops = [[_crops(path) for path in part] for part in parts]
    images = np.concatenate([c for part in crops for c in part])
    each = [len(c) for part in crops for c in part]
    ends = np.cumsum([0, *(sum(len(c) for c in part) for part in crops)])
    rows = [np.arange(a, b) for a, b in pairwise(ends.tolist())]
    of = "/".join(str(len(part)) for part in parts)
    note = f"{folder}: 32x32 crops of {of} pictures at half their size"
    return images, np.repeat(np.arange(len(each)), each), rows, note


def _crops(path: Path) -> Array:
    """[n, 3, 32, 32] of one picture, row by row."""
    import numpy as np

    table = image_table(path.parent, [path], image_size=None, fit="resize", channels=3)
    (block,) = table.blocks(0, 1)
    x = block.values[0]
    across, down = x.shape[2] // (2 * SIDE), x.shape[1] // (2 * SIDE)
    x = x[:, : 2 * SIDE * down, : 2 * SIDE * across].astype(np.uint16)
    half = (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2] + 2) // 4
    cut = half.reshape(3, down, SIDE, across, SIDE).transpose(1, 3, 0, 2, 4)
    crops: Array = cut.reshape(-1, 3, SIDE, SIDE).astype(np.uint8)
    return crops
