"""diffeo edit inpaint and denoise: what is known stays, chains are judged, and wrong files are one sentence."""

import functools
import json

import numpy as np
import pytest
from PIL import Image

import diffeo
from diffeo.applications import most_likely, write_pictures

RUN = "digits-glow"
SHORT = ("--chains", 2, "--draws", 4, "--warmup", 2)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    return write_pictures(diffeo.data.load("digits").test[:2], folder / "in", diffeo.load(RUN))


def painted(path, pixels, mode="L"):
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).convert(mode).save(path)
    return path


def right_half(size=(8, 8)):
    pixels = np.zeros(size)
    pixels[:, size[1] // 2 :] = 255
    return pixels


def grey(path):
    return np.asarray(Image.open(path)).astype(int)


def test_inpaint_keeps_what_is_known(pictures, tmp_path, diffeo_command, capsys):
    mask = painted(tmp_path / "mask.png", right_half(), "RGB")
    out, deviation = tmp_path / "out.png", tmp_path / "deviation.png"
    args = ["edit", "inpaint", RUN, pictures[0], "--mask", mask, "--out", out, *SHORT]
    assert diffeo_command(*args, "--uncertainty", deviation, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["paths"] == [str(out)]
    assert told["uncertainty"] == [str(deviation)]
    assert told["converged"] == [False]
    assert len(told["rhat"]) == len(told["effective"]) == 1
    assert 0 <= told["accepted"][0] <= 1
    assert (grey(out)[:, :4] == grey(pictures[0])[:, :4]).all()
    assert (grey(out)[:, 4:] != grey(pictures[0])[:, 4:]).any()
    assert (grey(deviation)[:, :4] == 0).all()
    assert (grey(deviation)[:, 4:] > 0).any()
    first = grey(out)
    boxed = [a for a in args if a not in ("--mask", mask)]
    assert diffeo_command(*boxed, "--box", "0,4,8,4") == 0
    assert (grey(out) == first).all()
    text = " ".join(capsys.readouterr().out.split())
    assert "R-hat" in text
    assert "1 of 1 picture not converged" in text


def test_denoise(pictures, tmp_path, diffeo_command, capsys, monkeypatch):
    quick = functools.partial(most_likely, steps=2)
    monkeypatch.setattr("diffeo.applications.most_likely", quick)
    folder = tmp_path / "made"
    args = ["edit", "denoise", RUN, *pictures, "--sigma", 64, "--out", folder]
    assert diffeo_command(*args, *SHORT, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["pictures"] == len(told["rhat"]) == len(told["paths"]) == 2
    assert diffeo_command(*args, "--map", "--json") == 0
    assert "rhat" not in json.loads(capsys.readouterr().out)
    assert grey(folder / "0.png").shape == (8, 8)


def test_masks_that_do_not_fit(pictures, tmp_path, refused):
    out = tmp_path / "out.png"

    def said(*args):
        return refused("inpaint", RUN, pictures[0], "--out", out, *args)

    assert "by --mask or by --box" in said()
    black = painted(tmp_path / "black.png", np.zeros((8, 8)))
    assert "is all black" in said("--mask", black)
    assert "by --mask or by --box" in said("--mask", black, "--box", "0,0,2,2")
    assert "is all white" in said("--mask", painted(tmp_path / "w.png", np.full((8, 8), 255)))
    wide = painted(tmp_path / "wide.png", right_half((8, 9)))
    assert "is 8x9, and the flow's pictures are 8x8" in said("--mask", wide)
    text = tmp_path / "text.png"
    text.write_text("no picture")
    assert "is no PNG or JPEG file" in said("--mask", text)
    assert "there is no file" in said("--mask", tmp_path / "none.png")
    assert "TOP,LEFT,HEIGHT,WIDTH" in said("--box", "1,2,3")
    assert "not within the picture" in said("--box", "4,4,5,4")
    assert "hides the whole picture" in said("--box", "0,0,8,8")
    assert not out.exists()


def test_pictures_that_do_not_fit(pictures, tmp_path, refused):
    out = tmp_path / "out.png"
    for name, mode, size, said in (
        ("large", "L", (8, 9), "is 8x9 and grey"),
        ("colour", "RGB", (8, 8), "is 8x8 and in colour"),
        ("clear", "RGBA", (8, 8), "is 8x8 and in colour"),
    ):
        wrong = painted(tmp_path / f"{name}.png", right_half(size), mode)
        assert said in refused("denoise", RUN, wrong, "--sigma", 9, "--out", out)
    assert "positive number" in refused("denoise", RUN, pictures[0], "--sigma", 0, "--out", out)
    assert not out.exists()


def test_what_is_read_stays(pictures, tmp_path, refused):
    mask = painted(tmp_path / "mask.png", right_half())
    before = [pictures[0].read_bytes(), mask.read_bytes()]
    out = tmp_path / "out.png"
    given = ("inpaint", RUN, pictures[0], "--mask", mask)
    for path in (pictures[0], mask):
        assert "would write over" in refused(*given, "--out", path)
        assert "would write over" in refused(*given, "--out", out, "--uncertainty", path)
    assert "choose two names" in refused(*given, "--out", out, "--uncertainty", out)
    assert "leave one of them out" in refused(
        *given, "--map", "--out", out, "--uncertainty", tmp_path / "d.png"
    )
    assert [pictures[0].read_bytes(), mask.read_bytes()] == before
    assert not out.exists()
