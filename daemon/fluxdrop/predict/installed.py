"""Remove and replace the models that were added to a root."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.files.layout import Root, holder
from fluxdrop.files.transient import naming
from fluxdrop.predict.bundle import installed_folder


def models_served(root: Root) -> set[str]:
    """Return the models that the running daemon has loaded, which its environment may name; empty if none runs."""
    if holder(root) is None:
        return set()
    try:
        status = json.loads(durable.read_own(root.heartbeat))
        return {status["model"], *(warm["name"] for warm in status.get("warm", ()))}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def remove_model(root: Root, name: str, model_in_use: str) -> Path:
    """Remove the model *name* from *root* and return the folder that it was in.

    Args:
        root: The root.
        name: A model that was added to it.
        model_in_use: The model that the root's daemon uses now or from its next start.

    Raises:
        FluxdropError: Kind ``model``, when there is no such model, it is embedded, or it is in use.
    """
    folder = own_folder(root, name)
    if name == model_in_use or name in models_served(root):
        raise FluxdropError(
            f"The model {name} is in use",
            hint="Choose another one first: fluxdrop model use NAME",
            kind="model",
        )
    with naming(root.models):
        hidden = Path(tempfile.mkdtemp(prefix=".removing-", dir=root.models))
        folder.rename(hidden / name)
        durable.sync_folder(root.models)
        shutil.rmtree(hidden)
    return folder


def check_replaceable(root: Root, name: str, model_in_use: str) -> None:
    """Check that the model *name* of *root* can be replaced.

    Raises:
        FluxdropError: Kind ``model``, when there is no such model, it is embedded, or a running daemon uses it.
    """
    own_folder(root, name)
    if name in models_served(root) or (name == model_in_use and holder(root) is not None):
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


def install(made: Path, models: Path) -> Path:
    """Move the folder *made*, which is synced, into *models*, in the place of the model of its name if there is one.

    What it replaces stays beside where *made* was, hidden, until the caller removes that folder.

    Returns:
        Its new path.
    """
    place = models / made.name
    if place.exists():
        place.rename(made.parent / ".replaced")
    made.rename(place)
    durable.sync_folder(models)
    return place
