"""Stored measurements in the documentation: what the tables of pictures and of ablations say, and when nothing."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
DATA = ("digits", "cifar10", "mnist")
HOOKS = [*(f"images {data}" for data in DATA), "ablation", "dequantization"]


def loaded(folder: str, name: str) -> ModuleType:
    """A module of docs/ or scripts/, its siblings importable meanwhile, as mkdocs and python load them."""
    sys.path.insert(0, str(ROOT / folder))
    try:
        spec = importlib.util.spec_from_file_location(name, ROOT / folder / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(ROOT / folder))
    return module


@pytest.fixture(scope="module")
def measured() -> ModuleType:
    return loaded("docs", "measured")


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    return loaded("docs", "measured_images")


@pytest.fixture(scope="module")
def images() -> ModuleType:
    return loaded("scripts", "images")


FACTS = {"command": "c", "machine": "m", "versions": "v", "date": "d"}


def run(bits: float, **more: Any) -> dict[str, Any]:
    """A row as scripts/images.py stores it."""
    training = {"lr": 2e-3, "schedule": "cosine", "batch_size": 32, "ema": 0.999}
    own = {"bits": bits, "bits_error": 0.01, "kind": "bound", "note": "2 draws of uniform noise"}
    size = {"parameters": "1,000", "dimensions": 64, "steps": 3000.0, "seconds": 600.0}
    end = {"optimizer": "AdamW", "validation": 90.0, "stopped": "budget", "measured": FACTS}
    return own | size | end | {"training": training} | more


def ablation(gaps: dict[str, list[float]]) -> dict[str, Any]:
    rows = [
        {"coupling": "affine", "mixing": mixing, "seed": s, "budget": 3000, "bits": 1.9 + gap}
        for mixing, found in gaps.items()
        for s, gap in enumerate(found)
    ]
    return FACTS | {"rows": rows}


@pytest.mark.parametrize("hook", HOOKS)
def test_a_missing_file_renders_as_not_measured(measured, monkeypatch, tmp_path, hook) -> None:
    monkeypatch.setattr(measured, "RESULTS", tmp_path)
    assert measured.on_page_markdown(f"a\n\n<!-- {hook} -->\n\nb") == "a\n\n*not measured yet*\n\nb"


def test_a_figure_shows_once_it_is_drawn(tables, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(tables, "PICTURES", tmp_path)
    assert tables.figure("faces.png six faces") == "*not measured yet*"
    (tmp_path / "faces.png").touch()
    assert tables.figure("faces.png six faces") == "![six faces](../images/faces.png)"


def test_every_place_of_the_results_page_is_rendered(measured) -> None:
    """No mark is left but those of the other hook file."""
    page = (ROOT / "docs" / "results.md").read_text()
    for hook in HOOKS:
        assert f"<!-- {hook} -->" in page
    left = re.findall(r"<!-- (.*?) -->", measured.on_page_markdown(page))
    assert set(left) <= {"densities", "digits", "mnist"}


def test_files_and_names_are_those_of_the_script(measured, tables, images) -> None:
    assert measured.IMAGES == images.FILES
    for data in DATA:
        assert set(tables.RUNS[data].values()) <= set(images.JOBS[data])


def test_pictures_show_settings_aim_and_published(tables) -> None:
    weighted = {"pictures": 300, "draws": 32, "bits": 1.80, "bits_error": 0.02, "plain": 1.85}
    rows = {
        "glow-digits-small": run(1.85, weighted=weighted),
        "flowpp-digits-small": run(1.95),
    }
    text = tables.images(FACTS | {"rows": rows}, "digits")
    assert (
        "| Glow | 1.850 ± 0.010 | bound, 2 draws of uniform noise | 1.800 ± 0.020 (1.850) |" in text
    )
    assert "AdamW, lr 0.002, cosine, batches of 32, weights averaged (0.999)" in text
    assert "Glow meets it, Flow++ misses it" in text
    assert "K = 32 draws on the first 300 test pictures" in text
    cifar = tables.images(FACTS | {"rows": {"glow-cifar10-small": run(3.9)}}, "cifar10")
    assert "| Glow, published | 3.35 |" in cifar


def test_every_line_has_the_columns_of_the_head(tables) -> None:
    rows = {"glow-mnist-small": run(1.3), "normflows-example": run(1.5, steps=None, stopped="why")}
    text = tables.images(FACTS | {"rows": rows}, "mnist")
    assert {line.count("|") for line in text.splitlines() if line.startswith("|")} == {9}
    assert "| Flow++ | *not measured yet* |" in text
    assert "no averaging" not in text
    assert "; why |" in text


def test_grid_and_pairs_of_the_two_libraries(tables) -> None:
    rows = {"glow-mnist-small": run(1.3)}
    rows |= {f"glow-pair{s}": run(1.30 + 0.01 * s) for s in range(3)}
    rows |= {f"normflows-pair{s}": run(1.34 + 0.01 * s) for s in range(3)}
    rows["glow-grid-0.002"] = run(0.0, validation=64 * 0.6931471805599453 * 1.5)
    rows["normflows-grid-0.002"] = run(0.0, validation=None)
    text = tables.images(FACTS | {"rows": rows}, "mnist")
    assert "ours is lower by +0.040 ± 0.000, shown. The aim of 0.05 is missed." in text
    assert "Glow after 10 minutes: 1.500 at 0.002." in text
    assert "diverges at 0.002" in text


@pytest.mark.parametrize(
    ("gaps", "said"),
    [
        ([0.03, 0.03, 0.04], "+0.033 ± 0.003, shown"),
        ([-0.03, -0.03, -0.04], "-0.033 ± 0.003, the opposite is shown"),
        ([0.03, -0.03, 0.04], "+0.013 ± 0.022, not shown"),
        ([0.03, 0.03], "+0.030, not shown (2 seeds)"),
    ],
)
def test_an_order_takes_three_seeds_and_two_standard_errors(tables, gaps, said) -> None:
    text = tables.ablation(ablation({"reverse": gaps, "conv1x1": [0.0] * len(gaps)}))
    assert f"| reverse worse than 1x1 convolution by | {said} |" in text
    assert "| fixed shuffle worse than 1x1 convolution by | *not measured yet* |" in text


def test_trials_with_fewer_steps_are_left_out(tables) -> None:
    document = ablation({"reverse": [0.0, 0.0, 0.0]})
    document["rows"].append(
        {"coupling": "affine", "mixing": "reverse", "seed": 0, "budget": 5, "bits": 9.0}
    )
    assert "| reverse | 1.900 ± 0.000 |" in tables.ablation(document)


def test_dequantization_compares_both_bounds(tables) -> None:
    kind = "importance-weighted bound, K = 32"
    rows = [
        {
            "coupling": coupling,
            "noise": noise,
            "seed": s,
            "steps": 1500,
            "bits": 1.9 + 0.1 * (noise == "uniform") + 0.001 * s,
            "weighted": 1.8 + 0.02 * s * (coupling == "affine"),
            "weighted_kind": kind,
        }
        for coupling in ("mixture", "affine")
        for noise in ("variational", "uniform")
        for s in range(3)
    ]
    text = tables.dequantization(FACTS | {"rows": rows})
    assert f"|  | bound | {kind} |" in text
    assert (
        "| uniform worse than variational by, mixture | +0.100 ± 0.000, shown | +0.000 ± 0.000, not shown |"
        in text
    )
    assert "| affine worse than mixture by, uniform |" in text
    assert "+0.020 ± 0.012, not shown |" in text


def test_trials_that_are_stored_are_not_repeated(monkeypatch, tmp_path) -> None:
    stored = loaded("scripts", "stored")
    monkeypatch.setattr(stored, "RESULTS", tmp_path)
    axes = {"coupling": ("affine", "additive"), "noise": ("uniform",)}
    done: list[tuple[Any, ...]] = []

    def run(*task: Any) -> dict[str, Any]:
        done.append(task)
        return {"bits": len(done)}

    for seeds in (["0"], ["0", "1"]):
        monkeypatch.setattr(sys, "argv", ["trials", "--seeds", *seeds])
        stored.fill("trials", "Some trials.", axes, run, steps=5, budget="budget")
    assert done == [
        (coupling, "uniform", seed, 5) for seed in (0, 1) for coupling in axes["coupling"]
    ]
    rows = stored.read("trials")["rows"]
    assert rows[2] == {"coupling": "affine", "noise": "uniform", "seed": 1, "budget": 5, "bits": 3}


def timed(scale: float, *, train: bool = True) -> dict[str, Any]:
    whats = ("train step", "log_prob", "sample") if train else ("log_prob", "sample")
    return {w: {"median": scale, "least": 0.9 * scale, "largest": 2 * scale} for w in whats}


def test_speed_of_images_beside_the_floor_and_the_peer(monkeypatch, tmp_path) -> None:
    """As benchmarks/images.py stores it."""
    pytest.importorskip("latex2mathml")
    hooks = loaded("docs", "hooks")
    monkeypatch.setattr(hooks, "RESULTS", tmp_path)
    assert hooks.on_page_markdown("<!-- bench images -->") == "*Not measured yet.*"
    rows = {
        "bare convolutions": timed(100.0),
        "diffeo": timed(150.0),
        "diffeo, compiled": timed(88.0),
        "bare convolutions, compiled": timed(80.0),
        "diffeo, frozen": timed(120.0, train=False),
        "normflows": timed(200.0),
    }
    table = {
        "size": "Glow",
        "rows": rows,
        "memory_mib": {"bare convolutions": 10.2, "diffeo": 20.6, "normflows": 30.0},
        "compile_seconds": {"diffeo": 61.5, "diffeo, frozen": "fails: E"},
    }
    (tmp_path / "images_bench.json").write_text(json.dumps(FACTS | {"tables": [table]}))
    page = hooks.on_page_markdown("a\n\n<!-- bench images -->\n\nb")
    time = "150.0 (1.50) [135.0, 300.0]"
    assert f"| diffeo | {time} | {time} | {time} | 21 |  |" in page
    assert "| diffeo, compiled | 88.0 (1.10) [79.2, 176.0] |" in page
    assert "| 61.5 |" in page
    assert "| diffeo, frozen | – | 120.0 (1.20) [108.0, 240.0] |" in page
    assert "Compiling diffeo, frozen fails: E." in page
    assert (
        "Ratio to normflows (eager). diffeo: train step 0.75, log_prob 0.75, sample 0.75;" in page
    )
    assert "diffeo, frozen: log_prob 0.60, sample 0.60." in page
    assert {line.count("|") for line in page.splitlines() if line.startswith("|")} == {7}


def test_the_normflows_glow_is_the_librarys_own_density() -> None:
    """Whitened by its Gaussians it is a transform of ours, of our Glow's size."""
    pytest.importorskip("normflows")
    from diffeo import zoo

    peer = loaded("scripts", "peer_glow")
    settings = loaded("scripts", "images").PEER
    shape = (1, 28, 28)
    flow = peer.peer_glow(shape, 256, seed=0, **settings).eval()
    ours = zoo.build("glow", shape).num_parameters
    assert abs(flow.num_parameters / ours - 1) < 0.03
    assert not flow.initialized
    x = torch.randint(0, 256, (4, *shape), generator=torch.Generator().manual_seed(0))
    flow.initialize(x)
    assert flow.initialized
    layer = flow.transform.parts[-1].double()
    torch.manual_seed(0)
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(0.02 * torch.randn_like(p))
        y = torch.rand(3, *shape, dtype=torch.float64) - 0.5
        eps, ladj = layer(y)
        density = torch.distributions.Normal(0.0, 1.0).log_prob(eps).sum(1) + ladj
        torch.testing.assert_close(density, layer.flow.log_prob(y, None), rtol=0, atol=1e-8)
        back, inverse = layer.inverse(eps)
        torch.testing.assert_close(back, y, rtol=0, atol=1e-8)
        torch.testing.assert_close(inverse, -ladj, rtol=0, atol=1e-8)
