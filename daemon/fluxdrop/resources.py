"""Where things lie: the embedded models, the Julia sources, the systemd units, and what a setting names."""

from __future__ import annotations

import os
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


def expanded(path: str) -> Path:
    """*path* with a ``~`` or ``~USER`` at its beginning replaced; that of an unknown user stays as it is, and so
    names nothing."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - pathlib's raises RuntimeError for an unknown user
