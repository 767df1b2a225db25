"""Undo what a resolution by juliapkg leaves behind, unless it ends well.

juliapkg and Julia's package manager overwrite files in place. One that a full disk or a kill cut off stays, and
makes every later resolution fail.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_FILES = ("Project.toml", "Manifest.toml", "pyjuliapkg/meta.json")


@contextmanager
def attempt(project: Path, depot: Path) -> Iterator[Path]:
    """Resolve in the body of the with statement; undo it if the body raises.

    After a body that was killed, the next attempt undoes it. To undo is to restore the files of *project*, and
    to remove from *depot* what may be incomplete. Both are folders that nobody else changes meanwhile.

    Yields:
        An empty folder for the resolver's temporary files. It is on the filesystem of *depot*, so that a package
        that was unpacked there appears in the depot by one rename.

    Raises:
        OSError: The files of *project* cannot be kept; nothing was changed.
    """
    kept, temporary = project / ".before-setup", depot / "tmp"
    _undo(project, depot, kept, temporary)
    _keep(project, kept)
    temporary.mkdir(parents=True)
    try:
        yield temporary
    except BaseException:
        _undo(project, depot, kept, temporary)
        raise
    # The rename marks the attempt as a success, so its files must be on the disk before.
    os.sync()
    shutil.rmtree(kept.rename(_incomplete(kept)))
    shutil.rmtree(temporary)


def _keep(project: Path, kept: Path) -> None:
    """Copy the files of *project* to *kept*, which appears when it is complete; mark those that are absent."""
    incomplete = _incomplete(kept)
    shutil.rmtree(incomplete, ignore_errors=True)
    (incomplete / "pyjuliapkg").mkdir(parents=True)
    for name in _FILES:
        if (project / name).exists():
            shutil.copyfile(project / name, incomplete / name)
        else:
            (incomplete / f"{name}.absent").touch()
    incomplete.rename(kept)


def _incomplete(kept: Path) -> Path:
    """Return where the copies are while some of them are missing."""
    return kept.with_name(f"{kept.name}.part")


def _undo(project: Path, depot: Path, kept: Path, temporary: Path) -> None:
    """Undo an attempt that did not end well, if there was one; this takes no space on the disk."""
    shutil.rmtree(temporary, ignore_errors=True)
    if not kept.is_dir():
        return
    for name in _FILES:
        if (kept / name).exists():
            (kept / name).replace(project / name)
        elif (kept / f"{name}.absent").exists():
            (project / name).unlink(missing_ok=True)
    # Pkg downloads them again.
    shutil.rmtree(depot / "registries", ignore_errors=True)
    shutil.rmtree(depot / "clones", ignore_errors=True)
    for package in depot.glob("packages/*/*"):
        # Pkg creates the folder before it moves the package there.
        with suppress(OSError):
            package.rmdir()
    shutil.rmtree(kept)
