"""The page: self-contained, complete, escaped, and the same for the same seed."""

import base64
import functools
import re
import subprocess
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
import torch

from diffeo import zoo
from diffeo.data import Data, density
from diffeo.errors import InputError
from diffeo.report import Row, write_report
from diffeo.report.page import number, spread

CURVES = {"train": [(i, 3.0 / (i + 1)) for i in range(200)], "validation": [(50, 1.0), (199, 0.5)]}
FACTS = {"curve unit": "bits/dim", "command": "diffeo train x --out 'a<b>'", "wall time": "12 s"}


def data(name, x, levels=None, columns=None, dense=None):
    n = len(x) // 3
    parts = x[:n], x[n : 2 * n], x[2 * n :]
    return Data(name, *parts, levels, columns, None, dense, f"made of {name}")


def case(kind):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    if kind == "moons":
        moons = density("moons")
        flow = zoo.build("realnvp", (2,), size="tiny", zero_init=False)
        return flow, data("moons", moons.sample(300, generator=generator), dense=moons)
    if kind == "plane":
        flow = zoo.build("nice", (2,), size="tiny", zero_init=False)
        return flow, data("plane", torch.randn(300, 2, generator=generator))
    if kind == "table":
        x = torch.randn(300, 5, generator=generator)
        columns = ("a<b", "price $_$", "c", "d", "e")
        return zoo.build("realnvp", (5,), size="tiny"), data("table", x, columns=columns)
    if kind == "line":
        return zoo.build("nice", (1,), size="tiny", couplings=0), data("line", torch.randn(60, 1))
    shape = (3, 8, 8) if kind == "rgb" else (1, 8, 8)
    name = "nice" if kind == "flat" else "realnvp"
    flow = zoo.build(name, shape, size="tiny", levels=17, zero_init=False)
    return flow, data(kind, torch.randint(0, 17, (60, *shape), dtype=torch.uint8), levels=17)


PICTURES = {
    "moons": 4
    + 4
    + 1
    + 3,  # two densities, two clouds; the grid both ways; curves; distances, columns, latents
    "plane": 3 + 4 + 1 + 3,
    "table": 1 + 1 + 4 + 1 + 3,  # histograms, correlations, four pairs; curves; the same three
    "grey": 5
    + 6
    + 1
    + 17
    + 1,  # real, temperatures; real, fractions; curves; distances and 16 pairs; latents
    "rgb": 5 + 6 + 1 + 17 + 1,
    "flat": 5 + 6 + 1 + 17 + 1,
}


def rows(flow):
    bits = 2.125 if flow.discrete else None
    return [
        Row("the model & co", 91.5, 0.5, bits, 0.0123, flow.likelihood),
        Row("baseline <script>", 120.0, None, bits and 3.0, None, "exact", "its note"),
        Row("hopeless", float("inf"), None, bits and float("inf"), None, "estimate"),
    ]


