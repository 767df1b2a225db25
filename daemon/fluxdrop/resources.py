"""Where the package's own data lies: the embedded models, the Julia sources, the systemd units."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def models_folder() -> Path:
    """The folder of the embedded models."""
    return _PACKAGE / "models"


def julia_folder() -> Path:
    """The folder of the Julia worker: inside an installed package, or beside it in a checkout."""
    installed = _PACKAGE / "julia"
    return installed if installed.is_dir() else _PACKAGE.parents[1] / "julia"


def systemd_folder() -> Path:
    """The folder of the systemd units: inside an installed package, or beside it in a checkout."""
    installed = _PACKAGE / "systemd" / "files"
    return installed if installed.is_dir() else _PACKAGE.parents[1] / "systemd"
