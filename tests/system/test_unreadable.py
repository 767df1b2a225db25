"""Dropped files that the daemon may not read: they fail as what they are, and come back with the remedy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from fluxdrop.files.layout import Root
from fluxdrop.jobs.fault import Fault, read_fault
from support.daemons import PATIENCE, SAMPLES, environment, failures, results
from support.rights import without_rights

SOMEBODY = 12345


def run_without_rights(root: Root, **settings: object) -> subprocess.CompletedProcess[str]:
    """Work *root* off by a daemon that may read what modes allow."""
    flags = ["run", "--once", "--root", str(root.path)]
    return subprocess.run(
        [*without_rights(), sys.executable, "-m", "fluxdrop", *flags],
        env=environment(
            engine="onnxruntime", settle_seconds=0.1, incomplete_seconds=0.5, **settings
        ),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.txt", "a.pdf"])
@pytest.mark.parametrize("is_own", [True, False], ids=["own", "somebody's"])
def test_unreadable(root: Root, name: str, is_own: bool) -> None:
    """It fails as unreadable, with the remedy, and lies untouched in outputs/failed/, whosever it is."""
    dropped = root.inbox / name
    shutil.copyfile(SAMPLES / "round_circle_01.png", dropped)
    dropped.chmod(0 if is_own else 0o600)
    if not is_own:
        if os.geteuid() != 0:
            pytest.skip("only root can give files away")
        os.chown(dropped, SOMEBODY, SOMEBODY)
    before = dropped.stat()

    ended = run_without_rights(root)

    assert 1 == ended.returncode, ended.stderr
    error = failures(root)[f"{name}.error.json"]["error"]
    told = f"{name} cannot be read: the daemon has no permission to read it."
    assert ("intake", "unreadable", told) == (error["stage"], error["kind"], error["message"])
    assert "chmod" in error["hint"]
    after = (root.failed / name).stat()
    facts = ("st_ino", "st_uid", "st_mode", "st_size", "st_mtime_ns")
    assert [getattr(before, fact) for fact in facts] == [getattr(after, fact) for fact in facts]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_large_file_of_somebody_else(root: Root) -> None:
    """A file of somebody else's that is too large, and that may not be linked, is moved and not copied."""
    dropped = root.inbox / "a.png"
    shutil.copyfile(SAMPLES / "round_circle_01.png", dropped)
    os.truncate(dropped, 1 << 20)
    os.chown(dropped, SOMEBODY, SOMEBODY)
    dropped.chmod(0o644)
    before = dropped.stat()

    ended = run_without_rights(root, max_file_bytes=10_000)

    assert 1 == ended.returncode, ended.stderr
    after = (root.failed / "a.png").stat()
    facts = ("st_ino", "st_uid", "st_mode", "st_size", "st_mtime_ns", "st_nlink")
    assert [getattr(before, fact) for fact in facts] == [getattr(after, fact) for fact in facts]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_closed_folders(root: Root) -> None:
    """Folders among the results that somebody else closes hold up neither a start nor the results."""
    for folder in (root.failed, root.outputs / "team", root.generated / "team-2"):
        folder.mkdir(exist_ok=True)
        os.chown(folder, SOMEBODY, SOMEBODY)
        folder.chmod(0o700)
    (root.inbox / "team").mkdir()
    for name in ("a.png", "team/b.png", "team/c.pdf"):
        shutil.copyfile(SAMPLES / "round_circle_01.png", root.inbox / name)

    ended = run_without_rights(root)

    assert 1 == ended.returncode, ended.stderr
    assert {"a.json", "team-3/b.json"} == set(results(root))
    assert {"team/c.pdf.error.json"} == set(failures(root))


@pytest.mark.parametrize("name", ["a.png", "a.txt"])
def test_lost_right(root: Root, name: str) -> None:
    """A file that its owner closes after it was claimed fails as unreadable, too."""
    shutil.copyfile(SAMPLES / "round_circle_01.png", root.inbox / name)
    run_without_rights(root, failpoint="claim-renamed")
    (claimed,) = root.work.glob("*/input=*")
    claimed.chmod(0)

    ended = run_without_rights(root)

    assert 1 == ended.returncode, ended.stderr
    error = failures(root)[f"{name}.error.json"]["error"]
    assert ("unreadable", True) == (error["kind"], "chmod" in error["hint"])


def test_remedy(root: Root) -> None:
    """Given the right to it and dropped again, it is done; so is what was dropped beside it at once."""
    for name in ("a.png", "b.png"):
        shutil.copyfile(SAMPLES / "round_circle_01.png", root.inbox / name)
    (root.inbox / "a.png").chmod(0)
    run_without_rights(root)
    first = set(results(root)), set(failures(root))
    (root.failed / "a.png").chmod(0o644)
    (root.failed / "a.png").rename(root.inbox / "a.png")

    ended = run_without_rights(root)

    assert ({"b.json"}, {"a.png.error.json"}) == first
    assert 0 == ended.returncode, ended.stderr
    assert {"a.json", "b.json"} == set(results(root))


@pytest.mark.parametrize(
    "fault",
    [Fault("unreadable", "no: really"), Fault("incomplete", "it is empty"), Fault("unknown", "")],
)
def test_fault(fault: Fault) -> None:
    """A fault is read as it was written."""
    assert fault == read_fault(fault.text)


def test_earlier_fault() -> None:
    """What an earlier fluxdrop wrote, which knew no kinds, is the reason why a file is incomplete."""
    assert Fault("incomplete", "it is empty") == read_fault("it is empty")
