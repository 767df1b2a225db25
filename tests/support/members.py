"""Another user of this machine, who is no more than a member of a root's group."""

from __future__ import annotations

import os
import pickle
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from fluxdrop.files.layout import Root
from fluxdrop.ownership import open_to_group

MEMBER = 54321
"""The user id of somebody without an account."""
STRANGER_GROUP = 54322
GROUP = "nogroup"
_GROUP_ID = 65534

T = TypeVar("T")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")


def as_member(work: Callable[[], T]) -> T:
    """What *work* gives in a process of the member; what it raises is raised here."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            os.setgroups([_GROUP_ID])
            os.setgid(STRANGER_GROUP)
            os.setuid(MEMBER)
            try:
                told: Any = (True, work())
            except BaseException as error:
                traceback.print_exc()
                told = (False, error)
            with os.fdopen(writer, "wb") as out:
                pickle.dump(told, out)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answers:
        succeeded, value = pickle.load(answers)
    os.waitpid(child, 0)
    if not succeeded:
        raise value
    return value  # type: ignore[no-any-return]


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """With this umask, for child processes too."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def folder_for_everybody() -> Iterator[Path]:
    """A folder that others can reach, unlike pytest's."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def root_for_everybody() -> Iterator[Root]:
    """A root that others can reach."""
    for folder in folder_for_everybody():
        root = Root(folder / "root")
        root.create()
        yield root


def group_root(folder: Path) -> Root:
    """A root of root's that the member's group may use."""
    root = Root(folder / "root")
    root.create()
    open_to_group(root, None, GROUP)
    return root
