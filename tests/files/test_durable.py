"""Files that are whole or not there, and names that are given once."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fluxdrop.files import durable
from fluxdrop.files.folders import opened
from fluxdrop.publish import links
from fluxdrop.publish.links import NameTakenError


def names(folder: Path) -> set[str]:
    """What lies in *folder*."""
    return {path.name for path in folder.iterdir()}


def give(source: Path, target: Path) -> None:
    """`links.link_or_copy` by a path."""
    with opened(target.parent) as folder:
        links.link_or_copy(str(source), target.name, folder)


def take_back(source: Path, target: Path) -> None:
    """`links.unlink_or_remove_copy` by a path."""
    with opened(target.parent) as folder:
        links.unlink_or_remove_copy(str(source), target.name, folder)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on a filesystem to which nothing below *tmp_path* can be linked."""
    shm = Path("/dev/shm")
    if not os.access(shm, os.W_OK) or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second filesystem to write to")
    with tempfile.TemporaryDirectory(dir=shm) as folder:
        yield Path(folder)


@pytest.mark.parametrize("sync", [True, False])
def test_write(tmp_path: Path, sync: bool) -> None:
    """A file is made, then replaced, and nothing else is left in its folder."""
    path = tmp_path / "state.json"
    durable.write(path, b"one", sync=sync)
    durable.write(path, b"two", sync=sync)

    assert b"two" == path.read_bytes()
    assert {"state.json"} == names(tmp_path)


def test_write_is_whole_or_not_at_all(tmp_path: Path) -> None:
    """While a file is replaced, everybody who has it open goes on seeing the old one, whole."""
    path = tmp_path / "state.json"
    durable.write(path, b"one")
    with path.open("rb") as reader:
        durable.write(path, b"something longer")

        assert b"one" == reader.read()


def test_link(tmp_path: Path) -> None:
    """A name is a hard link, and giving it again changes nothing."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"data")
    give(source, target)
    give(source, target)

    assert source.samefile(target)
    assert 2 == source.stat().st_nlink


def test_copy(tmp_path: Path, elsewhere: Path) -> None:
    """Where no link can be made a name is a copy, and giving it again changes nothing."""
    source, target = tmp_path / "source", elsewhere / "target"
    source.write_bytes(b"data" * 1_000_000)
    give(source, target)
    inode = target.stat().st_ino
    give(source, target)

    assert source.read_bytes() == target.read_bytes()
    assert inode == target.stat().st_ino
    assert {"target"} == names(elsewhere)


def test_sweep(tmp_path: Path) -> None:
    """What killed processes left in the making goes, and nothing that only looks like it."""
    torn = ".0123456789abcdef.fluxdrop.tmp"
    kept = [".0123456789abcdef.tmp", "0123456789abcdef.fluxdrop.tmp", ".cat.png.fluxdrop.tmp"]
    for name in (torn, *kept):
        (tmp_path / name).write_bytes(b"da")
    folder, link = (f".{digit * 16}.fluxdrop.tmp" for digit in "12")
    (tmp_path / folder).mkdir()
    (tmp_path / link).symlink_to(tmp_path / kept[0])
    with opened(tmp_path) as fd:
        durable.sweep(fd)

    assert {*kept, folder, link} == names(tmp_path)


def test_longest_name(tmp_path: Path, elsewhere: Path) -> None:
    """A copy can have a name as long as the filesystem allows."""
    source, target = tmp_path / "source", elsewhere / ("n" * 251 + ".png")
    source.write_bytes(b"data")
    give(source, target)

    assert b"data" == target.read_bytes()


@pytest.mark.parametrize("way", ["link", "copy"])
@pytest.mark.parametrize("taken_by", ["file", "folder", "symlink", "dangling symlink"])
def test_nothing_is_replaced(
    tmp_path: Path, request: pytest.FixtureRequest, way: str, taken_by: str
) -> None:
    """A name that anything else has is not given, and what has it stays as it is."""
    folder = tmp_path if way == "link" else request.getfixturevalue("elsewhere")
    source, target, other = tmp_path / "source", folder / "target", folder / "other"
    source.write_bytes(b"data")
    other.write_bytes(b"atad")
    match taken_by:
        case "file":
            target.write_bytes(b"Data")
        case "folder":
            target.mkdir()
        case "symlink":
            target.symlink_to(other)
        case _:
            target.symlink_to(folder / "nowhere")
    before = target.lstat()

    with pytest.raises(NameTakenError, match="target"):
        give(source, target)

    assert (before.st_ino, before.st_mtime_ns) == (
        target.lstat().st_ino,
        target.lstat().st_mtime_ns,
    )
    assert b"atad" == other.read_bytes()
    assert {"target", "other"} <= names(folder) <= {"target", "other", "source"}


@pytest.mark.parametrize("missing", ["source", "folder"])
def test_other_errors_pass(tmp_path: Path, missing: str) -> None:
    """What is no question of names is an OSError."""
    source = tmp_path / "source"
    if missing == "folder":
        source.touch()

    with pytest.raises(FileNotFoundError):
        give(source, tmp_path / "folder" / "target")


def test_symlink_is_not_followed(tmp_path: Path) -> None:
    """A symlink gets another name itself; what it points to gets none."""
    secret, source, target = (tmp_path / name for name in ("secret", "source", "target"))
    secret.write_bytes(b"data")
    source.symlink_to(secret)
    give(source, target)

    assert target.is_symlink()
    assert 1 == secret.stat().st_nlink


def test_unlink_or_remove_copy(tmp_path: Path) -> None:
    """A name is taken from a link of the source's, and from nothing else."""
    source, link, other = (tmp_path / name for name in ("source", "link", "other"))
    source.write_bytes(b"data")
    other.write_bytes(b"data")
    give(source, link)
    for target in (link, link, other):
        take_back(source, target)

    assert {"source", "other"} == names(tmp_path)


