"""Download a model from the Hugging Face hub: its weights as safetensors or ONNX, and its JSON files."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from fluxdrop.errors import FluxdropError
from fluxdrop.hub import HUB_ID, HUB_SECONDS, HubUnreachable, hub_refusals
from fluxdrop.predict.origin.weights import PICKLES

HUB = "hub:"
"""How a model of the hub is named, before its owner and name."""

_DESCRIBED = re.compile(r"\w[\w.-]*\.json|labels\.(?:txt|csv)|classes\.txt", re.ASCII)
"""The names of files beside the weights; the hub's list may have any."""
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "model.onnx", "onnx/model.onnx")


def model_name(name: str) -> str:
    """Return what *name*, ``OWNER/NAME`` perhaps with ``@REVISION``, is called without its owner."""
    return name.partition("@")[0].rpartition("/")[2]


def download(name: str) -> Path:
    """Return the folder of the model *name*, ``OWNER/NAME`` or ``OWNER/NAME@REVISION``, in the hub's local cache.

    Raises:
        FluxdropError: Kind ``model``, when there is no such model, it has pickles only, or the hub cannot be reached.
    """
    match = HUB_ID.fullmatch(name)
    if match is None:
        raise FluxdropError(
            f"{HUB}{name} names no model of the hub",
            hint=f"Such as {HUB}google/vit-base-patch16-224.",
            kind="model",
        )
    try:
        from huggingface_hub import HfApi, hf_hub_download
    except ImportError as error:
        raise FluxdropError(
            "huggingface_hub, which reads the hub, is not installed",
            hint="Run: pip install 'fluxdrop[torch]'",
            kind="model",
        ) from error
    repository, revision = match["id"], match["revision"]
    try:
        with hub_refusals(
            repository, revision, missing=f"The hub has no model {repository}", kind="model"
        ):
            info = HfApi().model_info(repository, revision=revision, timeout=HUB_SECONDS)
            files = {sibling.rfilename for sibling in info.siblings or ()}
            chosen = sorted(_chosen(repository, files))
            for file in chosen:
                path = hf_hub_download(repository, file, revision=info.sha)
    except HubUnreachable as error:
        return _cached(repository, revision, error)
    # .../snapshots/COMMIT/NAME
    return Path(path).parents[len(PurePosixPath(chosen[-1]).parts) - 1]


def _chosen(repository: str, files: set[str]) -> set[str]:
    """Return those of a model's *files* to download: the weights in one form, and what describes them."""
    found = next((name for name in _WEIGHTS if name in files), None)
    if found is None:
        pickles = sorted(name for name in files if name.endswith(PICKLES))
        if pickles:
            raise _error(
                f"The hub's {repository} has pickles only ({pickles[0]}), which fluxdrop never loads",
                "Look for a revision with safetensors (hub:OWNER/NAME@refs/pr/1 often is one), or convert it where you"
                " trust its maker: model.save_pretrained(FOLDER).",
            )
        raise _error(f"The hub's {repository} has neither model.safetensors nor model.onnx")
    weights = {found, f"{found}_data", f"{found}.data"}
    if found.endswith(".index.json"):
        weights |= {name for name in files if fnmatchcase(name, "model-*.safetensors")}
    described = {name for name in files if _DESCRIBED.fullmatch(name)}
    return (weights & files) | described


def _cached(repository: str, revision: str | None, reason: HubUnreachable) -> Path:
    """Return the folder in the hub's local cache; raise if there is none, with *reason*."""
    from huggingface_hub import snapshot_download

    try:
        folder: Any = snapshot_download(repository, revision=revision, local_files_only=True)
    except Exception:
        raise _error(
            f"The hub cannot be reached ({reason}), and {repository} is not on this machine",
            "Check the network, HF_ENDPOINT and HF_HUB_OFFLINE; or download it elsewhere and give the folder.",
        ) from reason
    return Path(folder)


def _error(message: str, hint: str = "") -> FluxdropError:
    return FluxdropError(message, hint=hint, kind="model")
