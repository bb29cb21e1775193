"""diffeo anomaly: a row a picture, calibrated p-values, and mistakes in one sentence."""

import csv
import json

import numpy as np
import pytest
import torch

import diffeo
from diffeo.applications import Detector, evidence, read_pictures, write_pictures

RUN = "digits-glow"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Three test digits and one of noise, as ordinary files."""
    noise = torch.randint(0, 17, (1, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    x = torch.cat((diffeo.data.load("digits").test[:3], noise.byte()))
    return write_pictures(x, tmp_path_factory.mktemp("new") / "in", diffeo.load(RUN))


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory):
    """40 validation digits, as a folder and as an array."""
    folder, x = tmp_path_factory.mktemp("reference"), diffeo.data.load("digits").validation[:40]
    write_pictures(x, folder / "pictures", diffeo.load(RUN))
    np.save(folder / "array.npy", x.numpy())
    return folder


def test_right_after_installation(pictures, tmp_path, diffeo_command, capsys):
    out = tmp_path / "scores.csv"
    assert diffeo_command("anomaly", RUN, pictures[0].parent, "--out", out, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["reference_size"] == 140
    assert "digits" in told["reference"]
    assert [row["file"] for row in told["rows"]] == [str(p) for p in pictures]
    assert [row["flagged"] for row in told["rows"]] == [False, False, False, True]
    assert told["rows"][3]["p_value"] == 1 / 141
    with out.open(newline="") as file:
        stored = list(csv.DictReader(file))
    assert [float(row["score"]) for row in stored] == [row["score"] for row in told["rows"]]
    assert [row["flagged"] for row in stored] == ["false", "false", "false", "true"]


def test_a_reference_of_ones_own(pictures, ordinary, diffeo_command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    args = ["anomaly", RUN, pictures[3], "--statistic", "log_prob", "--alpha", "0.05"]
    answers = []
    for given in (ordinary / "pictures", ordinary / "array.npy"):
        assert diffeo_command(*args, "--reference", given, "--json") == 0
        answers.append(json.loads(capsys.readouterr().out))
        assert answers[-1].pop("reference") == str(given)
    assert answers[0] == answers[1]
    assert answers[0]["reference_size"] == 40
    flow = diffeo.load(RUN)
    reference = read_pictures(ordinary / "pictures", flow)
    detector = Detector(evidence(flow, reference), "log_prob")
    found = evidence(flow, read_pictures(pictures[3], flow))
    (row,) = answers[0]["rows"]
    assert row["score"] == pytest.approx(detector.score(found).item())
    assert row["p_value"] == pytest.approx(detector.p_value(found).item())
    assert diffeo_command(*args, "--reference", "digits", "--most", 30) == 0
    text = capsys.readouterr().out
    assert "1 of 1 flagged at 0.05, beside 30 pictures of digits (validation)" in text
    assert "0.0323" in text


def test_mistakes(pictures, ordinary, tmp_path, diffeo_command, capsys, monkeypatch):
    monkeypatch.setenv("DIFFEO_DATA", str(tmp_path / "nowhere"))
    plain = diffeo.zoo.build("nice", (1, 8, 8), size="tiny", levels=17).save(tmp_path / "plain")
    table = diffeo.zoo.build("nice", (2,), size="tiny").save(tmp_path / "table")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("config.json", "model.safetensors"):
        (elsewhere / name).write_bytes((plain / name).read_bytes())
    recipe = "model: nice\nhyper: {levels: 17}\ndata: {source: mnist}\n"
    (elsewhere / "recipe.yaml").write_text(recipe)
    colour = tmp_path / "colour.npy"
    np.save(colour, np.zeros((30, 3, 8, 8), np.uint8))
    one, folder = pictures[0], ordinary / "pictures"
    wrong = [
        ([plain, one], "does not say what data it was trained on: give ordinary pictures with"),
        ([elsewhere, one], "set DIFFEO_DATA to the folder that holds mnist; or give ordinary"),
        ([table, one], "integer pictures"),
        ([RUN, one, "--reference", "digitz"], "no built-in data set and no file 'digitz'"),
        ([RUN, one, "--reference", tmp_path / "none.npy"], "there is no file"),
        ([RUN, one, "--reference", one], "ends in '.png', expected"),
        ([RUN, one, "--reference", colour], "rows of shape (3, 8, 8)"),
        ([RUN, one, "--reference", "moons"], "holds rows of shape (2,)"),
        ([RUN, one, "--reference", folder], "no p-value is below 0.024"),
        ([RUN, one, "--alpha", "0"], "nothing could be flagged at --alpha 0"),
        ([RUN, one, "--out", tmp_path / "s.png"], "scores are written as .csv"),
        ([RUN, one, "--out", folder], "scores are written as .csv"),
        ([RUN, one, "--statistic", "magic"], "magic"),
        ([RUN], "PICTURE"),
    ]
    for args, words in wrong:
        assert diffeo_command("anomaly", *args) == 2, args
        text = " ".join(capsys.readouterr().err.split())
        assert "Traceback" not in text
        assert words in text.replace("│ ", ""), text
