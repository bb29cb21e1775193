"""The tables of the page on colours and larger pictures, from what the script stores."""

import re
from dataclasses import replace

import pytest
import torch
from tests.docs.test_measured import ROOT, loaded

from diffeo.data import Data

VALUE = {"mean": 1.25, "error": 0.5}
FOUND = {
    "pictures": 60, "levels": 32, "parameters": 1000, "twin_parameters": 900, "steps": 10, "twin_steps": 10,
    "seconds": 600.0,
    "likelihood": dict.fromkeys(("given", "shuffled", "twin", "shuffled_gap", "twin_gap"), VALUE),
    "baselines": {"bicubic": VALUE},
    "samples": {t: dict.fromkeys(("mean", "sample", "distance", "consistency"), VALUE) for t in ("0", "0.7")},
}  # fmt: skip


def test_tables():
    tables = loaded("docs", "measured_translating")
    document = {"faces": FOUND}
    likelihood = tables.translating(document, "likelihood faces")
    assert "| a twin that is given nothing | 1.250 ± 0.500 | 1.250 ± 0.500 |" in likelihood
    assert "| given its own | 1.250 ± 0.500 | – |" in likelihood
    assert (
        "60 test pictures of 32 levels; 1,000 parameters and 10 steps in 10 minutes" in likelihood
    )
    text = tables.translating(document, "samples faces")
    assert "| bicubic | 1.25 ± 0.50 | – | – |" in text
    assert "| one sample, temperature 0.7 | 1.25 ± 0.50 | 1.2 ± 0.5 | 1.2 ± 0.5 |" in text
    assert "| temperature 0 | 1.25 ± 0.50 | – | 1.2 ± 0.5 |" in text
    for table in (likelihood, text):
        assert len({row.count("|") for row in table.splitlines() if row.startswith("|")}) == 1
    assert tables.translating(None, "samples faces") == "*not measured yet*"


def test_the_page_shows_every_task_of_the_script():
    script, measured = loaded("scripts", "translating"), loaded("docs", "measured")
    page = (ROOT / "docs/howto/translating.md").read_text()
    for task in script.TASKS:
        assert f"<!-- translating samples {task} -->" in page
        assert f"<!-- translating likelihood {task} -->" in page
        assert f"<!-- figure translating-{task}.png " in page
    assert not re.findall(r"<!-- (.*?) -->", measured.on_page_markdown(page))


def test_numbers_of_the_script():
    script = loaded("scripts", "translating")
    x = torch.full((2, 3, 4, 4), 7)
    assert script.psnr(x + 1, x, 256).tolist() == pytest.approx([48.1308] * 2)
    groups = torch.tensor([5, 5, 9, 9])
    found = script.summary(torch.tensor([1.0, 1.0, 3.0, 3.0]), groups)
    assert found == {"mean": 2.0, "error": pytest.approx(1.0)}


def test_every_picture_has_a_group():
    """One crop of each photograph; the pictures of a person are one group."""
    script = loaded("scripts", "translating")
    x, labels = torch.zeros(70, 3, 8, 8, dtype=torch.uint8), torch.arange(70) // 35
    data = Data("x", x, x, x, 256, None, (labels,) * 3, None, "", given="grey")
    for task, groups in (("crops", 2), ("faces", 2), ("colours", 70)):
        chosen = script.choose(task, data)
        assert len(chosen.x) == len(chosen.groups) == len(chosen.context)
        assert len(chosen.groups.unique()) == groups


def test_baselines_of_the_script():
    script = loaded("scripts", "translating")
    x = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8)
    data = Data("x", x, x, x, 256, None, None, None, "", given="grey")
    chosen = script.Chosen(x, data.context(x), torch.arange(6), 256)
    made = script.baselines("colours", data, chosen)
    assert made["grey, repeated"][:, 2].equal(data.context(x)[:, 0].double())
    assert made["grey and the mean colour"].shape == x.shape
    data = replace(data, given="quarter")
    chosen = script.Chosen(x, data.context(x), torch.arange(6), 256)
    made = script.baselines("crops", data, chosen)
    assert made["nearest"][:, :, 2, 5].equal(chosen.context[:, :, 0, 1].double())
    assert set(made) == {"nearest", "bicubic"}
    assert all(v.shape == x.shape for v in made.values())
