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

_KEPT = ".before-setup"
_TEMPORARY = "tmp"
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
    undo_unfinished(project, depot)
    kept, temporary = project / _KEPT, depot / _TEMPORARY
    _keep(project, kept)
    temporary.mkdir(parents=True)
    try:
        yield temporary
    except BaseException:
        undo_unfinished(project, depot)
        raise
    # The rename marks the attempt as a success, so its files must be on the disk before.
    os.sync()
    shutil.rmtree(kept.rename(_incomplete(kept)))
    shutil.rmtree(temporary)


def is_unfinished(project: Path) -> bool:
    """Return whether an attempt is running in *project*, or one that was killed is not undone yet."""
    return (project / _KEPT).is_dir()


def undo_unfinished(project: Path, depot: Path) -> None:
    """Undo an attempt that did not end well, if there was one; this takes no space on the disk."""
    shutil.rmtree(depot / _TEMPORARY, ignore_errors=True)
    if not is_unfinished(project):
        return
    kept = project / _KEPT
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
