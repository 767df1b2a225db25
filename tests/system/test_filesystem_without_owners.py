"""A root on a disk of another system, on which all belongs to whoever mounted it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from fluxdrop.files.layout import Root
from support.daemons import fluxdrop, results
from support.filesystems import ntfs


def run(root: Root, *flags: str) -> subprocess.CompletedProcess[str]:
    """Work off the inbox of *root*."""
    return fluxdrop("run", "--once", "--root", root.path, *flags, engine="onnxruntime")


@pytest.mark.parametrize("flags", [(), ("--shared-root",)])
def test_written_by_everybody(tmp_path: Path, samples: Path, flags: tuple[str, ...]) -> None:
    """Where everybody may write everything, a daemon refuses the root and names the options to mount it with, unless
    it is told that the root is shared."""
    with ntfs(tmp_path) as mounted:
        root = Root(mounted / "root")
        root.create()
        shutil.copyfile(samples / "round_ring_01.png", root.inbox / "ring.png")
        ended = run(root, *flags)
        found = set(results(root))

    if flags:
        assert (0, {"ring.json"}) == (ended.returncode, found)
    else:
        assert (2, set()) == (ended.returncode, found)
        assert "keeps no owners: mount it with uid=root,umask=022" in ended.stderr
        assert "Traceback" not in ended.stderr


def test_mounted_as_told(tmp_path: Path, samples: Path) -> None:
    """Mounted with the options that the refusal names, the root is served."""
    with ntfs(tmp_path, "windows_names,uid=0,umask=022") as mounted:
        root = Root(mounted / "root")
        root.create()
        shutil.copyfile(samples / "round_ring_01.png", root.inbox / "ring.png")
        ended = run(root)
        found = set(results(root))

    assert (0, {"ring.json"}) == (ended.returncode, found)
