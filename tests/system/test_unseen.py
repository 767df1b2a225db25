"""Commands of a user who may not look at where a link in outputs/ leads."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fluxdrop.files.layout import Root
from support.daemons import environment
from support.members import root_for_everybody
from support.published import done, publish

NOBODY = 65534
# The packages may lie where that user cannot read: they are loaded before.
CODE = f"""
import os, sys, sqlite3, msgspec
import fluxdrop.cli.jobs, fluxdrop.cli.replay, fluxdrop.cli.show, fluxdrop.cli.status, fluxdrop.cli.refusal
from fluxdrop.__main__ import main
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
main()
"""


@pytest.fixture
def shut() -> Iterator[Path]:
    """A folder that only its owner may enter."""
    folder = Path(tempfile.mkdtemp())
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def open_root() -> Iterator[Root]:
    """A root that every user can read."""
    yield from root_for_everybody()


def as_nobody(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run fluxdrop as a user without rights."""
    return subprocess.run(
        [sys.executable, "-c", CODE, *map(str, arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_link_to_where_nobody_may_look(open_root: Root, shut: Path) -> None:
    """status, jobs and show say of a result whose picture is such a link that it is gone, and tell of all others."""
    ended = [done(open_root, name) for name in ("cat.png", "dog.png")]
    publish(open_root, ended)
    (open_root.outputs / "cat.png").unlink()
    (open_root.outputs / "cat.png").symlink_to(shut / "x")
    at = ("--json", "--root", open_root.path)

    listed, told, shown = (
        as_nobody(*command, *at) for command in (("jobs",), ("status",), ("show", ended[0].job.id))
    )

    expected = {"cat.png": False, "dog.png": True}
    assert ["", "", ""] == [listed.stderr, told.stderr, shown.stderr]
    assert expected == {row["source"]: row["there"] for row in json.loads(listed.stdout)}
    latest = json.loads(told.stdout)["latest_done"]
    assert expected == {row["source"]: row["there"] for row in latest}
    assert not json.loads(shown.stdout)["files"]["image"]["there"]
