"""A model of pictures given pictures, on the command line: from a folder of them to colours for grey ones."""

import json

import numpy as np
import pytest
from PIL import Image
from tests.cli.command import run

import diffeo
from diffeo.data import load


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """40 pictures in colour, 8 x 8."""
    folder = tmp_path_factory.mktemp("photographs")
    for i in range(40):
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    return folder


@pytest.fixture(scope="module")
def colours(photographs, tmp_path_factory):
    """A run that draws colours given grey pictures."""
    folder = tmp_path_factory.mktemp("runs") / "colours"
    settings = ["data.given=grey", "hyper.condition=all", "data.bits=5"]
    with pytest.MonkeyPatch.context() as patch:
        args = ["train", "glow", *settings, "--data", photographs, "--size", "tiny", "--steps", 3]
        assert run(patch, *args, "--out", folder, "--quiet") == 0
    return folder


@pytest.fixture
def refused(diffeo_command, capsys):
    """`refused(...)` is the sentence with which a command ends."""

    def end(*args):
        assert diffeo_command(*args) == 2
        text = capsys.readouterr().err
        assert "Traceback" not in text
        return " ".join(text.split())

    return end


@pytest.fixture
def grey(photographs, tmp_path):
    """Two of the pictures in grey."""
    paths = []
    for i in range(2):
        paths.append(tmp_path / f"grey{i}.png")
        Image.open(photographs / f"{i:02d}.png").convert("L").save(paths[-1])
    return paths


def test_the_run_knows_what_it_is_given(colours, photographs, diffeo_command, tmp_path, capsys):
    flow = diffeo.load(colours)
    assert (flow.event_shape, flow.context_shape) == ((3, 8, 8), (1, 8, 8))
    assert "in grey" in (colours / "report.html").read_text()
    assert "Not shown" not in (colours / "report.html").read_text()
    assert diffeo_command("evaluate", colours, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    data = load(photographs, bits=5, given="grey")
    bits = flow.bits_per_dim(data.test, data.context(data.test)).mean().item()
    assert told["rows"][0]["bits"] == pytest.approx(bits, abs=0.05)
    assert diffeo_command("audit", colours, "--rows", 4, "--json") == 0
    capsys.readouterr()
    out = tmp_path / "scores.csv"
    assert diffeo_command("score", colours, photographs, "--out", out) == 0
    scores = np.genfromtxt(out, delimiter=",", names=True)
    assert len(scores) == 40
    x = load_all(photographs, flow)
    expected = flow.log_prob(x, data.context(x)).mean().item()
    assert scores["log_prob"].mean() == pytest.approx(expected, rel=0.01)
    assert diffeo_command("encode", colours, photographs, "--out", tmp_path / "z.npy") == 0
    z = flow.encode(x, data.context(x)).detach().numpy()
    np.testing.assert_allclose(np.load(tmp_path / "z.npy"), z, atol=1e-3)


def load_all(folder, flow):
    import torch

    pixels = [np.asarray(Image.open(p)).transpose(2, 0, 1) for p in sorted(folder.glob("*.png"))]
    return torch.tensor(np.stack(pixels) >> 3)


def test_colours_for_grey_pictures(colours, grey, tmp_path, diffeo_command, capsys):
    args = ["edit", "colorize", colours, *grey, "--samples", 3, "--temperature", 0.5]
    assert diffeo_command(*args, "--out", tmp_path / "made", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["pictures"] == len(told["paths"]) == 6
    made = [np.asarray(Image.open(p)) for p in told["paths"]]
    assert made[0].shape == (8, 8, 3)
    assert not np.array_equal(made[0], made[1])
    assert diffeo_command(*args, "--out", tmp_path / "sheet.png") == 0
    assert Image.open(tmp_path / "sheet.png").size == (3 * 68 - 4, 2 * 68 - 4)
    one = ["edit", "colorize", colours, grey[0], "--samples", 1, "--out", tmp_path / "one.png"]
    assert diffeo_command(*one) == 0
    assert Image.open(tmp_path / "one.png").size == (8, 8)


def test_wrong_pictures_and_runs(colours, photographs, grey, tmp_path, refused, diffeo_command):
    out = tmp_path / "out.png"
    draw = ("edit", "colorize", colours)
    photograph = photographs / "00.png"
    told = refused(*draw, photograph, "--out", out)
    assert "is 8x8 and in colour, and the flow takes 8x8 and grey" in told
    assert diffeo_command(*draw, photograph, "--fit", "crop", "--out", out) == 0
    out.unlink()
    Image.new("L", (9, 8)).save(tmp_path / "large.png")
    assert "is 8x9 and grey" in refused(*draw, tmp_path / "large.png", "--out", out)
    (tmp_path / "text.png").write_text("no picture")
    assert "no PNG or JPEG" in refused(*draw, tmp_path / "text.png", "--out", out)
    assert "would write over" in refused(*draw, grey[0], "--out", grey[0])
    assert "given small ones" in refused("edit", "enlarge", colours, grey[0], "--out", out)
    assert "is given nothing" in refused("edit", "colorize", "digits-glow", grey[0], "--out", out)
    assert "edit colorize" in refused("sample", colours, "--out", out)
    assert "needs a context" in refused("edit", "keep", colours, photograph, "--out", out)
    assert not out.exists()


def test_larger_pictures_from_small_ones(tmp_path, diffeo_command):
    flow = diffeo.zoo.build("glow", (3, 8, 8), (3, 2, 2), "tiny", condition="all")
    run = flow.save(tmp_path / "larger")
    small = tmp_path / "small.png"
    Image.new("RGB", (2, 2), (10, 200, 30)).save(small)
    out = tmp_path / "large"
    assert diffeo_command("edit", "enlarge", run, small, "--out", out) == 0
    assert [Image.open(p).size for p in sorted(out.iterdir())] == [(8, 8)] * 4


def test_settings_that_do_not_fit(photographs, tmp_path, refused, colours):
    args = (
        "--data",
        photographs,
        "--size",
        "tiny",
        "--steps",
        1,
        "--out",
        tmp_path / "run",
        "--quiet",
    )
    assert "which is glow, not realnvp" in refused("train", "realnvp", "data.given=grey", *args)
    assert "data.given" in refused("train", "glow", "data.given=red", *args)
    assert "quarter needs" in refused("train", "glow", "data.given=quarter", "data.image_size=6", *args)  # fmt: skip
    assert "data.given makes (3, 4, 4)" in refused(
        "train", "data.given=half", "--from", colours, *args
    )
    assert not (tmp_path / "run").exists()
