"""Rows into training, validation and test parts, in one pass over a table of any size.

Rows are put in the order of a 64-bit hash of their content and the seed, and the parts are consecutive pieces of this
order, cut between different rows. So equal rows are always in the same part, the order within a part is random, and
the split depends on neither the order of the file nor the memory of the machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Keys = NDArray[np.uint64]

PARTS = ("train", "validation", "test")


def _mixed(x: Keys) -> Keys:
    """SplitMix64's output function, a bijection of 64 bits (Steele, Lea, Flood 2014)."""
    import numpy as np

    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Keys = x ^ (x >> np.uint64(31))
    return mixed


def content_keys(rows: Array, seed: int) -> Keys:
    """Hash of each row [n, *event] -> [n]: sum_j w_j a_j mod 2^64 over its 32-bit words a, mixed."""
    import numpy as np

    flat = rows.reshape(len(rows), -1)
    if flat.dtype.kind == "f":
        flat = flat + flat.dtype.type(0)  # -0.0 equals 0.0
    content = np.ascontiguousarray(flat).view(np.uint8)
    content = np.pad(content, ((0, 0), (0, -content.shape[1] % 4)))
    words = content.view("<u4").astype(np.uint64)
    weights = _mixed(_mixed(np.arange(words.shape[1], dtype=np.uint64)) + np.uint64(seed % 2**64))
    keys: Keys = _mixed(words @ (weights | np.uint64(1)))
    return keys


def row_keys(first: int, n: int, seed: int) -> Keys:
    """Hash of the numbers of n rows from the first on."""
    import numpy as np

    numbers = np.arange(first, first + n, dtype=np.uint64)
    return _mixed(numbers + _mixed(np.array([seed % 2**64], dtype=np.uint64)))


def record_type(rows: Array) -> np.dtype[np.void]:
    """A row with its key and its label."""
    import numpy as np

    return np.dtype([("key", "<u8"), ("label", "<i8"), ("row", rows.dtype, rows.shape[1:])])


class Sorter:
    """Records in the order of their keys, in memory or in one file for each of 2^bits ranges of keys."""

    def __init__(self, folder: Path | None, bits: int) -> None:
        self.folder = folder
        self.bits = bits
        self.counts = [0] * 2**bits
        self.copies = 0  # known once all records were read
        self._held: list[Array] = []
        self._sorted = False

    def __len__(self) -> int:
        return sum(self.counts)

    def add(self, records: Array) -> None:
        """Take records in; ties of keys keep their order."""
        import numpy as np

        if self.folder is None:
            self._held.append(records)
            self.counts[0] += len(records)
            return
        self._type = records.dtype
        which = (records["key"] >> np.uint64(64 - self.bits)).astype(np.uint16)
        records = records.take(np.argsort(which, kind="stable"))
        counts = np.bincount(which, minlength=2**self.bits)
        end = 0
        for i in np.flatnonzero(counts).tolist():
            start, end = end, end + int(counts[i])
            with (self.folder / f"range-{i}").open("ab") as file:
                records[start:end].tofile(file)
            self.counts[i] += end - start

    def _range(self, i: int) -> Array:
        import numpy as np

        if self.folder is not None:
            records = np.fromfile(self.folder / f"range-{i}", dtype=self._type)
            return _in_order(records)
        if not self._sorted:
            records = np.concatenate(self._held)
            self._held = [_in_order(records)]
            self._sorted = True
        return self._held[0]

    def cut(self, rank: int) -> int:
        """The key of the record at this rank: smaller keys belong to the part before."""
        import numpy as np

        before = 0
        for i, count in enumerate(self.counts):
            if rank < before + count:
                return int(np.partition(self._range(i)["key"], rank - before)[rank - before])
            before += count
        raise IndexError(rank)

    def pieces(self) -> Iterator[Array]:
        """All records in order, one range of keys after the other; the files are removed on the way."""
        for i, count in enumerate(self.counts):
            if count:
                records = self._range(i)
                keys = records["key"]
                self.copies += int((keys[1:] == keys[:-1]).sum())
                yield records
                if self.folder is not None:
                    (self.folder / f"range-{i}").unlink()


def _in_order(records: Array) -> Array:
    import numpy as np

    return records.take(np.argsort(np.ascontiguousarray(records["key"]), kind="stable"))


def split_pieces(
    sorter: Sorter, missing: Sequence[str], fractions: Sequence[float], name: str
) -> Iterator[tuple[str, Array]]:
    """Records with the part that they belong to: the missing parts first, the rest for training. Raises DataError."""
    import numpy as np

    n = len(sorter)
    share = dict(zip(PARTS, fractions, strict=True))
    sizes = [max(1, int(n * share[part] + 1e-9)) for part in missing]
    if sum(sizes) >= n:
        raise DataError(f"{name} has {n} rows, too few for the split {list(fractions)}.")
    cuts = np.array([sorter.cut(int(rank)) for rank in np.cumsum(sizes)], dtype=np.uint64)
    found = dict.fromkeys((*missing, "train"), 0)
    for records in sorter.pieces():
        places = np.searchsorted(cuts, records["key"], side="right")
        for i, part in enumerate(found):
            chosen = records[places == i]
            found[part] += len(chosen)
            if len(chosen):
                yield part, chosen
    for part, size in [*zip(missing, sizes, strict=True), ("train", n - sum(sizes))]:
        if found[part] < (size + 1) // 2:
            raise DataError(
                f"{name} has {sorter.copies} copies among {n} rows, too many to keep equal rows in one part "
                f"in the split {list(fractions)}; remove them, give levels for integers, or the parts as files."
            )
