"""Folders of jobs, used again."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluxdrop.jobs.spares import Spares


@pytest.fixture
def spares(tmp_path: Path) -> Spares:
    """None yet."""
    return Spares(tmp_path / "spares")


def full(path: Path) -> Path:
    """A new folder at *path* with files in it, and in a folder in it."""
    (path / "input" / "sub").mkdir(parents=True)
    for name in ("record.json", "input/cat.png", "input/sub/cat.png"):
        (path / name).touch()
    return path


def test_used_again(spares: Spares, tmp_path: Path) -> None:
    """A discarded folder is gone from its place; once that is on the disk, the next is made of it, and
    is empty."""
    folder = full(tmp_path / "one")
    inode = folder.stat().st_ino

    spares.discard(folder)
    spares.settle()
    spares.make(tmp_path / "two")

    assert not folder.exists()
    assert (inode, []) == ((tmp_path / "two").stat().st_ino, list((tmp_path / "two").iterdir()))


def test_not_before_it_is_on_the_disk(spares: Spares, tmp_path: Path) -> None:
    """A folder that a power cut could fill again is nobody else's yet."""
    folder = full(tmp_path / "one")
    inode = folder.stat().st_ino

    spares.discard(folder)
    spares.make(tmp_path / "two")

    assert inode != (tmp_path / "two").stat().st_ino


def test_made_without_spares(spares: Spares, tmp_path: Path) -> None:
    """A folder is made where there is none to use again, or where somebody removed it."""
    spares.discard(full(tmp_path / "one"))
    spares.settle()
    (tmp_path / "spares" / "one").rmdir()

    spares.make(tmp_path / "two")
    spares.make(tmp_path / "three")

    assert ["spares", "three", "two"] == sorted(path.name for path in tmp_path.iterdir())


def test_taken_name(spares: Spares, tmp_path: Path) -> None:
    """A folder with files in it is never replaced."""
    taken = full(tmp_path / "two")
    spares.discard(full(tmp_path / "one"))
    spares.settle()

    with pytest.raises(OSError, match="not empty"):
        spares.make(taken)
    assert (taken / "record.json").exists()


def test_few_are_kept(spares: Spares, tmp_path: Path) -> None:
    """After a flood no more than some hundred folders stay."""
    for number in range(300):
        (tmp_path / str(number)).mkdir()
        spares.discard(tmp_path / str(number))

    assert 256 == len(list((tmp_path / "spares").iterdir()))


def test_what_a_kill_left_goes(spares: Spares, tmp_path: Path) -> None:
    """What a kill left of a discarded folder is gone after the next start."""
    full(tmp_path / "spares" / "one")

    Spares(tmp_path / "spares")

    assert [] == list((tmp_path / "spares").iterdir())
