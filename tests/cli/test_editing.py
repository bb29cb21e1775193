"""diffeo edit: pictures of the right size come out, wrong ones are one sentence, and nothing that is read is lost."""

import json

import numpy as np
import pytest
from PIL import Image

import diffeo
from diffeo.applications import read_pictures, write_pictures

RUN = "digits-glow"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Four digits as ordinary files."""
    folder = tmp_path_factory.mktemp("pictures")
    return write_pictures(diffeo.data.load("digits").test[:4], folder / "in", diffeo.load(RUN))


@pytest.fixture
def refused(diffeo_command, capsys):
    """`refused(...)` is the sentence with which an edit ends."""

    def run(*args):
        assert diffeo_command("edit", *args) == 2
        text = capsys.readouterr().err
        assert "Traceback" not in text
        return " ".join(text.split())

    return run


def test_files_and_events(pictures):
    flow, x = diffeo.load(RUN), diffeo.data.load("digits").test[:4]
    assert Image.open(pictures[0]).size == (8, 8)
    assert Image.open(pictures[0]).mode == "L"
    assert read_pictures(pictures, flow).equal(x)
    assert read_pictures(pictures[0].parent, flow).equal(x)


def test_a_path(pictures, tmp_path, diffeo_command, capsys):
    args = ["edit", "interpolate", RUN, *pictures[:2], "--steps", 3]
    assert diffeo_command(*args, "--out", tmp_path / "path", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["pictures"] == len(told["paths"]) == 3
    for given, made in ((pictures[0], told["paths"][0]), (pictures[1], told["paths"][2])):
        np.testing.assert_array_equal(np.asarray(Image.open(made)), np.asarray(Image.open(given)))
    assert diffeo_command(*args, "--out", tmp_path / "sheet.png") == 0
    assert Image.open(tmp_path / "sheet.png").size == (3 * 68 - 4, 64)


def test_the_other_edits(pictures, tmp_path, diffeo_command):
    folder = pictures[0].parent
    out = tmp_path / "one.png"
    assert diffeo_command("edit", "keep", RUN, pictures[0], "--fraction", 1, "--out", out) == 0
    np.testing.assert_array_equal(np.asarray(Image.open(out)), np.asarray(Image.open(pictures[0])))
    assert diffeo_command("edit", "manifold", RUN, *pictures, "--steps", 4, "--out", out) == 0
    assert Image.open(out).size == (4 * 68 - 4, 4 * 68 - 4)
    args = ["--having", folder, "--lacking", pictures[0], "--strength", 0, "--strength", 1]
    assert diffeo_command("edit", "attribute", RUN, folder, *args, "--out", tmp_path / "made") == 0
    assert len(list((tmp_path / "made").iterdir())) == 8


def wrong(path, mode, size):
    Image.new(mode, size).save(path)
    return path


def test_pictures_that_do_not_fit(pictures, tmp_path, refused, diffeo_command):
    out = tmp_path / "out.png"
    large = wrong(tmp_path / "large.png", "L", (9, 8))
    assert "is 8x9 and grey, and the flow takes 8x8 and grey" in refused(
        "keep", RUN, large, "--out", out
    )
    colour = wrong(tmp_path / "colour.png", "RGB", (8, 8))
    assert "is 8x8 and in colour" in refused("keep", RUN, colour, "--out", out)
    clear = wrong(tmp_path / "clear.png", "RGBA", (8, 8))
    assert "transparent" in refused("keep", RUN, clear, "--fit", "resize", "--out", out)
    text = tmp_path / "text.png"
    text.write_text("no picture")
    assert "is no PNG or JPEG file" in refused("keep", RUN, text, "--out", out)
    assert "there is no file" in refused("keep", RUN, tmp_path / "none.png", "--out", out)
    assert not out.exists()
    assert diffeo_command("edit", "keep", RUN, colour, large, "--fit", "crop", "--out", out) == 0


def test_what_is_read_stays(pictures, tmp_path, refused, table_run):
    before = pictures[0].read_bytes()
    for out in (pictures[0], pictures[0].parent):
        assert "would write over" in refused("keep", RUN, pictures[0], "--out", out)
    assert pictures[0].read_bytes() == before
    assert ".png or into a folder" in refused("keep", RUN, pictures[0], "--out", tmp_path / "o.gif")
    assert "integer pictures" in refused(
        "keep", table_run, pictures[0], "--out", tmp_path / "o.png"
    )
