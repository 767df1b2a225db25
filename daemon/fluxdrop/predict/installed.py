"""Remove and replace the models that were added to a root."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.files.layout import Root, holder
from fluxdrop.files.transient import naming
from fluxdrop.predict.bundle import installed_folder, load_bundle
from fluxdrop.resources import expanded


def models_served(root: Root) -> set[str]:
    """Return the models that the running daemon has loaded, which its environment may name; empty if none runs.

    A model that is loaded for a replay alone is not among them.
    """
    if holder(root) is None:
        return set()
    try:
        status = json.loads(durable.read_own(root.heartbeat))
        warm = (one["name"] for one in status.get("warm", ()) if one["folders"])
        return {status["model"], *warm}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def remove_model(root: Root, name: str, settings: Settings) -> Path:
    """Remove the model *name* from *root* and return the folder that it was in.

    Args:
        root: The root.
        name: A model that was added to it.
        settings: Those that the root's daemon uses now or from its next start.

    Raises:
        FluxdropError: Kind ``model``, when there is no such model, it is embedded, or it is in use, also
            for a folder.
    """
    folder = own_folder(root, name)
    if folders := folders_that_name(settings, name, folder):
        raise FluxdropError(
            f"The model {name} is in use for the folder {', '.join(folders)}",
            hint="Name another one in fluxdrop.toml first.",
            kind="model",
        )
    if name == settings.model or name in models_served(root):
        raise FluxdropError(
            f"The model {name} is in use",
            hint="Choose another one first: fluxdrop model use NAME",
            kind="model",
        )
    digest = _digest_of(folder)
    with naming(root.models):
        hidden = Path(tempfile.mkdtemp(prefix=".removing-", dir=root.models))
        folder.rename(hidden / name)
        durable.sync_folder(root.models)
        shutil.rmtree(hidden)
    forget_graphs(root, digest)
    return folder


def forget_graphs(root: Root, digest: str) -> None:
    """Remove from *root* what was compiled of the model whose source has this SHA-256; it is as large as its weights.

    Another model of the same source is compiled again when it is next opened. Raises OSError.
    """
    for path in root.graphs.glob(f"{digest}-*.graph") if digest else ():
        path.unlink(missing_ok=True)


def _digest_of(folder: Path) -> str:
    """Return the SHA-256 of the source of the model in *folder*; empty for one that cannot be read."""
    try:
        return load_bundle(str(folder), folder.parent).sha256
    except FluxdropError:
        return ""


def folders_that_name(settings: Settings, name: str, folder: Path) -> list[str]:
    """Return the configured folders of the inbox that name the model *name*, which is in *folder*."""
    return [
        key
        for key, table in settings.folders.items()
        if any(
            given == name or expanded(given).resolve() == folder.resolve()
            for given in table.model_names
        )
    ]


def check_replaceable(root: Root, name: str, settings: Settings) -> None:
    """Check that the model *name* of *root* can be replaced.

    Raises:
        FluxdropError: Kind ``model``, when there is no such model, it is embedded, or a running daemon uses it.
    """
    folder = own_folder(root, name)
    is_named = name == settings.model or folders_that_name(settings, name, folder)
    if name in models_served(root) or (is_named and holder(root) is not None):
        raise FluxdropError(
            f"The model {name} is in use by the daemon that runs",
            hint="Add it under another --name and switch with `fluxdrop model use`, or stop the daemon first.",
            kind="model",
        )


def own_folder(root: Root, name: str) -> Path:
    """Return the folder of the model *name* that was added to *root*.

    Raises:
        FluxdropError: Kind ``model``, when there is none.
    """
    folder = installed_folder(name, root.models)
    if folder.parent != root.models:
        raise FluxdropError(
            f"The model {name} is embedded in fluxdrop, and cannot be removed or replaced",
            hint="Add yours under another --name.",
            kind="model",
        )
    return folder


def install(made: Path, root: Root) -> Path:
    """Move the folder *made*, which is synced, into *root*, in the place of the model of its name if there is one.

    What it replaces stays beside where *made* was, hidden, until the caller removes that folder.

    Returns:
        Its new path.
    """
    place = root.models / made.name
    before = ""
    if place.exists():
        before = _digest_of(place)
        place.rename(made.parent / ".replaced")
    made.rename(place)
    durable.sync_folder(root.models)
    if before and before != _digest_of(place):
        forget_graphs(root, before)
    return place
