"""Text files as strings: what is read, and what is refused in one sentence."""

from __future__ import annotations

import gzip

import pytest
import torch

import diffeo
from diffeo.data.strings import Strings, read_lines, strings_of, well_formed
from diffeo.errors import ConfigError, DataError, InputError

WORDS = [a + b + c for a in "abcd" for b in "xy" for c in ("", "e", "ee")]


@pytest.fixture
def words(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("\n".join(WORDS) + "\n")
    return path


def test_codes_and_back() -> None:
    strings = Strings("aß ", 4)
    given = ["", "a", "ß a", "aaaa"]
    codes = strings.encode(given)
    assert codes.dtype == torch.uint8
    assert codes.tolist() == [[0] * 4, [1, 0, 0, 0], [2, 3, 1, 0], [1] * 4]
    assert strings.decode(codes) == given
    ill = torch.tensor([[1, 0, 2, 0], [0, 0, 0, 1]])
    assert strings.decode(ill) == ["a", ""]
    assert well_formed(torch.cat([codes.long(), ill])).tolist() == [True] * 4 + [False] * 2


def test_more_characters_than_a_byte_counts() -> None:
    strings = Strings("".join(map(chr, range(0x4E00, 0x4E00 + 300))), 2)
    assert strings.encode([chr(0x4E00 + 299)]).tolist() == [[300, 0]]


def test_a_string_without_a_code_is_not_repeated() -> None:
    with pytest.raises(DataError, match="string 2 has no known character at place 3") as error:
        Strings("abc", 9).encode(["abc", "abSecret"])
    assert "Secret" not in str(error.value)


@pytest.mark.parametrize(
    ("alphabet", "message"), [("", "at least one"), ("aba", "'a' twice"), ("a\n", "line break")]
)
def test_an_alphabet_that_is_none(alphabet: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Strings(alphabet, 3)


def test_load(words) -> None:
    data = diffeo.data.load(words)
    assert data.alphabet == "exyabcd"  # by frequency, equal ones by their number
    assert (data.levels, tuple(data.event_shape)) == (8, (4,))
    rows = torch.cat([data.train, data.validation, data.test])
    assert sorted(Strings("exyabcd", 4).decode(rows)) == sorted(WORDS)
    wide = diffeo.data.load(words, alphabet="abcdexyz", length=6)
    assert (wide.alphabet, wide.levels, tuple(wide.event_shape)) == ("abcdexyz", 9, (6,))


def test_line_ends_marks_and_compression(tmp_path) -> None:
    path = tmp_path / "list.txt.gz"
    path.write_bytes(gzip.compress("\ufeffab\r\n\r\nc d\r\n".encode()))
    assert list(read_lines(path)) == [(1, "ab"), (3, "c d")]
    assert strings_of(path) == Strings(" abcd", 3)


def test_what_cannot_be_read(tmp_path, words) -> None:
    other = tmp_path / "other.txt"
    other.write_text("ax\nzzz\n")
    with pytest.raises(DataError, match=r"other\.txt, line 2 has no known character at place 1"):
        diffeo.data.load(words, test=other)
    with pytest.raises(DataError, match="line 2 is 3 characters long, expected at most 2"):
        diffeo.data.load(words, length=2, alphabet="abcdexy", test=other)
    with pytest.raises(InputError, match="alphabet is for strings"):
        diffeo.data.load(_csv(tmp_path), alphabet="ab")
    with pytest.raises(InputError, match="levels = 5: leave levels out"):
        diffeo.data.load(words, levels=5)
    for name, content, message in (
        ("empty.txt", b"\n\n", "holds no string"),
        ("latin.txt", b"caf\xe9\n", "no text in UTF-8"),
        ("broken.txt.gz", gzip.compress(b"abc\n" * 99)[:-20], "compression is broken"),
        ("plain.txt.gz", b"abc\n", "cannot be read"),
        ("book.txt", b"a" * 300 + b"\n", "300 characters long"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=message):
            diffeo.data.load(tmp_path / name)
    with pytest.raises(DataError, match="there is no file"):
        diffeo.data.load(tmp_path / "missing.txt")


def _csv(folder):
    path = folder / "table.csv"
    path.write_text("a,b\n" + "\n".join(f"{i},{i * i % 7}" for i in range(20)))
    return path
