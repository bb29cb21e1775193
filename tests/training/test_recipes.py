"""The recipes in the repository, and what a recipe promises."""

import os
from pathlib import Path

import pytest
import torch

import diffeo
from diffeo.data.given import given_shape
from diffeo.errors import ConfigError
from diffeo.training import run as runs
from diffeo.training.recipe import read_recipe, recipe

FOLDER = Path(__file__).parents[2] / "recipes"
FILES = sorted(FOLDER.glob("*.yaml"))
SHAPES = {"mnist": (1, 28, 28), "cifar10": (3, 32, 32), "digits": (1, 8, 8), "moons": (2,)}
SHAPES |= {
    "8gaussians": (2,),
    "checkerboard": (2,),
    "orl_faces": (1, 64, 64),
    "bsds300_crops": (3, 32, 32),
}
SETS = ("orl_faces", "bsds300_crops")
SHAPES |= {"names": (15,), "words": (22,), "adult": (15,)}
# Files of the suite that nobody here has: full size only.
SUITE = {"power": (6,), "gas": (8,), "hepmass": (21,), "miniboone": (43,)}
SHAPES |= SUITE | {"bsds300": (63,)}
# Folders of pictures that nobody here has: full size only.
FOLDERS = {"imagenet32": 32, "imagenet64": 64, "lsun64": 64, "lsun96": 96, "lsun128": 128}
FOLDERS |= {"celeba_hq": 256}
SHAPES |= {name: (3, side, side) for name, side in FOLDERS.items()}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_recipe_is_valid_and_builds(path):
    chosen = recipe(read_recipe(path))
    small = path.stem.endswith("-small")
    given = f"-{chosen.data.given}" if chosen.data.given else ""
    assert path.stem.removesuffix("-small") == f"{chosen.model}-{chosen.data.source}{given}"
    assert chosen.size == ("small" if small else "paper")
    assert ("Small twin of" if small else "arXiv:") in chosen.description
    assert recipe(read_recipe(path)).to_yaml() == chosen.to_yaml()
    shape = SHAPES[chosen.data.source]
    # Of several recipes that differ by depth, one deep network is enough to build.
    hyper = chosen.hyper | ({"depth": 1} if chosen.data.source in FOLDERS else {})
    with torch.device("meta"):
        context = given_shape(shape, chosen.data.given) if given else None
        flow = diffeo.zoo.build(chosen.model, shape, context, chosen.size, **hyper)
    assert flow.event_shape == shape


def test_every_model_has_a_recipe_and_its_small_twin():
    stems = {p.stem for p in FILES}
    for name in diffeo.zoo.names():
        full = [s for s in stems if s.startswith(f"{name}-") and not s.endswith("-small")]
        assert full, f"there is no recipe for {name}"
        for stem in full:
            if stem.removeprefix(f"{name}-") in SUITE | FOLDERS:
                continue
            assert f"{stem}-small" in stems, f"{stem} has no small twin"


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", [p for p in FILES if p.stem.endswith("-small")], ids=lambda p: p.stem
)
def test_a_step_of_every_small_recipe(path):
    values = read_recipe(path)
    source = values["data"]["source"]
    if source in (
        "mnist",
        "cifar10",
        "bsds300",
        "names",
        "words",
        "adult",
        *SETS,
    ) and not os.environ.get("DIFFEO_DATA"):
        pytest.skip(f"{source} needs DIFFEO_DATA")
    budget = {k: v for k, v in values["training"].items() if k not in ("epochs", "minutes")}
    chosen = recipe(values | {"training": budget | {"steps": 1, "batch_size": 8}})
    data = runs.read_data(chosen)
    flow = runs.build_flow(chosen, data)
    few = data.train[:64]
    context = data.context(few)
    run = diffeo.fit(flow, few, context=context, steps=1, batch_size=8, progress=False)
    assert run.metrics["train"] < float("inf")


def test_the_stored_recipe_reproduces_the_run(tmp_path):
    values = {
        "model": "realnvp",
        "size": "tiny",
        "hyper": {"dropout": 0.1, "hidden": [8]},
        "data": {"source": "moons", "size": 200},
        "training": {"steps": 12, "batch_size": 32, "ema": 0.9, "betas": [0.9, 0.99]},
    }
    runs.train(recipe(values), tmp_path / "first", progress=False)
    stored = recipe(read_recipe(tmp_path / "first" / "recipe.yaml"))
    assert stored == recipe(values)
    runs.train(stored, tmp_path / "second", progress=False)
    first, second = (tmp_path / f / "model.safetensors" for f in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    results = runs.open_run(tmp_path / "first")[2]
    assert results["schema"] == {
        "columns": ["x", "y"],
        "levels": None,
        "event_shape": [2],
        "split": {"train": 200, "validation": 40, "test": 100},
    }


def test_a_misspelt_setting_of_the_model_is_named_before_anything_is_written(tmp_path):
    values = {"model": "nice", "hyper": {"coupling": 3}, "data": {"source": "digits"}}
    with pytest.raises(ConfigError, match="did you mean 'couplings'"):
        runs.train(recipe(values), tmp_path / "run", progress=False)
    values = {"model": "nice", "data": {"source": "digits"}, "training": {"device": "cuda"}}
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="--device cpu"):
            runs.train(recipe(values), tmp_path / "run", progress=False)
    values["training"] = {"loggers": ["tensorbord"]}
    with pytest.raises(ConfigError, match="tensorbord"):
        runs.train(recipe(values), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
