"""A file as a data set: checked, turned into tensors, and split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from ..errors import DataError
from ._old_readers import Contents, csv_contents, npy_contents, npz_contents
from .schema import Data

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]
    Table = NDArray[np.float64]

_IMAGE_CHANNELS = (1, 3)
FEWEST_ROWS = 10


def load_file(path: Path, seed: int, levels: int | None) -> Data:
    readers = {".npy": npy_contents, ".npz": npz_contents, ".csv": csv_contents}
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
        else to_discrete(value, levels, str(path), contents)
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


def _checked(value: Array, path: Path, part: str, contents: Contents) -> Array:
    """The array as [n, *event] with a usable dtype and enough rows."""
    name = str(path) if len(contents.parts) == 1 else f"{path} ({part})"
    if value.dtype.kind not in "biuf":
        raise DataError(f"{name} holds values of dtype {value.dtype}, expected real numbers.")
    if value.ndim == 0:
        raise DataError(f"{name} holds a single number, expected an array [n, ...] of n rows.")
    fewest = FEWEST_ROWS if part == "train" else 1
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


def _check_finite(value: Array, name: str, contents: Contents | None) -> None:
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


def _place(contents: Contents | None, row: int) -> str:
    return f"row {row}" if contents is None else contents.place(row)


def _to_float(value: Array, path: Path, contents: Contents) -> Tensor:
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


def to_discrete(value: Array, levels: int, name: str, contents: Contents | None) -> Tensor:
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
