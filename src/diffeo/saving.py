"""Save and load: a folder with config.json, model.safetensors and a model card; no pickle.

The weights file is written first and the configuration, which holds its digest, last: a folder is either the old model,
the new one, or says that the two do not belong together.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from . import errors
from .errors import DiffeoError, SavedModelError
from .files import write_atomically
from .flow import Flow
from .parts import describe, rebuild, refresh
from .pretrained import located

FORMAT = "diffeo"
SCHEMA = 1
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"

# A migration takes the document of schema n to that of schema n + 1.
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}


def save(flow: Flow, folder: str | Path) -> Path:
    """Write a flow into a folder, which is made if missing.

    Raises ConfigError for a part that is not registered (before anything is written), SavedModelError where the folder
    cannot be written.
    """
    from . import __version__

    folder = Path(folder)
    tree = describe(flow)
    if any(t.is_meta for t in flow.state_dict().values()):
        raise SavedModelError("a flow on the meta device has no weights to save")
    refresh(flow)
    tensors = {k: v.detach().cpu().clone().contiguous() for k, v in flow.state_dict().items()}
    weights = save_tensors(tensors, metadata={"format": "pt"})
    document: dict[str, Any] = {
        "format": FORMAT,
        "schema": SCHEMA,
        "diffeo": __version__,
        "torch": str(torch.__version__),
        "model": flow.provenance,
        "event_shape": list(flow.event_shape),
        "latent_shape": list(flow.latent_shape),
        "context_shape": describe(flow.context_shape),
        "likelihood": flow.likelihood,
        "bias": flow.properties.bias,
        "measure": flow.properties.measure,
        "parameters": flow.num_parameters,
        "weights": {"file": WEIGHTS, "sha256": hashlib.sha256(weights).hexdigest()},
        "flow": tree,
    }
    document["digest"] = _digest(document)
    try:
        write_atomically(folder / WEIGHTS, weights)
        write_atomically(folder / CONFIG, json.dumps(document, indent=1) + "\n")
        write_atomically(folder / CARD, _card(document))
    except OSError as error:
        raise SavedModelError(f"cannot save into {folder}: {error.strerror or error}") from error
    return folder


def load(folder: str | Path) -> Flow:
    """Rebuild a flow from a folder alone, in eval mode on the CPU, with the dtypes it was saved in.

    In place of a folder also the name of a flow that comes with the package, such as `digits-glow`.
    Raises SavedModelError for a missing, truncated, edited or foreign file, or a schema from the future.
    """
    folder = located(folder)
    document = _read_config(folder)
    weights = _read(folder / WEIGHTS)
    if hashlib.sha256(weights).hexdigest() != document["weights"]["sha256"]:
        raise SavedModelError(
            f"{folder / WEIGHTS} is not the file that {CONFIG} describes: it was truncated, edited or replaced"
        )
    try:
        tensors: dict[str, Tensor] = load_tensors(weights)
        with torch.random.fork_rng(devices=[]):
            flow = rebuild(document["flow"])
    except (DiffeoError, ValueError) as error:
        if isinstance(error, errors.ConfigError):
            raise
        raise SavedModelError(f"{folder} cannot be rebuilt: {error}") from error
    if not isinstance(flow, Flow):
        raise SavedModelError(f"{folder / CONFIG} describes no flow")
    try:
        flow.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise SavedModelError(
            f"the weights in {folder} do not fit its configuration: {error}"
        ) from error
    flow.provenance = document["model"]
    refresh(flow)
    return flow.eval()


def _read_config(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise SavedModelError(f"there is no folder {folder}")
    path = folder / CONFIG
    try:
        document = json.loads(_read(path))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SavedModelError(
            f"{path} is no JSON file: it was truncated or edited ({error})"
        ) from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise SavedModelError(f"{path} was not written by diffeo")
    schema = document.get("schema")
    if not isinstance(schema, int) or schema > SCHEMA:
        raise SavedModelError(
            f"{path} has schema {schema!r} and this diffeo reads up to {SCHEMA}: install a newer diffeo"
        )
    if document.get("digest") != _digest(document):
        raise SavedModelError(f"{path} was edited after it was saved: its digest does not match")
    while document["schema"] < SCHEMA:
        migrate = MIGRATIONS.get(document["schema"])
        if migrate is None:
            raise SavedModelError(
                f"{path} has schema {document['schema']}, which this diffeo can no longer read"
            )
        document = migrate(document)
    known: dict[str, Any] = document
    return known


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SavedModelError(f"cannot read {path}: {error.strerror or error}") from error


def _digest(document: dict[str, Any]) -> str:
    content = {k: v for k, v in document.items() if k != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _card(document: dict[str, Any]) -> str:
    model = document["model"]
    name = model.get("name", "a flow built by hand")
    lines = [
        "---",
        "library_name: diffeo",
        "tags: [normalizing-flow]",
        "---",
        "",
        f"# {model.get('title', name)}",
        "",
    ]
    if "citation" in model:
        lines += [model["citation"], ""]
    lines += [
        "| | |",
        "|---|---|",
        f"| model | {name}{', size ' + model['size'] if 'size' in model else ''} |",
        f"| event shape | {tuple(document['event_shape'])} |",
        f"| latent shape | {tuple(document['latent_shape'])} |",
        f"| context shape | {document['context_shape']} |",
        f"| likelihood | {document['likelihood']}, bias: {document['bias']}, measure: {document['measure']} |",
        f"| parameters | {document['parameters']:,} |",
        f"| written by | diffeo {document['diffeo']}, torch {document['torch']} |",
        "",
        "```python",
        "import diffeo",
        "",
        'flow = diffeo.load("this folder")',
        "x = flow.sample(16)",
        "```",
        "",
    ]
    return "\n".join(lines)
