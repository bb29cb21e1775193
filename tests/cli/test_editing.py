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


def test_files_and_events(pictures):
    flow, x = diffeo.load(RUN), diffeo.data.load("digits").test[:4]
    assert Image.open(pictures[0]).size == (8, 8)
    assert Image.open(pictures[0]).mode == "L"
    assert read_pictures(pictures, flow).equal(x)
    assert read_pictures(pictures[0].parent, flow).equal(x)


def test_bits_are_dropped_as_in_training(tmp_path):
    grey = np.arange(64).reshape(8, 8).astype(np.uint8) * 4
    Image.fromarray(grey).save(tmp_path / "a.png")
    flow = diffeo.zoo.build("nice", (1, 8, 8), size="tiny", levels=32)
    x = read_pictures(tmp_path / "a.png", flow)
    np.testing.assert_array_equal(x[0, 0], grey >> 3)
    (again,) = write_pictures(x, tmp_path / "b.png", flow)
    assert read_pictures(again, flow).equal(x)


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


# -- every verb on wrong files ----------------------------------------------------------------------------------------

GREY, COLOUR = (1, 8, 8), (3, 8, 8)
# What follows the run: the picture that is tried, and what else the verb takes.
VERBS = {
    "interpolate": lambda tried, good: [tried, good],
    "manifold": lambda tried, good: [good, good, good, tried],
    "attribute": lambda tried, good: [good, "--having", tried, "--lacking", good],
    "keep": lambda tried, good: [good, tried],
    "inpaint": lambda tried, good: [tried, "--box", "0,0,2,2", "--map"],
    "inpaint by a mask": lambda tried, good: [good, "--mask", tried, "--map"],
    "denoise": lambda tried, good: [tried, "--sigma", 40, "--map"],
    "colorize": lambda tried, good: [tried],
    "enlarge": lambda tried, good: [tried],
    "anomaly": lambda tried, good: [good, tried],
    "score": lambda tried, good: [tried],
}
# Their messages about sizes and kinds are others: a mask may be in colour, a folder has one shape.
LOOSE = ("inpaint by a mask", "score")
WRONG = {
    "large": "9x8",
    "colour": "colour",
    "clear": "transparent",
    "deep": "16-bit",
    "text": "no PNG or JPEG",
    "empty": "empty",
    "cut": "not a readable picture",
    "animation": "animation",
    "nothing": "no file",
    "no-pictures": "no picture",
}


@pytest.fixture(scope="module")
def wrong_files(tmp_path_factory):
    """Files that are no 8x8 grey picture, by kind, and a good one."""
    folder = tmp_path_factory.mktemp("wrong")
    grey = np.random.default_rng(0).integers(0, 256, (8, 8)).astype(np.uint8)
    made = {kind: folder / f"{kind}.png" for kind in (*WRONG, "good")}
    Image.fromarray(grey).save(made["good"])
    Image.new("L", (8, 9)).save(made["large"])
    Image.new("RGB", (8, 8)).save(made["colour"])
    Image.new("LA", (8, 8)).save(made["clear"])
    Image.fromarray(grey.astype(np.uint16) * 257).save(made["deep"])
    made["text"].write_text("no picture")
    made["empty"].touch()
    made["cut"].write_bytes(made["good"].read_bytes()[:70])
    frames = [Image.fromarray(grey), Image.fromarray(255 - grey)]
    frames[0].save(made["animation"], "GIF", save_all=True, append_images=frames[1:])
    made["no-pictures"] = folder / "no-pictures"
    made["no-pictures"].mkdir()
    (made["no-pictures"] / "readme.txt").write_text("no picture")
    return made


@pytest.fixture(scope="module")
def command():
    """`command("edit", ...)` is its exit code; the commands are built once, which is most of what a short one costs."""
    from typer.main import get_command

    from diffeo.cli import anomaly, editing, using  # noqa: F401  (they add their commands)
    from diffeo.cli.app import app

    built = get_command(app)

    def run(*args):
        with pytest.raises(SystemExit) as end:
            built([str(a) for a in args], prog_name="diffeo")
        return end.value.code

    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """By verb, a flow that the verb takes."""
    folder = tmp_path_factory.mktemp("runs")

    def glow(name, shape, context_shape=None):
        flow = diffeo.zoo.build("glow", shape, context_shape, size="tiny", levels=256, scales=2)
        return flow.save(folder / name)

    plain = glow("plain", GREY)
    others = {
        "colorize": glow("colours", COLOUR, GREY),
        "enlarge": glow("larger", (1, 16, 16), GREY),
    }
    return dict.fromkeys(VERBS, plain) | others


def arguments(verb, run, tried, good, out):
    name = verb.split()[0]
    group = [] if name in ("anomaly", "score") else ["edit"]
    return [*group, name, run, *VERBS[verb](tried, good), "--out", out]


@pytest.mark.parametrize("verb", VERBS)
def test_wrong_files(verb, wrong_files, runs, tmp_path, command, capsys):
    """One sentence that names the file, exit code 2, and nothing is written."""
    out = tmp_path / ("out.csv" if verb in ("anomaly", "score") else "out.png")
    for kind, words in WRONG.items():
        tried = wrong_files[kind]
        if verb == "score" and tried.is_file():
            # Scores are of whole folders.
            inside = tmp_path / kind / tried.name
            inside.parent.mkdir()
            inside.write_bytes(tried.read_bytes())
            tried = inside.parent
        args = arguments(verb, runs[verb], tried, wrong_files["good"], out)
        code = command(*args)
        text = " ".join(capsys.readouterr().err.split())
        assert code == 2, (kind, text)
        assert text.startswith("error: "), text
        assert str(tried) in text, text
        assert verb in LOOSE or words in text, text
        assert not out.exists()


@pytest.mark.parametrize("verb", VERBS)
def test_what_is_read_is_never_written(verb, wrong_files, runs, tmp_path, command, capsys):
    """Not the picture, and not the folder that it is in."""
    good = tmp_path / "in" / ("good.csv" if verb in ("anomaly", "score") else "good.png")
    good.parent.mkdir()
    before = wrong_files["good"].read_bytes()
    good.write_bytes(before)
    read = good.parent if verb == "score" else good
    for out in (good, good.parent):
        args = arguments(verb, runs[verb], read, wrong_files["good"], out)
        assert command(*args) == 2
        text = " ".join(capsys.readouterr().err.split())
        assert text.startswith("error: "), text
        assert [p.name for p in good.parent.iterdir()] == [good.name]
        assert good.read_bytes() == before


@pytest.mark.parametrize("verb", [*VERBS, "sample"])
def test_runs_that_are_not_there(verb, wrong_files, tmp_path, command, capsys):
    good, out = wrong_files["good"], tmp_path / "out.png"
    for run, words in ((tmp_path / "none", "no run folder"), (good.parent, "is no run folder")):
        args = ["sample", run, "--out", out] if verb == "sample" else None
        assert command(*(args or arguments(verb, run, good, good, out))) == 2
        text = " ".join(capsys.readouterr().err.split())
        assert text.startswith("error: "), text
        assert words in text, text


def test_samples_are_written_where_they_can_be(runs, tmp_path, command, capsys):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").touch()
    wrong = {
        tmp_path / "folder.png": "is a folder",
        tmp_path / "out.gif": "samples are written as",
        tmp_path / "out.csv": "only vectors make a .csv",
        tmp_path / "file" / "out.png": "cannot",
    }
    for out, words in wrong.items():
        assert command("sample", runs["keep"], "-n", 2, "--out", out) == 2
        text = " ".join(capsys.readouterr().err.split())
        assert text.startswith("error: "), text
        assert words in text, text
