"""Short strings as rows of integers: an alphabet, codes of one length, and text files with one string a line."""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import ConfigError, DataError
from .checks import check_number, listing
from .table import Block, Table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..flow import Flow

    Array = NDArray[Any]

SUFFIXES = (".txt", ".txt.gz")
LISTS = {"names": "names_makemore.txt.gz", "words": "words_wamerican.txt.gz"}
"""Lists of strings by name, in the folder strings of $DIFFEO_DATA."""
LONGEST = 256
"""The longest line that is taken for a short string where no length is given."""


def is_text(path: Path) -> bool:
    """Whether a file's name is that of a list of strings."""
    return path.name.lower().endswith(SUFFIXES)


def check_alphabet(characters: str) -> None:
    """Raise ConfigError unless the characters are different ones, of which a line of text can be made."""
    if not characters:
        raise ConfigError("an alphabet needs at least one character, got none")
    double = [c for c, n in Counter(characters).items() if n > 1]
    if double:
        raise ConfigError(f"an alphabet holds each character once, got {double[0]!r} twice")
    breaks = [c for c in characters if len(f"a{c}a".splitlines()) > 1]
    if breaks:
        raise ConfigError(f"an alphabet holds no line break, got {breaks[0]!r}")


@dataclass(frozen=True)
class Strings:
    """Strings of at most `length` characters of an alphabet as codes [length]: 0 ends, 1, 2, ... are the characters.

    >>> strings = Strings("ab", 3)
    >>> strings.encode(["ba", ""])
    tensor([[2, 1, 0],
            [0, 0, 0]], dtype=torch.uint8)
    >>> strings.decode(strings.encode(["ba", ""]))
    ['ba', '']
    """

    alphabet: str
    length: int

    def __post_init__(self) -> None:
        check_alphabet(self.alphabet)
        check_number("length", self.length, 1)

    @staticmethod
    def known(flow: Flow) -> Strings | None:
        """The strings that a flow models, if it says so: by `alphabet`, or trained on a text file."""
        alphabet = flow.provenance.get("hyper", {}).get("alphabet")
        return None if alphabet is None else Strings(alphabet, flow.event_shape[0])

    @staticmethod
    def of(flow: Flow) -> Strings:
        """The strings that a flow models. Raises DataError where it does not say so."""
        strings = Strings.known(flow)
        if strings is None:
            raise DataError(
                "this model is not of strings: it knows no alphabet, as one trained on a .txt file does."
            )
        return strings

    @property
    def levels(self) -> int:
        """Number of symbols: the characters and the end."""
        return len(self.alphabet) + 1

    def why_not(self, string: str) -> str | None:
        """What keeps a string from having a code, as the end of a sentence; None where it has one."""
        if len(string) > self.length:
            return f"is {len(string)} characters long, expected at most {self.length}"
        unknown = next((i for i, c in enumerate(string) if c not in self.alphabet), None)
        return None if unknown is None else f"has no known character at place {unknown + 1}"

    def encode(self, strings: Iterable[str]) -> Tensor:
        """Codes [n, length], uint8 up to 256 levels, else int64. Raises DataError for a string that has none.

        Messages give the number of a string and not its content, which may be a secret.
        """
        strings = list(strings)
        for i, string in enumerate(strings):
            reason = self.why_not(string)
            if reason is not None:
                raise DataError(f"string {i + 1} {reason} (alphabet of {len(self.alphabet)}).")
        return torch.from_numpy(self._codes(strings))

    def _codes(self, strings: Sequence[str]) -> Array:
        import numpy as np

        number = {c: i + 1 for i, c in enumerate(self.alphabet)}
        codes = np.zeros((len(strings), self.length), np.uint8 if self.levels <= 256 else np.int64)
        for row, string in zip(codes, strings, strict=True):
            row[: len(string)] = [number[c] for c in string]
        return codes

    def decode(self, codes: Tensor | Array) -> list[str]:
        """Strings up to the first end; see `well_formed` for codes that go on after it."""
        symbols = "\n" + self.alphabet
        rows = torch.as_tensor(codes).tolist()
        return ["".join(symbols[k] for k in row).split("\n", 1)[0] for row in rows]


def well_formed(codes: Tensor) -> Tensor:
    """Whether nothing but ends follows the first end, [n]: such a code is that of one string."""
    ended = (codes == 0).cumsum(1) > 0
    return ~(ended & (codes != 0)).any(1)


def read_lines(path: Path, start: int = 0) -> Iterator[tuple[int, str]]:
    """Line number, from 1 on, and content of the non-empty lines, from the given one of these on. Raises DataError."""
    open_: Any = gzip.open if path.name.lower().endswith(".gz") else open
    at = 0
    try:
        with open_(path, "rt", encoding="utf-8-sig", newline=None) as file:
            for number, line in enumerate(file, 1):
                string = line.rstrip("\n")
                if not string:
                    continue
                at += 1
                if at > start:
                    yield number, string
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text in UTF-8, expected one string a line.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or 'its compression is broken'}."
        ) from error


def strings_of(path: Path, alphabet: str | None = None, length: int | None = None) -> Strings:
    """The alphabet of a file, most frequent characters first, and the length of its longest line; or those given.

    Raises DataError for a file without strings, or with a line longer than LONGEST where no length is given.
    """
    if alphabet is not None and length is not None:
        return Strings(alphabet, length)
    counts: Counter[str] = Counter()
    longest = 0
    for number, string in read_lines(path):
        if length is None and len(string) > LONGEST:
            raise DataError(
                f"{path}, line {number} is {len(string)} characters long, expected strings of at most {LONGEST}; "
                "give the length that all have at most."
            )
        counts.update(string)
        longest = max(longest, len(string))
    if not longest:
        raise DataError(f"{path} holds no string, expected one a line.")
    # Equally frequent ones in the order of their numbers, so that a file always gives the same alphabet.
    found = sorted(counts, key=lambda c: (-counts[c], c))
    return Strings("".join(found) if alphabet is None else alphabet, length or longest)


def text_table(path: Path, strings: Strings) -> Table:
    """The non-empty lines of a file as codes. Its blocks raise DataError for a line that has none."""

    def blocks(start: int, size: int) -> Iterator[Block]:
        waiting: list[tuple[int, str]] = []
        for number, string in read_lines(path, start):
            reason = strings.why_not(string)
            if reason is not None:
                raise DataError(
                    f"{path}, line {number} {reason} (known: {listing(list(strings.alphabet), 100)})."
                )
            waiting.append((number, string))
            if len(waiting) == size:
                yield _block(strings, waiting)
                waiting = []
        if waiting:
            yield _block(strings, waiting)

    table = Table(path, None, None, (strings.length,), False, blocks)
    return replace(table, levels=strings.levels)


def _block(strings: Strings, lines: list[tuple[int, str]]) -> Block:
    return Block(strings._codes([s for _, s in lines]), [number for number, _ in lines])
