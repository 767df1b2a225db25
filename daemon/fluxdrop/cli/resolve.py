"""Resolve the options that several commands share to a root, settings or a bundle."""

from __future__ import annotations

import os
from pathlib import Path

from fluxdrop import config
from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root, find_root
from fluxdrop.predict.bundle import Bundle, load_bundle


def optional_root(given: Path | None) -> Root | None:
    """Return the root that *given*, $FLUXDROP_ROOT or the working folder names; None if there is none.

    Raises:
        FluxdropError: *given* or $FLUXDROP_ROOT is not a root.
    """
    if given is not None or os.environ.get("FLUXDROP_ROOT") or Root(Path.cwd()).inbox.is_dir():
        return find_root(given)
    return None


def settings_of(root: Root | None, **flags: str | None) -> Settings:
    """Return the settings of *root*, or, if it is None, of the environment alone; *flags* take precedence.

    Raises:
        FluxdropError: A setting is unknown or wrong.
    """
    return config.load(root.path if root else None, flags)


def bundle_of(root: Root | None, model: str) -> Bundle:
    """Load the bundle *model*: one added to *root*, an embedded one, or a folder.

    Raises:
        FluxdropError: There is none, or it is wrong.
    """
    return load_bundle(model, root.models if root else None)


def refuse_existing(output: Path) -> None:
    """Check that *output* can be written without overwriting anything.

    Raises:
        FluxdropError: *output* exists, or its folder does not.
    """
    if output.exists():
        raise FluxdropError(f"{output} already exists", hint="Choose another name with -o.")
    if not output.parent.is_dir():
        raise FluxdropError(f"There is no folder {output.parent} for {output.name}")