def test_take_copy_back(tmp_path: Path, elsewhere: Path) -> None:
    """Where no link can be made a name is taken from a copy, and from nothing else."""
    source, copy, other = tmp_path / "source", elsewhere / "copy", elsewhere / "other"
    source.write_bytes(b"data")
    other.write_bytes(b"Data")
    give(source, copy)
    for target in (copy, copy, other):
        take_back(source, target)

    assert {"other"} == names(elsewhere)


@pytest.mark.parametrize("count", [0, 3, 200])
def test_sync_all(tmp_path: Path, count: int) -> None:
    """Few files and many can be waited for, with their folders."""
    files = [tmp_path / str(number) for number in range(count)]
    for file in files:
        file.write_bytes(b"data")
    before = names(Path("/proc/self/fd"))
    durable.sync_all(files, [tmp_path])

    assert before == names(Path("/proc/self/fd"))


@pytest.mark.parametrize(("count", "folder"), [(1, "."), (200, "gone")])
def test_sync_all_tells_errors(tmp_path: Path, count: int, folder: str) -> None:
    """A file that is not there is not passed over in silence, nor is a folder of many."""
    with pytest.raises(FileNotFoundError):
        durable.sync_all([tmp_path / folder / str(number) for number in range(count)])


def test_sync_follows_no_symlink(tmp_path: Path) -> None:
    """A symlink is refused rather than followed."""
    (tmp_path / "link").symlink_to(tmp_path)

    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        durable.sync_file(tmp_path / "link")


def test_remove_tree(tmp_path: Path) -> None:
    """A folder goes with all in it; what its symlinks point to stays; a second time is harmless."""
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "file").touch()
    (tree / "a" / "to folder").symlink_to(kept)
    (tree / "a" / "b" / "to file").symlink_to(kept / "file")
    (tree / "dangling").symlink_to(tmp_path / "nowhere")
    durable.remove_tree(tree)
    durable.remove_tree(tree)

    assert {"kept"} == names(tmp_path)
    assert {"file"} == names(kept)
