"""The table of files that cannot be used: how to write each, the options to load it with, what the sentence says."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tests.data.files import BODY, ROWS, npy, npz, parquet, picture, pictures, text

INTEGERS = np.arange(40).reshape(20, 2)
RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (6, 4), dtype=np.uint8)


def with_values(*places: tuple[int, float]) -> Any:
    table = ROWS.copy()
    for row, value in places:
        table[row, 1] = value
    return table


def foreign_zip(path: Path) -> Path:
    with zipfile.ZipFile(path / "a.npz", "w") as archive:
        archive.writestr("a.txt", "hello")
    return path / "a.npz"


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-50])
    return path


def broken_lzma(path: Path) -> Path:
    with zipfile.ZipFile(path / "a.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("x.npy", npy(path, RANDOM.normal(size=(50, 2))).read_bytes())
    content = bytearray((path / "a.npz").read_bytes())
    content[100:400] = bytes(300)
    return text(path, bytes(content), "a.npz")


def folder_with(folder: Path, bad: Callable[[Path], Path]) -> Path:
    bad(pictures(folder))
    return folder


def rgb(folder: Path) -> Path:
    return picture(folder, "b.png", RANDOM.integers(0, 256, (6, 4, 3), dtype=np.uint8))


def same_pictures(folder: Path) -> Path:
    for i in range(20):
        picture(folder, f"{i}.png", GREY)
    return folder


def two_parts(folder: Path) -> Path:
    (folder / "test").mkdir()
    pictures(folder / "train")
    text(folder, "no picture", "test/readme.txt")
    return folder


Writer = Callable[[Path], Path]
Table = dict[str, tuple[Writer, dict[str, Any], str]]

ARRAYS: Table = {
    "missing": (lambda p: p / "no.npy", {}, "there is no file .*no.npy"),
    "ending": (lambda p: text(p, "1", "a.dat"), {}, "'.dat', expected one of .npy, .npz, .csv"),
    "no ending": (lambda p: text(p, "1", "a"), {}, "has no ending"),
    "folder of that name": (lambda p: (p / "a.npy").mkdir() or p / "a.npy", {}, "no picture"),
    "empty npy": (lambda p: text(p, "", "a.npy"), {}, "a.npy is empty"),
    "empty npz": (lambda p: text(p, "", "a.npz"), {}, "a.npz is empty"),
    "not npy": (lambda p: text(p, "hello, world", "a.npy"), {}, "not a readable npy"),
    "not npz": (lambda p: text(p, "hello, world", "a.npz"), {}, "not a readable npz"),
    "zip of text": (foreign_zip, {}, "not a readable npy"),
    "truncated npy": (lambda p: cut(npy(p, ROWS)), {}, "not a readable npy"),
    "truncated npz": (lambda p: cut(npz(p, x=ROWS)), {}, "not a readable npz"),
    "broken lzma": (broken_lzma, {}, "not a readable npy"),
    "objects": (lambda p: npy(p, np.array([{}] * 20)), {}, "pickle"),
    "objects npz": (lambda p: npz(p, x=np.array([{}] * 20)), {}, "pickle"),
    "no array": (lambda p: npz(p), {}, "holds no array"),
    "keys": (lambda p: npz(p, a=ROWS, b=ROWS), {}, r"it holds a \[40, 2\], b \[40, 2\]"),
    "labels": (lambda p: npz(p, x=ROWS, labels=np.arange(3)), {}, "'labels' must be"),
    "parts": (
        lambda p: npz(p, train=ROWS, test=ROWS[:, :1]),
        {},
        r"'test' has rows of real numbers \[1\], but 'train'",
    ),
    "test in train": (lambda p: npz(p, train=ROWS, test=ROWS[:5]), {}, "all 5 rows of the test"),
    "complex": (lambda p: npy(p, ROWS * 1j), {}, "dtype complex128"),
    "strings": (lambda p: npy(p, ROWS.astype(str)), {}, "dtype <U"),
    "dates": (lambda p: npy(p, INTEGERS.astype("M8[D]")), {}, "dtype datetime64"),
    "records": (lambda p: npy(p, np.zeros(20, "i4,f4")), {}, "expected real numbers"),
    "scalar": (lambda p: npy(p, np.array(3.0)), {}, "a single number"),
    "no row": (lambda p: npy(p, ROWS[:0]), {}, "0 rows, expected at least 10"),
    "few rows": (lambda p: npy(p, ROWS[:9]), {}, "9 rows, expected at least 10"),
    "no columns": (lambda p: npy(p, ROWS[:, :0]), {}, "hold nothing"),
    "nan": (
        lambda p: npy(p, with_values(*((i, np.nan) for i in (3, 5, 7, 9)))),
        {},
        "row 3, column 1 holds nan.*4 of the rows 0 to 39",
    ),
    "inf": (lambda p: npy(p, with_values((4, -np.inf))), {}, "row 4, column 1 holds -inf"),
    "overflow": (lambda p: npy(p, with_values((4, 1e39))), {}, r"row 4.*holds 1e\+39.*float32"),
    "above levels": (lambda p: npy(p, INTEGERS), {"levels": 30}, r"row 15.*holds 30.*in 0\.\.29"),
    "below levels": (lambda p: npy(p, INTEGERS - 1), {"levels": 99}, "row 0, column 0 holds -1"),
    "between levels": (lambda p: npy(p, INTEGERS / 4), {"levels": 99}, "holds 0.25, expected an"),
    "negative image": (lambda p: npy(p, -np.ones((20, 4, 4), int)), {}, "the integer -1"),
    "constant column": (lambda p: npy(p, ROWS * [0, 1]), {}, "column 0 has one value"),
    "copied column": (lambda p: npy(p, ROWS[:, [0, 1, 0]]), {}, "column 2 is a copy of column 0"),
    "copied rows": (lambda p: npy(p, ROWS[[0] * 39 + [1]]), {}, "38 copies among 40 rows"),
    "columns of an array": (
        lambda p: npy(p, ROWS),
        {"columns": ["a"]},
        "2 columns, expected the 1",
    ),
    "columns of images": (
        lambda p: npy(p, INTEGERS.reshape(20, 1, 2)),
        {"columns": ["a"]},
        "columns of a table",
    ),
    "bits of real numbers": (lambda p: npy(p, ROWS), {"bits": 4}, "holds real numbers"),
    "image_size of a file": (lambda p: npy(p, ROWS), {"image_size": 8}, "is for folders"),
    "same file": (lambda p: npy(p, ROWS), {"test": "a.npy"}, "given for train and for test"),
    "missing test": (lambda p: npy(p, ROWS), {"test": "no.csv"}, "there is no file"),
    "split too fine": (lambda p: npy(p, ROWS[:10]), {"split": (0.01, 0.98, 0.01)}, "too few for"),
}

TEXTS: Table = {
    "empty": (lambda p: text(p, ""), {}, "is empty"),
    "blank": (lambda p: text(p, "\n\n"), {}, "no row of numbers"),
    "header only": (lambda p: text(p, "a,b\n"), {}, "no row of numbers"),
    "few rows": (lambda p: text(p, "a,b\n1,2\n3,4\n"), {}, "2 rows, expected at least 10"),
    "ragged": (
        lambda p: text(p, BODY + "1,2,3\n"),
        {},
        r"row 12 \(line 13\) has 3 cells, expected 2",
    ),
    "short row": (lambda p: text(p, BODY + "1\n"), {}, r"row 12 \(line 13\) has 1 cells"),
    "text": (
        lambda p: text(p, "a,b\n1,2\n\n3,four\n" + BODY),
        {},
        r"row 1 \(line 4\), column 'b' holds 'four', expected a number",
    ),
    "long text": (lambda p: text(p, "a,b\n1," + "x" * 999 + "\n"), {}, r"xxx \.\.\.'"),
    "text, no header": (lambda p: text(p, "1,two\n" + BODY), {}, "row 0 .*column 1.*a header must"),
    "blank cell": (lambda p: text(p, "a,b\n1,\n" + BODY), {}, "column 'b' is empty"),
    "python number": (lambda p: text(p, "a,b\n1,1_0\n" + BODY), {}, "holds '1_0'"),
    "nan": (
        lambda p: text(p, "a,b\n1,nan\n" + BODY),
        {},
        r"row 0 \(line 2\), column 'b' holds nan",
    ),
    "overflow": (lambda p: text(p, "a,b\n1,1e999\n" + BODY), {}, "column 'b' holds inf"),
    "second header": (lambda p: text(p, "a,b\n" + BODY + "a,b\n" + BODY), {}, "repeats the header"),
    "nameless column": (lambda p: text(p, ",b\n" + BODY), {}, "column 0 has no name in the header"),
    "equal names": (lambda p: text(p, "a,a\n" + BODY), {}, "column name 'a' is there twice"),
    "spaces": (
        lambda p: text(p, "a b\n" + BODY.replace(",", " ")),
        {},
        "separate columns by commas",
    ),
    "bars": (lambda p: text(p, BODY.replace(",", "|")), {}, "separate columns by commas"),
    "decimal comma": (
        lambda p: text(p, "a;b\n" + "".join(f"{i},5;{i * i},1\n" for i in range(12))),
        {},
        "column 'a' holds '0,5', expected a number; write decimals with a point",
    ),
    "decimal comma, no header": (lambda p: text(p, "1,5;2,5\n" * 12), {}, "decimals with a point"),
    "latin-1": (lambda p: text(p, "größe,b\n".encode("latin-1") + BODY.encode()), {}, "UTF-8"),
    "latin-1 below": (
        lambda p: text(p, ("a,b\n" + BODY + "1,ß\n").encode("latin-1")),
        {},
        "line 14 holds the byte 0xdf",
    ),
    "utf-16": (lambda p: text(p, BODY.encode("utf-16")), {}, "byte 0xff, expected text in UTF-8"),
    "nul": (lambda p: text(p, BODY + "1,\0\n"), {}, r"a\.csv"),
    "unknown column": (
        lambda p: text(p, "width,height\n" + BODY),
        {"columns": ["heigth"]},
        r"no column 'heigth' among its 2 columns \(width, height\); did you mean 'height'\?",
    ),
    "column twice": (
        lambda p: text(p, "a,b\n" + BODY),
        {"columns": ["a", "a"]},
        "'a' is there twice",
    ),
    "constant column": (
        lambda p: text(p, "a,b\n" + "".join(f"{i},7\n" for i in range(12))),
        {},
        "column 'b' has one value in every training row",
    ),
    "copied column": (
        lambda p: text(p, "a,b\n" + "".join(f"{i},{i}.0\n" for i in range(12))),
        {},
        "column 'b' is a copy of column 'a'",
    ),
    "other columns": (
        lambda p: (text(p, "a,c\n" + BODY, "b.csv"), text(p, "a,b\n" + BODY))[1],
        {"test": "b.csv"},
        "b.csv has no column 'b'",
    ),
}

PARQUETS: Table = {
    "empty": (lambda p: text(p, "", "a.parquet"), {}, "is empty"),
    "not parquet": (lambda p: text(p, "hello" * 9, "a.parquet"), {}, "not a readable parquet"),
    "truncated": (lambda p: cut(parquet(p, a=ROWS[:, 0])), {}, "not a readable parquet"),
    "text": (
        lambda p: parquet(p, a=ROWS[:, 0], b=["x"] * 40),
        {},
        "column 'b' holds values of type string, expected numbers",
    ),
    "nested": (lambda p: parquet(p, a=[[1.0]] * 40), {}, "column 'a' holds nested values"),
    "dates": (lambda p: parquet(p, a=ROWS[:, 0].astype("M8[s]")), {}, "values of type timestamp"),
    "null": (
        lambda p: parquet(p, a=ROWS[:, 0], b=[*range(20), None, *range(19)]),
        {},
        r"row 20, column 'b' is empty \(null\)",
    ),
    "nan": (
        lambda p: parquet(p, a=with_values((17, np.nan))[:, 1]),
        {},
        "row 17, column 'a' holds",
    ),
    "no columns": (lambda p: parquet(p), {}, "has no column"),
    "few rows": (lambda p: parquet(p, a=ROWS[:3, 0]), {}, "3 rows, expected at least 10"),
    "unknown column": (lambda p: parquet(p, a=ROWS[:, 0]), {"columns": ["A"]}, "did you mean 'a'"),
}

PICTURES: Table = {
    "no picture": (lambda p: text(p, "a").parent, {}, "holds no picture"),
    "empty test folder": (two_parts, {}, "test holds no picture"),
    "few pictures": (lambda p: pictures(p, 4), {}, "4 rows, expected at least 10"),
    "mixed size": (
        lambda p: folder_with(p, lambda f: picture(f, "x.png", GREY[:5])),
        {},
        r"000.png is 6x4 and 5x4 is the size of .*x.png.*set image_size",
    ),
    "grey and colour": (lambda p: folder_with(p, rgb), {}, "set channels to 1 or 3"),
    "empty picture": (
        lambda p: folder_with(p, lambda f: text(f, "", "b.png")),
        {},
        "b.png is empty",
    ),
    "text as picture": (
        lambda p: folder_with(p, lambda f: text(f, "a", "b.jpg")),
        {},
        "no PNG or JPEG",
    ),
    "truncated picture": (
        lambda p: folder_with(p, lambda f: cut(f / "003.png")),
        {},
        "003.png is not",
    ),
    "16 bits": (
        lambda p: folder_with(p, lambda f: picture(f, "b.png", GREY.astype(np.uint16) * 200)),
        {},
        "b.png is a 16-bit picture",
    ),
    "cmyk": (
        lambda p: folder_with(p, lambda f: picture(f, "b.jpg", GREY, "CMYK")),
        {},
        "b.jpg is a CMYK picture",
    ),
    "transparent": (
        lambda p: folder_with(p, lambda f: picture(f, "b.png", np.stack([GREY, GREY // 2], -1))),
        {},
        "b.png has transparent pixels",
    ),
    "columns": (pictures, {"columns": ["a"]}, "columns is for tables"),
    "levels": (pictures, {"levels": 16}, "got levels = 16; for fewer levels set bits"),
    "copies": (
        same_pictures,
        {},
        "19 copies",
    ),
    "file for test": (
        pictures,
        {"test": "000.png"},
        "expected one of|is a file, expected a folder",
    ),
}

CASES = {
    f"{kind}: {case}": value
    for kind, table in (
        ("array", ARRAYS),
        ("csv", TEXTS),
        ("parquet", PARQUETS),
        ("pictures", PICTURES),
    )
    for case, value in table.items()
}
