"""The hub's methods read and write the folders of flow.save, and nothing is downloaded unless asked."""

import socket
import subprocess
import sys

import pytest
import torch
from huggingface_hub import ModelCard, ModelHubMixin

import diffeo
from diffeo.errors import SavedModelError
from diffeo.integrations import hub
from diffeo.integrations.hub import HubFlow
from diffeo.testing import randomize


@pytest.fixture
def flow():
    torch.manual_seed(0)
    made = diffeo.zoo.build("realnvp", (3,), (2,), "tiny").double()
    return randomize(made, seed=1, scale=0.3).eval()


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """A list of what would have gone over the network, which fails."""
    asked = []

    def refuse(*args, **kwargs):
        asked.append(args)
        raise OSError("no network in this test")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    return asked


def test_same_files_and_same_numbers(flow, tmp_path, offline):
    shared = HubFlow(flow)
    assert isinstance(shared, ModelHubMixin)
    assert all(p is q for p, q in zip(shared.parameters(), flow.parameters(), strict=True))
    assert shared.save_pretrained(tmp_path / "hub") is None
    flow.save(tmp_path / "own")
    flow.save_pretrained(tmp_path / "plain")
    names = ["README.md", "config.json", "model.safetensors"]
    assert sorted(p.name for p in (tmp_path / "hub").iterdir()) == names
    for name in names:
        assert (tmp_path / "hub" / name).read_bytes() == (tmp_path / "own" / name).read_bytes()

    x, c = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    for again in (
        HubFlow.from_pretrained(tmp_path / "own"),
        HubFlow.from_pretrained(str(tmp_path / "hub")),
        diffeo.Flow.from_pretrained(tmp_path / "plain"),
        diffeo.load(tmp_path / "hub"),
    ):
        assert isinstance(again, diffeo.Flow)
        assert not again.training
        assert again.provenance == flow.provenance
        assert torch.equal(again.log_prob(x, c), flow.log_prob(x, c))
    assert not offline


def test_saved_again_over_the_old(flow, tmp_path):
    again = HubFlow.from_pretrained(flow.save(tmp_path))
    randomize(again, seed=2, scale=0.3)
    again.save_pretrained(tmp_path)
    x, c = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    assert torch.equal(diffeo.load(tmp_path).log_prob(x, c), again.log_prob(x, c))
    assert not torch.equal(flow.log_prob(x, c), again.log_prob(x, c))


def test_the_card_is_one_of_the_hub(flow, tmp_path):
    HubFlow(flow).save_pretrained(tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.library_name == "diffeo"
    assert "normalizing-flow" in card.data.tags
    assert "Density estimation using Real NVP" in card.text


def test_nothing_downloads_unless_asked(flow, tmp_path, offline, monkeypatch):
    cache = tmp_path / "cache"
    for name in ("someone/some-flow", tmp_path / "not here" / "at all"):
        with pytest.raises(SavedModelError, match="there is no folder"):
            HubFlow.from_pretrained(name, cache_dir=cache)
    assert not offline

    # An earlier download, in the hub's own cache.
    home = cache / "models--someone--some-flow"
    flow.save(home / "snapshots" / "0123")
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("0123")
    assert HubFlow.from_pretrained("someone/some-flow", cache_dir=cache).event_shape == (3,)
    assert not offline

    # What the hub would give, where it is asked.
    folder = flow.save(tmp_path / "remote")
    asked = []

    def download(*args, local_files_only, **kwargs):
        asked.append(local_files_only)
        return str(folder / "config.json" if "filename" in kwargs else folder)

    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", download)
    monkeypatch.setattr(hub, "snapshot_download", download)
    again = HubFlow.from_pretrained("someone/some-flow", local_files_only=False)
    assert asked == [False, False]
    assert again.event_shape == (3,)


def test_a_folder_of_something_else_is_one_sentence(flow, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SavedModelError, match=r"config\.json"):
        HubFlow.from_pretrained(tmp_path / "empty")
    folder = flow.save(tmp_path / "saved")
    (folder / "model.safetensors").write_bytes(b"other")
    with pytest.raises(SavedModelError, match="truncated, edited or replaced"):
        HubFlow.from_pretrained(folder)


def test_import_of_diffeo_leaves_the_clients_alone():
    code = "import sys, diffeo; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not {"huggingface_hub", "pyro", "arviz", "sklearn"} & set(out.stdout.split())
