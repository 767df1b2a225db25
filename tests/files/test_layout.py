"""Roots: found, made, checked and locked."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root, RootLock, find_root, holder
from support.daemons import serving
from support.members import as_member, folder_for_everybody, group_root, needs_root, umask

HOLD = """
import sys
from pathlib import Path
from fluxdrop.files.layout import Root, RootLock
lock = RootLock(Root(Path(sys.argv[1])))
print("held", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def served(root: Root) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of *root*."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert "held\n" == process.stdout.readline()
        yield process
        process.kill()


def test_create_for_the_owner(tmp_path: Path) -> None:
    """Whatever the umask, no folder that is made may be written by anybody but its owner, and nobody
    else leaves requests.
    """
    root = Root(tmp_path / "root")
    with umask(0):
        root.create()

    modes = {path.stat().st_mode & 0o777 for path in (root.path, *root.path.rglob("*"))}
    assert {0o755, 0o700} == modes
    assert 0o700 == root.requests.stat().st_mode & 0o777


def test_create(tmp_path: Path) -> None:
    """All folders are made, and making them again changes nothing."""
    root = Root(tmp_path / "new" / "root")
    root.create()
    (root.inbox / "kept.png").touch()
    root.create()

    assert {
        ".fluxdrop",
        "inbox",
        "generated_images",
        "preprocessed_images",
        "outputs",
    } == {path.name for path in root.path.iterdir()}
    assert root.failed.is_dir()
    assert [root.inbox / "kept.png"] == list(root.inbox.iterdir())


def test_create_refused(tmp_path: Path) -> None:
    """A root that cannot be made is an error that names the folder."""
    (tmp_path / "file").touch()

    with pytest.raises(
        FluxdropError, match=r"file.*cannot be made: Not a directory.*Choose a folder"
    ):
        Root(tmp_path / "file" / "root").create()


@pytest.mark.parametrize("way", ["given", "variable", "working folder"])
def test_find_root(root: Root, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """A root is what is given, else FLUXDROP_ROOT, else the working folder."""
    other = root.path / "other"
    Root(other).create()
    monkeypatch.chdir(root.path if way == "working folder" else other)
    monkeypatch.delenv("FLUXDROP_ROOT", raising=False)
    if way != "working folder":
        monkeypatch.setenv("FLUXDROP_ROOT", str(root.path if way == "variable" else other))

    assert root == find_root(root.path if way == "given" else None)


def test_find_root_relative(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is made absolute, so that a later change of folder does no harm."""
    monkeypatch.chdir(root.path.parent)

    assert root == find_root(Path(root.path.name))


def test_no_root(tmp_path: Path) -> None:
    """A folder that is no root is refused, with the command that makes it one."""
    with pytest.raises(FluxdropError, match=f"{tmp_path} is not .* fluxdrop init {tmp_path}"):
        find_root(tmp_path)


def test_check(root: Root) -> None:
    """A root on one filesystem is accepted, and the trial leaves nothing behind."""
    root.check()

    assert [] == [*root.inbox.iterdir(), *root.work.iterdir()]


def test_check_refuses_two_filesystems(tmp_path: Path) -> None:
    """An inbox of which no file can be renamed into the state folder is refused before anything is
    claimed."""
    shm = Path("/dev/shm")
    if not os.access(shm, os.W_OK) or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second filesystem to write to")
    with tempfile.TemporaryDirectory(dir=shm) as folder:
        root = Root(tmp_path)
        root.inbox.symlink_to(folder)
        root.create()

        with pytest.raises(FluxdropError, match="cannot be claimed by one rename"):
            root.check()

        assert [] == list(root.inbox.iterdir())


def test_check_refuses_two_mounts(root: Root) -> None:
    """Two mounts of one filesystem, as containers have them, are told apart as well."""
    check = (
        "import sys, pathlib, fluxdrop.files.layout as l; l.Root(pathlib.Path(sys.argv[1])).check()"
    )
    command = 'mount --bind "$1/inbox" "$1/inbox" && exec "$2" -c "$3" "$1"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", command, "sh", root.path, sys.executable, check],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare:" in done.stderr or "mount:" in done.stderr:
        pytest.skip("mounting is not allowed here")

    assert "cannot be claimed by one rename" in done.stderr


def test_lock_names_its_holder(root: Root) -> None:
    """A second process is refused, with the pid of the first, which `holder` tells everybody."""
    with served(root) as other:
        with pytest.raises(FluxdropError, match=f"by the daemon with pid {other.pid}") as caught:
            RootLock(root)

        assert "locked" == caught.value.kind
        assert other.pid == holder(root)


def test_lock_ends_with_its_process(root: Root) -> None:
    """After SIGKILL the root is free at once, although the file still names a pid."""
    with served(root) as other:
        other.kill()
        other.wait()

        assert f"{other.pid}\n" == root.lock.read_text()
        assert holder(root) is None
        with contextlib.closing(RootLock(root)):
            assert os.getpid() == holder(root)


def test_lock_given_up(root: Root) -> None:
    """A lock that was closed can be taken again, and names its holder alone."""
    RootLock(root).close()
    free = holder(root)
    with contextlib.closing(RootLock(root)):
        assert free is None
        assert f"{os.getpid()}\n" == root.lock.read_text()


def test_nobody_ever_served(root: Root) -> None:
    """A root without a lock file has no holder, and asking makes none."""
    assert holder(root) is None
    assert not root.lock.exists()


def test_asking_keeps_nobody_from_serving(root: Root) -> None:
    """A daemon that starts in the instant in which `holder` looks is not refused."""
    root.lock.touch()
    with root.lock.open() as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        end = threading.Timer(0.05, fcntl.flock, (asking, fcntl.LOCK_UN))
        end.start()
        with contextlib.closing(RootLock(root)):
            assert os.getpid() == holder(root)
        end.join()


def test_lock_that_cannot_be_opened(root: Root) -> None:
    """A lock file that cannot be opened is an error that names it."""
    root.lock.mkdir()

    with pytest.raises(FluxdropError, match=r"lock cannot be locked: Is a directory"):
        RootLock(root)


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that others can reach."""
    yield from folder_for_everybody()


@needs_root
def test_locks_are_private(reachable: Path, samples: Path) -> None:
    """Nobody else can open a lock of a root, and so keep a daemon from it; who may only read it is told all the same
    whether a daemon runs."""
    root = group_root(reachable)
    before = as_member(lambda: holder(root))
    with serving(root, engine="onnxruntime") as daemon:
        shutil.copyfile(samples / "round_ring_01.png", root.inbox / "ring.png")
        daemon.wait_for_ends(1)
        daemon.wait_until((root.state / "gallery.lock").exists, "the gallery's lock")
        with pytest.raises(PermissionError):
            as_member(lambda: root.lock.open().close())
        with pytest.raises(PermissionError):
            as_member(lambda: (root.state / "gallery.lock").open().close())
        found = as_member(lambda: holder(root))
        daemon.process.kill()
        daemon.process.wait()
        after = as_member(lambda: holder(root))

    assert (None, daemon.process.pid, None) == (before, found, after)