def write(path, kind, **changes):
    flow, example = case(kind)
    given = {"rows": rows(flow), "curves": CURVES, "facts": FACTS, "title": "A <title>", "seed": 3}
    given["configuration"] = "seed: <1>"
    return write_report(path, flow=flow.eval(), data=example, **(given | changes))


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The page of a kind of data, written once."""
    folder = tmp_path_factory.mktemp("pages")

    @functools.cache
    def page(kind):
        return write(folder / kind / "report.html", kind)

    return page


class Reader(HTMLParser):
    """Tags must close in order; keeps pictures, links and the text."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self, text):
        super().__init__()
        self.open, self.images, self.links, self.text = [], [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.links += [found[k] for k in ("src", "href", "srcset") if k in found]
        if tag == "img":
            self.images.append(found)
        if tag not in self.VOID:
            self.open.append(tag)
        assert tag != "script"

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("kind", PICTURES)
def test_the_page_is_whole_and_self_contained(pages, kind):
    path = pages(kind)
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    text = path.read_text()
    page = Reader(text)
    assert len(page.images) == PICTURES[kind]
    anchors = [link for link in page.links if link.startswith("#")]
    assert all(link in anchors or link.startswith("data:image/") for link in page.links)
    assert len(anchors) > 6
    assert all(text.count(f'id="{link[1:]}"') == 1 for link in anchors)
    assert "url(" not in text
    assert "@import" not in text
    assert "Not shown for this model" not in page.text
    assert "A <title>" in page.text
    for row in rows(case(kind)[0]):
        assert row.name in page.text
        assert row.kind in page.text
    for key, value in FACTS.items():
        assert key == "curve unit" or (key in page.text and value in page.text)
    assert "torch " in page.text
    assert "lower is better" in page.text
    assert "data → latent → data" in page.text
    assert "Nearest training examples" in page.text
    assert "Latents" in page.text
    assert "seed: <1>" in page.text
    assert text.count('<tr class="best">') == 1


@pytest.mark.parametrize("kind", PICTURES)
def test_every_picture_opens_and_is_described(pages, kind):
    from io import BytesIO

    from PIL import Image

    for image in Reader(pages(kind).read_text()).images:
        assert len(image["alt"]) > 10
        mime, content = re.fullmatch(r"data:(image/[a-z+]+);base64,(.+)", image["src"]).groups()
        raw = base64.b64decode(content)
        if mime == "image/png":
            with Image.open(BytesIO(raw)) as picture:
                assert picture.mode == "RGBA"
        else:
            ElementTree.fromstring(raw)
            links = re.findall(rb'(?:href|src)="([^"]*)"', raw)
            assert all(link.startswith((b"#", b"data:")) for link in links)


def test_the_bound_says_what_it_is(pages):
    text = Reader(pages("grey").read_text()).text
    meaning = (
        "upper bound on bits/dim, from a lower bound on log-likelihood by dequantization noise"
    )
    assert meaning in text
    assert "2.125" in text
    assert "± 0.012" in text
    assert "32 of 64" in text
    assert meaning not in Reader(pages("table").read_text()).text


def test_flat_latents_say_how_they_are_ranked(pages):
    assert "ranked by importance" in Reader(pages("flat").read_text()).text


@pytest.mark.parametrize("kind", ["plane", "flat"])
def test_same_seed_same_page_and_torch_seed_untouched(tmp_path, pages, kind):
    flow, example = case(kind)
    before = torch.get_rng_state()
    given = {"rows": rows(flow), "curves": CURVES, "facts": FACTS, "title": "A <title>", "seed": 3}
    given["configuration"] = "seed: <1>"
    again = write_report(tmp_path / "b.html", flow=flow.eval(), data=example, **given).read_text()
    assert torch.equal(before, torch.get_rng_state())
    assert again == pages(kind).read_text()
    if kind == "flat":
        assert again != write(tmp_path / "c.html", kind, seed=4).read_text()


def test_one_column_no_curves_and_training_mode(tmp_path):
    flow, example = case("line")
    flow.train()
    path = write_report(
        tmp_path / "r.html",
        flow=flow,
        data=example,
        rows=[Row("m", float("nan"), None, None, None, "exact")],
        curves={"train": []},
        facts={},
        title="t",
    )
    assert len(Reader(path.read_text()).images) == 4
    assert flow.training


def test_curves_that_diverge(tmp_path):
    curves = {"train": [(0, 1.0), (1, float("nan")), (2, float("inf"))], "validation": [(3, 2.0)]}
    write(tmp_path / "r.html", "line", curves=curves)


def test_a_conditional_flow_gets_numbers_and_no_samples(tmp_path):
    flow = zoo.build("realnvp", (2,), context_shape=(3,), size="tiny").eval()
    example = data("plane", torch.randn(30, 2))
    path = write_report(
        tmp_path / "r.html",
        flow=flow,
        data=example,
        rows=rows(flow),
        curves={},
        facts={},
        title="t",
    )
    assert "needs a context" in Reader(path.read_text()).text


def test_a_page_needs_a_number(tmp_path):
    with pytest.raises(InputError, match="at least one row"):
        write(tmp_path / "r.html", "line", rows=[])
    assert not (tmp_path / "r.html").exists()


def test_numbers_carry_the_digits_of_their_error():
    assert number(1.23456, 0.0123) == "1.235"
    assert spread(0.0123) == "0.012"
    assert number(-151.2, 78.0) == "−151"
    assert number(None) == "–"
    assert number(float("inf")) == "∞"


def test_importing_diffeo_loads_no_matplotlib():
    code = "import sys, diffeo, diffeo.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
