"""What the options that several commands share stand for."""

from __future__ import annotations

import os
from pathlib import Path

from fluxdrop import config
from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root, find_root
from fluxdrop.predict.bundle import Bundle, load_bundle


def optional_root(given: Path | None) -> Root | None:
    """The root that is meant, where there is one; None where none is given and none is here."""
    if given is not None or os.environ.get("FLUXDROP_ROOT") or Root(Path.cwd()).inbox.is_dir():
        return find_root(given)
    return None


def settings_of(root: Root | None, **flags: str | None) -> Settings:
    """The settings of *root*, or without one those of the environment; *flags* win over them."""
    return config.load(root.path if root else None, flags)


def bundle_of(root: Root | None, model: str) -> Bundle:
    """The bundle that *model* names: one added to *root*, an embedded one, or a folder."""
    return load_bundle(model, root.models if root else None)


def refuse_existing(output: Path) -> None:
    """Raise FluxdropError where *output* is there already or has no folder to lie in."""
    if output.exists():
        raise FluxdropError(f"{output} is there already", hint="Choose another name with -o.")
    if not output.parent.is_dir():
        raise FluxdropError(f"There is no folder {output.parent} for {output.name}")
