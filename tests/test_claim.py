"""Claiming one file of the inbox."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest

from fluxdrop.folders import Folders
from fluxdrop.intake.claim import (
    INPUT,
    claim,
    discard_empty,
    new_job_id,
    place,
    read_claim,
    without_empty,
)
from fluxdrop.layout import Root

pytestmark = pytest.mark.usefixtures("nothing_is_left")


def test_job_ids() -> None:
    """Job ids sort by time, and no two are equal."""
    ids = [new_job_id() for _ in range(1000)]

    assert 1000 == len(set(ids))
    assert ids[0][:15] <= ids[-1][:15]


def test_claim(root: Root, png: bytes) -> None:
    """A claim is one rename into a new job's folder, which remembers the path in the inbox."""
    (root.inbox / "cats").mkdir()
    (root.inbox / "cats" / "a.png").write_bytes(png)
    inode = (root.inbox / "cats" / "a.png").stat().st_ino
    with closing(Folders(root.inbox)) as inbox:
        job = claim(inbox, root.work, "cats/a.png", lambda _: True)

    assert job is not None
    found = read_claim(job)
    assert found is not None
    assert ("cats/a.png", inode) == (str(found.source), found.input.stat().st_ino)


def test_fault_comes_before_the_input(
    root: Root, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why a file has to fail is on the disk, and so is its name, before the file is claimed: a power cut that keeps the
    file alone would have it done as if it were whole."""
    (root.inbox / "a.png").write_bytes(png[:-5])
    synced: set[int] = set()
    before: list[bool] = []
    fsync, rename = os.fsync, os.rename

    def sync(fd: int) -> None:
        fsync(fd)
        synced.add(os.fstat(fd).st_ino)

    def watched(source: str, target: Path, **options: int) -> None:
        if Path(target).name.startswith(INPUT):
            job = Path(target).parent
            before.append({(job / "fault").stat().st_ino, job.stat().st_ino} <= synced)
        rename(source, target, **options)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "rename", watched)
    with closing(Folders(root.inbox)) as inbox:
        job = claim(inbox, root.work, "a.png", lambda _: True, "incomplete: it is cut off")

    assert [True] == before
    assert job is not None
    assert "incomplete: it is cut off" == (job / "fault").read_text()


@pytest.mark.parametrize(
    "source",
    [
        "a.png",
        "cats/a.png",
        "50%.png",
        "a%2Fb.png",
        "a%252Fb.png",
        f"{'a/' * 100}b.png",
        "caf\udce9",
    ],
)
def test_place_tells_the_source(tmp_path: Path, source: str) -> None:
    """The place of an input tells its path below the inbox, whatever its length and its bytes."""
    path = place(tmp_path, source)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()

    claim = read_claim(tmp_path)

    assert claim is not None
    assert (source, path) == (str(claim.source), claim.input)


@pytest.mark.parametrize("name", ["..%2F..%2Fa.png", "cats%2F..%2F..%2Fa.png", "%2Fa.png", ".."])
def test_place_outside(tmp_path: Path, name: str) -> None:
    """An input whose name tells a path outside the inbox is none, whoever made its folder."""
    (tmp_path / f"input={name}").touch()

    assert read_claim(tmp_path) is None


@pytest.mark.parametrize("path", ["gone.png", "gone/a.png", "another.png"])
def test_nothing_to_claim(root: Root, path: str) -> None:
    """A file that is gone, or is not the one that was judged, is not claimed, and no folder for it
    is left.
    """
    (root.inbox / "another.png").touch()

    with closing(Folders(root.inbox)) as inbox:
        assert claim(inbox, root.work, path, lambda _: False) is None
    assert [] == list(root.work.iterdir())


def test_claim_through_a_symlink(root: Root, png: bytes) -> None:
    """Nothing is claimed from outside the inbox."""
    outside = root.path / "outside"
    outside.mkdir()
    (outside / "a.png").write_bytes(png)
    (root.inbox / "cats").symlink_to(outside)

    with closing(Folders(root.inbox)) as inbox, pytest.raises(NotADirectoryError):
        claim(inbox, root.work, "cats/a.png", lambda _: True)
    assert [] == list(root.work.iterdir())
    assert (outside / "a.png").exists()


def test_what_is_no_claim(root: Root) -> None:
    """A folder without an input goes, with what was made of the input: a power cut kept that, and lost the
    claim."""
    (root.work / "made").mkdir()
    (root.work / "made" / "tensor.npy").touch()
    (root.work / "claimed").mkdir()
    (root.work / "claimed" / "input=a.png").touch()
    # Not to be read as a claim, but somebody's file all the same.
    (root.work / "odd").mkdir()
    (root.work / "odd" / "input=..%2Fa.png").touch()

    left = without_empty(sorted(root.work.iterdir()))

    assert ["claimed", "odd"] == [path.name for path in left]
    assert left == sorted(root.work.iterdir())


def test_discard_empty(root: Root) -> None:
    """Of a claim that never came to be the folders go; where a file lies they stay."""
    for job in ("empty", "full"):
        (root.work / job / INPUT / "cats").mkdir(parents=True)
    (root.work / "full" / INPUT / "a.png").touch()
    for job in ("empty", "full"):
        discard_empty(root.work / job)

    assert read_claim(root.work / "empty") is None
    assert ["full"] == [path.name for path in root.work.iterdir()]
    assert ["a.png"] == [path.name for path in (root.work / "full" / INPUT).iterdir()]
