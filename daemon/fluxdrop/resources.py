"""Paths of the package's own files (models, Julia sources, systemd units), and of files in settings."""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def models_folder() -> Path:
    """Return the folder of the embedded models."""
    return _PACKAGE / "models"


def julia_folder() -> Path:
    """Return the folder of the Julia worker: inside an installed package, or in the checkout."""
    installed = _PACKAGE / "julia"
    return installed if installed.is_dir() else _PACKAGE.parents[1] / "julia"


def systemd_folder() -> Path:
    """Return the folder of the systemd units: inside an installed package, or in the checkout."""
    installed = _PACKAGE / "systemd" / "files"
    return installed if installed.is_dir() else _PACKAGE.parents[1] / "systemd"


def expanded(path: str) -> Path:
    """Return *path* with a ``~`` or ``~USER`` at its beginning expanded.

    That of an unknown user stays as it is; such a path does not exist.
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111 - pathlib's raises RuntimeError for an unknown user
