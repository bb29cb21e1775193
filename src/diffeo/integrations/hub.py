"""Hugging Face hub: flows with `save_pretrained`, `from_pretrained` and `push_to_hub`, in the files of `flow.save`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import ModelHubMixin, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from ..errors import SavedModelError
from ..flow import Flow
from ..saving import CARD, CONFIG, WEIGHTS, load, save

__all__ = ["HubFlow"]


class HubFlow(ModelHubMixin, Flow, library_name="diffeo"):
    """A flow, sharing its parameters, with the methods of the hub; `diffeo.load` reads what it saves, and the reverse.

    `save_pretrained(folder)` writes config.json, model.safetensors and README.md (the model card). `from_pretrained`
    reads a folder. A name on the hub is looked up among what was downloaded before; only `local_files_only=False`
    downloads. `push_to_hub` is the hub's own.
    """

    def __init__(self, flow: Flow) -> None:
        super().__init__(
            flow.transform, flow.base, embedding=flow.embedding, context_shape=flow.context_shape
        )
        self.provenance = flow.provenance
        self.memory = flow.memory
        self.train(flow.training)

    @property
    def described_as(self) -> Flow:
        """The plain flow, which a saved model describes."""
        return Flow(
            self.transform,
            self.base,
            embedding=self.embedding,
            context_shape=self.context_shape,
        )

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        local_files_only: bool = True,
        **options: Any,
    ) -> HubFlow:
        """The flow in a folder, or of a name on the hub; in eval mode on the CPU. options: those of the hub's mixin.

        Raises SavedModelError where there is no such folder, nor a download of that name; and as `diffeo.load`.
        """
        place = str(pretrained_model_name_or_path)
        if local_files_only and not Path(place).is_dir():
            place = _downloaded(place, options.get("cache_dir"), options.get("revision"))
        flow: HubFlow = super().from_pretrained(place, local_files_only=local_files_only, **options)
        return flow

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = True,
        token: str | bool | None = None,
        **ignored: Any,
    ) -> HubFlow:
        folder = Path(model_id)
        if not folder.is_dir():
            folder = Path(
                snapshot_download(
                    model_id,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                    allow_patterns=[CONFIG, WEIGHTS, CARD],
                )
            )
        return cls(load(folder))

    def _save_pretrained(self, save_directory: Path) -> None:
        save(self, save_directory)


def _downloaded(name: str, cache_dir: str | Path | None, revision: str | None) -> str:
    """The folder of an earlier download, found without the network."""
    try:
        found = try_to_load_from_cache(name, CONFIG, cache_dir=cache_dir, revision=revision)
    except HFValidationError:
        found = None
    if not isinstance(found, str):
        raise SavedModelError(
            f"there is no folder {name}, nor a model of that name that was downloaded before; "
            "local_files_only=False downloads one"
        )
    return str(Path(found).parent)
