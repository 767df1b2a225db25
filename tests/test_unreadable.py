"""Dropped files that the daemon may not read: they fail as what they are, and come back with the remedy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from conftest import PATIENCE, SAMPLES, environment, failures, results
from rights import without_rights

from fluxdrop.intake.fault import Fault, read_fault
from fluxdrop.layout import Root

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


@pytest.mark.parametrize("name", ["a.png", "a.txt"])
def test_lost_right(root: Root, name: str) -> None:
    """A file that its owner closes after it was claimed fails as unreadable, too."""
    shutil.copyfile(SAMPLES / "round_circle_01.png", root.inbox / name)
    run_without_rights(root, fault="claim-renamed")
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
