"""Folders opened without following links, and what is written and removed below them."""

from __future__ import annotations

import os
from contextlib import closing, nullcontext
from pathlib import Path

import pytest
from intruders import FILE_WAYS, Outside, intrude

from fluxdrop import durable
from fluxdrop.folders import Folders, files_below, open_folder


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
