"""Saved models: rebuilt from the folder alone, bit for bit, or refused in one sentence."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import diffeo
from diffeo.errors import ConfigError, SavedModelError
from diffeo.families import Affine
from diffeo.nets import MLP
from diffeo.transforms import ActNorm, Chain, Coupling, Permutation, Rotation


def by_hand():
    torch.manual_seed(3)
    chain = Chain(
        (3,),
        [
            ActNorm,
            Permutation,
            lambda s: Coupling(s, Affine("clamp"), MLP),
            lambda s: Rotation(s, True),
        ],
    )
    flow = diffeo.Flow(chain, diffeo.distributions.GaussianMixture((3,), 4))
    for p in flow.parameters():
        nn.init.normal_(p, std=0.5)
    return flow


FLOWS = {
    "by hand": by_hand,
    "float64": lambda: by_hand().double(),
    "bfloat16": lambda: by_hand().to(torch.bfloat16),
    **{
        name: lambda name=name: diffeo.zoo.build(
            name, diffeo.zoo.card(name).event_shape, size="tiny"
        )
        for name in diffeo.zoo.names()
    },
}


@pytest.mark.parametrize("name", ["realnvp", "residual_flow"])
def test_without_weights_there_is_nothing_to_save(name, tmp_path):
    with torch.device("meta"):
        flow = diffeo.zoo.build(name, (2,), size="tiny")
    with pytest.raises(SavedModelError, match="meta device has no weights"):
        flow.save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", FLOWS)
def test_bit_identical_in_another_process(name, tmp_path):
    flow = FLOWS[name]().eval()
    x = flow.sample((5,))
    noise = flow.transform.draw(5, center=True, like=flow.base.like)
    flow.save(tmp_path / "model")
    expected = flow.log_prob(x, noise=noise)
    state = torch.get_rng_state()
    again = diffeo.load(tmp_path / "model")
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(again.log_prob(x, noise=noise), expected)
    assert again.dtype == flow.dtype
    assert again.provenance == flow.provenance
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    if name == "by hand":
        torch.save((x, expected.detach()), tmp_path / "expected.pt")
        code = (
            "import sys, torch, diffeo; x, e = torch.load(sys.argv[2]);"
            "assert torch.equal(diffeo.load(sys.argv[1]).log_prob(x), e)"
        )
        subprocess.run(
            [sys.executable, "-c", code, tmp_path / "model", tmp_path / "expected.pt"], check=True
        )


def test_saving_again_replaces(tmp_path):
    flow = by_hand()
    flow.save(tmp_path)
    with torch.no_grad():
        next(flow.parameters()).add_(1)
    flow.save(tmp_path)
    x = torch.randn(4, 3)
    assert torch.equal(diffeo.load(tmp_path).log_prob(x), flow.eval().log_prob(x))


class Foreign(nn.Module):
    def __init__(self, out=4):
        super().__init__()
        self.linear = nn.Linear(1, out)

    def forward(self, x):
        return self.linear(x)


def test_a_part_that_is_not_registered_fails_by_name(tmp_path):
    flow = diffeo.Flow(Coupling((3,), Affine(), lambda *_: Foreign()))
    with pytest.raises(ConfigError, match=r"flow\.transform\.net is a Foreign"):
        flow.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


@diffeo.register
class Registered(Foreign):
    def config(self):
        return {"out": self.linear.out_features}


def test_a_registered_network_is_saved(tmp_path):
    flow = diffeo.Flow(Coupling((3,), Affine(), lambda *_: Registered(4))).eval()
    flow.save(tmp_path)
    x = torch.randn(4, 3)
    assert torch.equal(diffeo.load(tmp_path).log_prob(x), flow.log_prob(x))


def edit(folder, change):
    path = folder / "config.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def truncate(path, keep=0.5):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


DAMAGE = {
    "no folder": (lambda f: [p.unlink() for p in f.iterdir()] and f.rmdir(), "no folder"),
    "no configuration": (lambda f: (f / "config.json").unlink(), "config.json"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors"),
    "truncated weights": (lambda f: truncate(f / "model.safetensors"), "truncated"),
    "truncated configuration": (lambda f: truncate(f / "config.json"), "truncated"),
    "empty configuration": (lambda f: truncate(f / "config.json", 0), "truncated"),
    "edited configuration": (
        lambda f: edit(f, lambda d: d.update(event_shape=[4])),
        "edited",
    ),
    "other weights": (
        lambda f: save_file({"a": torch.zeros(2)}, f / "model.safetensors"),
        "replaced",
    ),
    "a foreign configuration": (
        lambda f: (f / "config.json").write_text('{"model_type": "bert"}'),
        "not written by diffeo",
    ),
    "a schema from the future": (lambda f: edit(f, lambda d: d.update(schema=99)), "newer diffeo"),
    "no schema": (lambda f: edit(f, lambda d: d.pop("schema")), "schema None"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_one_sentence(name, tmp_path):
    folder = by_hand().save(tmp_path / "model")
    harm, word = DAMAGE[name]
    harm(folder)
    with pytest.raises(SavedModelError, match=word) as raised:
        diffeo.load(folder)
    assert "\n" not in str(raised.value)


def test_an_old_schema_migrates_or_says_so(tmp_path, monkeypatch):
    from diffeo import saving

    folder = by_hand().save(tmp_path)
    monkeypatch.setattr(saving, "SCHEMA", 2)
    with pytest.raises(SavedModelError, match="no longer read"):
        diffeo.load(folder)
    monkeypatch.setitem(saving.MIGRATIONS, 1, lambda d: d | {"schema": 2})
    assert diffeo.load(folder).event_shape == (3,)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SavedModelError, match="cannot save"):
        by_hand().save(tmp_path / "file" / "model")


def test_a_write_that_fails_leaves_the_old_model(tmp_path, monkeypatch):
    from diffeo import files

    flow = by_hand().eval()
    flow.save(tmp_path)
    x = torch.randn(4, 3)
    expected = flow.log_prob(x)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with torch.no_grad():
        next(flow.parameters()).add_(1)
    with pytest.raises(SavedModelError, match="No space left"):
        flow.save(tmp_path)
    assert torch.equal(diffeo.load(tmp_path).log_prob(x), expected)
    assert len(list(tmp_path.iterdir())) == 3
