"""Folders opened without following links, and what is written and removed below them."""

from __future__ import annotations

import errno
import os
import tracemalloc
from contextlib import closing, nullcontext
from pathlib import Path

import pytest

from fluxdrop.files import durable
from fluxdrop.files.folders import Folders, files_below, open_folder
from support.intruders import FILE_WAYS, Outside, intrude


def test_files_below_does_not_follow(tmp_path: Path, outside: Outside) -> None:
    """A walk passes over symlinks, tells what lies too deep, and costs a step a level."""
    top = tmp_path / "top"
    top.mkdir()
    (top / "a").mkdir()
    (top / "a" / "file").touch()
    (top / "link").symlink_to(outside.folder)
    fd = open_folder(top, "")
    for _ in range(300):
        os.mkdir("deep", dir_fd=fd)
        below = os.open("deep", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    told: list[str] = []
    found = sorted(files_below(top, on_error=lambda folder, _error: told.append(folder)))
    durable.remove_tree(top)

    assert ["a/file", "link"] == found
    assert ["/".join(["deep"] * 101)] == told
    assert not top.exists()
    outside.assert_same()


def make_deep(top: Path, names: list[str]) -> int:
    """Make the folders *names* in each other below *top*; the innermost, open."""
    fd = open_folder(top, "")
    for name in names:
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    return fd


def test_files_below_a_long_path(tmp_path: Path) -> None:
    """Folders whose path is longer than Linux takes are told and left alone, and no file in them is found."""
    top = tmp_path / "top"
    (top / "a").mkdir(parents=True)
    (top / "a" / "file").touch()
    fd = make_deep(top, ["d" * 250] * 30)
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    told: dict[str, OSError] = {}
    found = list(files_below(top, on_error=told.__setitem__))
    durable.remove_tree(top)

    assert ["a/file"] == found
    ((folder, error),) = told.items()
    assert (errno.ENAMETOOLONG, "its path is too long") == (error.errno, error.strerror)
    assert len(str(top / folder).removesuffix("/" + "d" * 250)) <= 4096 - 512


def test_files_below_keeps_no_folders(tmp_path: Path) -> None:
    """A walk keeps nothing of the folders that wait beside the one that it is in, and closes what it opened."""
    top = tmp_path / "top"
    top.mkdir()
    fd = make_deep(top, ["d" * 200] * 10)
    for number in range(2000):
        os.mkdir(f"{number}".zfill(200), dir_fd=fd)
    os.close(fd)
    before = set(Path("/proc/self/fd").iterdir())
    tracemalloc.start()
    found = list(files_below(top))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    durable.remove_tree(top)

    assert [] == found
    assert peak < 500_000
    assert before == set(Path("/proc/self/fd").iterdir())


def test_files_below_ended_early(tmp_path: Path) -> None:
    """A walk that is not gone to its end closes what it opened."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").touch()
    before = set(Path("/proc/self/fd").iterdir())
    with closing(files_below(tmp_path)) as walk:
        first = next(walk)

    assert "a/b/file" == first
    assert before == set(Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize("name", ["..", ".", "", "a/../b"])
def test_folders_stay_below(tmp_path: Path, name: str) -> None:
    """No path of a folder leads upwards."""
    (tmp_path / "top" / "a").mkdir(parents=True)
    with closing(Folders(tmp_path / "top")) as folders:
        if name:
            with pytest.raises(NotADirectoryError):
                folders.fd(f"a/{name}", make=True)


@pytest.mark.parametrize("way", FILE_WAYS)
def test_put_replaces(tmp_path: Path, outside: Outside, way: str) -> None:
    """What is written into a job's folder goes to a new file, whatever had its name."""
    (tmp_path / "job").mkdir()
    path = tmp_path / "job" / "record.json"
    intrude(path, way, outside)

    with pytest.raises(IsADirectoryError) if way == "folder" else nullcontext():
        durable.put(path, b"data")
        assert b"data" == path.read_bytes()
    outside.assert_same()


def test_remove_tree_of_a_link(tmp_path: Path, outside: Outside) -> None:
    """Of a folder that is a link nothing is removed."""
    (tmp_path / "job").symlink_to(outside.folder)

    with pytest.raises(NotADirectoryError):
        durable.remove_tree(tmp_path / "job")

    outside.assert_same()
