"""What a scan of the inbox finds, and where it does not go."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from fluxdrop.files.filesystem import filesystem_of, needs_polling
from fluxdrop.files.folders import open_folder
from fluxdrop.jobs.input_names import scan


def fill(folder: Path, *paths: str) -> Path:
    """Make empty files at *paths* below *folder*."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    return folder


def found(inbox: Path, below: str = "") -> tuple[set[str], dict[str, int | None]]:
    """What a scan finds, and the numbers of the errors that it meets."""
    errors: dict[str, int | None] = {}
    paths = set(scan(inbox, below, lambda folder, error: errors.update({folder: error.errno})))
    return paths, errors


def test_subfolders(tmp_path: Path) -> None:
    """Files are found however deep they lie, by their paths below the inbox."""
    paths = {"a.png", "cats/b c.png", "cats/Süße/d.txt", "cats/e/f/g/h.pdf", "cat\udcff.png"}
    fill(tmp_path, *paths)

    assert (paths, {}) == found(tmp_path)


def test_one_subfolder(tmp_path: Path) -> None:
    """A scan can be confined to a subfolder."""
    fill(tmp_path, "a.png", "cats/b.png", "cats/old/c.png", "catsup/d.png")

    assert ({"cats/b.png", "cats/old/c.png"}, {}) == found(tmp_path, "cats")


def test_ignored(tmp_path: Path) -> None:
    """Files in the making are passed over, and folders with such names with all in them."""
    fill(tmp_path, "a.png.part", ".hidden/b.png", "@eaDir/c.png", "d~/e.png", "f.png")

    assert ({"f.png"}, {}) == found(tmp_path)


def test_symlinks_are_not_followed(tmp_path: Path) -> None:
    """A symlink is a name like others, even to a folder: nothing behind it is found."""
    inbox, elsewhere = fill(tmp_path / "inbox", "a.png"), fill(tmp_path / "elsewhere", "b.png")
    (inbox / "folder").symlink_to(elsewhere)
    (inbox / "loop").symlink_to(inbox)
    (inbox / "nowhere.png").symlink_to("nowhere")

    assert ({"a.png", "folder", "loop", "nowhere.png"}, {}) == found(inbox)
    assert (set(), {"folder": 20}) == found(inbox, "folder")


def test_inbox_may_be_a_symlink(tmp_path: Path) -> None:
    """The inbox itself is where its owner says it is."""
    (tmp_path / "inbox").symlink_to(fill(tmp_path / "elsewhere", "b.png"))

    assert ({"b.png"}, {}) == found(tmp_path / "inbox")


def test_vanished(tmp_path: Path) -> None:
    """A subfolder that went is passed over; an inbox that went is told."""
    assert (set(), {}) == found(fill(tmp_path, "a.png"), "gone")
    assert (set(), {"": 2}) == found(tmp_path / "gone")


def test_vanishes_on_the_way(tmp_path: Path) -> None:
    """A subfolder that goes while the scan is elsewhere costs no other file."""
    fill(tmp_path, "a.png", "cats/b.png")
    walk = scan(tmp_path)
    first = next(walk)
    (tmp_path / "cats" / "b.png").unlink()
    (tmp_path / "cats").rmdir()

    assert ["a.png"] == [first, *walk]


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    """A scan that is given up in the middle holds nothing open, nor does one that was refused."""
    fill(tmp_path, *(f"{number}/a.png" for number in range(5)))
    before = psutil.Process().num_fds()
    walk = scan(tmp_path)
    next(walk)
    walk.close()  # type: ignore[attr-defined]
    found(tmp_path, "0/a.png")
    after = psutil.Process().num_fds()

    assert before == after


@pytest.mark.parametrize("part", ["first", "last"])
def test_open_folder_refuses_symlinks(tmp_path: Path, part: str) -> None:
    """No part of the way to a folder may be a symlink, so that nobody can lead the daemon astray."""
    fill(tmp_path, "elsewhere/sub/a.png")
    (tmp_path / "inbox" / "real").mkdir(parents=True)
    (tmp_path / "inbox" / "first").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "inbox" / "real" / "last").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(NotADirectoryError):
        open_folder(tmp_path / "inbox", "first/sub" if part == "first" else "real/last")


MOUNTS = """\
22 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw
40 22 0:35 / /mnt/my\\040share rw,relatime shared:2 - cifs //nas/share rw
41 22 0:36 / {home} rw,relatime shared:3 - autofs systemd-1 rw
42 41 0:37 / {home} rw,relatime shared:4 - nfs4 nas:/home rw
43 22 0:38 / /mnt/my rw,relatime - fuse.sshfs host: rw
44 22 0:39 / /mnt/caf\xe9 rw,relatime - xfs /dev/sdb1 rw
"""


@pytest.mark.parametrize(
    ("path", "filesystem"),
    [
        ("/mnt/my share/root/inbox", "cifs"),
        ("/mnt/my/root", "fuse.sshfs"),
        ("/mnt/mystery", "ext4"),
        ("{home}/ann/root", "nfs4"),
        ("{link}/root", "nfs4"),
    ],
)
def test_filesystem(tmp_path: Path, path: str, filesystem: str) -> None:
    """A folder is on what is mounted nearest above it, and last, also if a symlink leads there."""
    home, link = tmp_path / "home", tmp_path / "link"
    home.mkdir()
    link.symlink_to(home)
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_bytes(MOUNTS.format(home=home).encode("latin-1"))

    assert filesystem == filesystem_of(Path(path.format(home=home, link=link)), mountinfo)


def test_filesystem_of_this_machine(tmp_path: Path) -> None:
    """Linux tells the filesystem of a real folder; without its help the answer is empty."""
    assert "proc" == filesystem_of(Path("/proc/self"))
    assert "" == filesystem_of(tmp_path, tmp_path / "no mountinfo")


@pytest.mark.parametrize(
    ("filesystem", "expected"),
    [
        *((name, False) for name in ("ext4", "btrfs", "xfs", "tmpfs", "overlay", "vfat", "")),
        *((name, True) for name in ("nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "vboxsf")),
        *((name, True) for name in ("fuse", "fuse.sshfs", "fuseblk", "ocfs2")),
    ],
)
def test_needs_polling(filesystem: str, expected: bool) -> None:
    """Shares of the network are polled; local disks, and what is unknown, send events."""
    assert expected is needs_polling(filesystem)
