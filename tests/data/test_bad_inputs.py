"""Every input that cannot be used is one sentence that names it, and nothing is written."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from tests.data.bad_files import CASES
from tests.data.files import BODY, ROWS, npy, text

from diffeo.data import load, parts
from diffeo.errors import ConfigError, DataError, InputError


def check_sentence(message: str) -> None:
    assert "\n" not in message
    assert message.endswith((".", "?"))
    assert len(message) < 400


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("large", [False, True], ids=["in memory", "larger than memory"])
def test_bad_input(case: str, large: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, options, message = CASES[case]
    folder, cache = tmp_path / "d", tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("DIFFEO_CACHE", str(cache))
    monkeypatch.chdir(folder)
    if large:
        monkeypatch.setattr(parts, "LARGE", 0)
    path = write(folder)
    before = sorted(folder.rglob("*"))
    with pytest.raises((DataError, InputError), match=message) as info:
        load(str(path), **options)
    check_sentence(str(info.value))
    if "got" not in str(info.value):
        assert str(folder) in str(info.value) or any(
            str(v) in str(info.value) for v in options.values()
        )
    assert sorted(folder.rglob("*")) == before
    assert not cache.exists() or not list(cache.iterdir())


OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "seed": ({"seed": -1}, "seed must be an integer of 0 or more, got -1"),
    "real seed": ({"seed": 0.5}, "seed must be an integer"),
    "few": ({"size": 9}, "size must be an integer of 10"),
    "text size": ({"size": "many"}, "size must be an integer"),
    "one level": ({"levels": 1}, "levels must be an integer of 2 or more"),
    "no bits": ({"bits": 0}, r"bits must be an integer in 1\.\.8, got 0"),
    "many bits": ({"bits": 9}, r"bits must be an integer in 1\.\.8, got 9"),
    "sum of split": ({"split": (0.8, 0.1, 0.2)}, "with the sum 1, got"),
    "two parts": ({"split": (0.8, 0.2)}, "split must be three"),
    "no test": ({"split": (0.9, 0.1, 0.0)}, "split must be three fractions above 0"),
    "text in split": ({"split": ("a", 0.1, 0.1)}, "split must be three"),
    "no size": ({"image_size": 0}, "image_size must be .* got 0"),
    "negative size": ({"image_size": (8, -8)}, "image_size must be"),
    "three sizes": ({"image_size": (8, 8, 3)}, "image_size must be"),
    "fit": ({"fit": "stretch"}, "fit must be resize or crop, got 'stretch'"),
    "two channels": ({"channels": 2}, "channels must be 1 or 3, got 2"),
    "one name": ({"columns": "x"}, "columns must be a list of names"),
    "bits of real numbers": ({"bits": 5}, "'moons' holds real numbers"),
    "levels of real numbers": ({"levels": 5}, "continuous"),
    "size of moons": ({"image_size": 8}, "image_size is for files"),
    "test of moons": ({"test": "b.csv"}, "test is for files"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_bad_option(case: str) -> None:
    options, message = OPTIONS[case]
    with pytest.raises((InputError, DataError), match=message) as info:
        load("moons", **options)
    check_sentence(str(info.value))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digit", "did you mean 'digits'"),
        ("MNIST", "did you mean 'mnist'"),
        ("zzz", "known: digits, moons"),
        ("no/such/folder", "there is no built-in data set and no file 'no/such/folder'"),
    ],
)
def test_unknown_name(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as info:
        load(name)
    check_sentence(str(info.value))


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_missing_built_in_set(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFEO_DATA", str(tmp_path))
    with pytest.raises(DataError, match="set DIFFEO_DATA") as info:
        load(name)
    check_sentence(str(info.value))


def test_unwritable_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "LARGE", 0)
    monkeypatch.setenv("DIFFEO_CACHE", str(text(tmp_path, "a file") / "cache"))
    with pytest.raises(DataError, match="set DIFFEO_CACHE to a folder with room") as info:
        load(npy(tmp_path, ROWS))
    check_sentence(str(info.value))


@pytest.mark.parametrize(
    "values",
    [{"split": [0.8, 0.2]}, {"bits": 9}, {"fit": "stretch"}, {"channels": 2}, {"colums": ["a"]}],
)
def test_bad_recipe(values: dict[str, Any]) -> None:
    from diffeo.training.recipe import recipe

    with pytest.raises(ConfigError, match=next(iter(values))):
        recipe({"model": "realnvp", "data": {"source": "a.csv", **values}})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,nan\n" + BODY, "column 'b' holds nan"),
        ("a,b\n1,2\n3\n" + BODY, "1 cells"),
        ("a,b\n1,x\n" + BODY, "holds 'x'"),
    ],
)
def test_command_line(
    content: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from diffeo.cli import main

    path = text(tmp_path, content)
    command = ["diffeo", "train", "realnvp", "--data", str(path), "--out", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", [*command, "--size", "tiny", "--steps", "1"])
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit) as info:
        main()
    assert info.value.code == 2
    shown = capfd.readouterr().err
    assert message in " ".join(shown.split())
    assert "Traceback" not in shown
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]
