"""The watch of the inbox: how it ends, is missing, and begins again."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from fluxdrop.config import Settings
from fluxdrop.files.folders import open_folder
from fluxdrop.files.layout import Root
from fluxdrop.intake import watch
from fluxdrop.intake.watch import Watch
from support.station import PATIENCE, Station, events

pytestmark = pytest.mark.usefixtures("nothing_is_left")


def test_lost_event_of_the_last_byte(root: Root, png: bytes) -> None:
    """A picture that was seen half written, and of whose end no event tells, is found whole by the
    next scan and not at its deadline.
    """
    station = Station(root, Settings(settle_seconds=0.1, incomplete_seconds=3600, scan_seconds=0.2))
    with closing(station.intake):
        path = station.drop("a.png", png[:100])
        station.step_until(lambda: station.intake.waiting)
        station.intake._watch.close()  # type: ignore[union-attr]
        path.write_bytes(png)
        station.intake._events.take(0)

        assert {"a.png": png} == station.take(1)


@pytest.mark.parametrize("gone", ["inbox", "root"])
def test_inbox_goes_and_comes_back(
    station: Station, png: bytes, gone: str, caplog: pytest.LogCaptureFixture
) -> None:
    """While the inbox, or all of the root, is away the intake lives on; when it is back, files in
    it are found by events again.
    """
    folder = station.root.inbox if gone == "inbox" else station.root.path
    away = folder.rename(folder.with_name("away"))
    for _ in range(3):
        station.intake._next_scan = 0
        station.steps()
    left = set(station.intake.skipped)
    watching = station.intake.watching
    away.rename(folder)
    station.intake._next_scan = 0
    station.steps()
    again = station.intake.watching
    station.drop("a.png", png)

    assert str(station.root.inbox) in left
    assert (False, True) == (watching, again)
    assert {"a.png": png} == station.take(1)
    assert 1 == events(caplog).count("left alone")


def test_another_inbox(station: Station, png: bytes) -> None:
    """Another folder in the place of the inbox is watched instead of it from the next scan on."""
    inbox = station.root.inbox
    inbox.rename(inbox.with_name("old"))
    inbox.mkdir()
    watching = station.intake.watching
    station.intake._next_scan = 0
    station.steps()
    station.drop("a.png", png)

    assert not watching
    assert {"a.png": png} == station.take(1)


def test_inbox_is_a_symlink(root: Root, png: bytes) -> None:
    """Events arrive from an inbox that lies elsewhere, too."""
    root.inbox.rename(root.path / "elsewhere")
    root.inbox.symlink_to("elsewhere")
    station = Station(root)
    with closing(station.intake):
        station.intake.step(timeout=0)
        station.drop("a.png", png)

        assert {"a.png": png} == station.take(1)


def test_dead_watch(station: Station, png: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """A watch of which the thread ended is noticed and begun again by the next scan."""
    watch = station.intake._watch
    assert watch is not None
    watch._reader.stop()
    watch._reader.join()
    watching = station.intake.watching
    station.intake._next_scan = 0
    station.steps()
    station.drop("a.png", png)

    assert not watching
    assert {"a.png": png} == station.take(1)
    assert "the watch of the inbox ended and is begun again" in events(caplog)


def test_name_of_a_folder_that_left(station: Station, png: bytes) -> None:
    """A folder that left the inbox, and another one that got its name meanwhile, may both be deleted:
    the watch lives on. watchdog's own watch of subfolders ends with a KeyError (docs/known-defects.md).
    """
    folder, away = station.root.inbox / "a", station.root.path / "away"
    folder.mkdir()
    station.drop("one.png", png)
    station.take(1)
    folder.rename(away)
    folder.mkdir()
    station.drop("two.png", png)
    station.take(2)
    folder.rmdir()
    away.rmdir()
    station.drop("three.png", png)

    assert 3 == len(station.take(3))
    assert station.intake.watching


def test_exchanged_folders(station: Station, png: bytes) -> None:
    """However quickly folders take each other's names, the watch lives on, and files that are dropped
    into them afterwards are found by events under the right names.
    """
    inbox = station.root.inbox
    for name in ("a", "b/sub"):
        (inbox / name).mkdir(parents=True)
    for _ in range(300):
        (inbox / "a").rename(inbox / "c")
        (inbox / "a").mkdir()
        (inbox / "c").rename(inbox / "a")
        (inbox / "a").rename(inbox / "c")
        (inbox / "b").rename(inbox / "a")
        (inbox / "c").rename(inbox / "b")
        (inbox / "a" / "sub").rename(inbox / "b" / "sub")
    # Events arrive in their order: with this one all folders have been looked at.
    station.drop("mark.png", png)
    station.take(1)
    for name in ("a/x.png", "b/x.png", "b/sub/x.png"):
        (inbox / name).write_bytes(png)

    assert {"mark.png", "a/x.png", "b/x.png", "b/sub/x.png"} == set(station.take(4))
    assert station.intake.watching


def test_folder_of_which_no_event_came(root: Root, caplog: pytest.LogCaptureFixture) -> None:
    """A folder that was made while the kernel lost events is watched as soon as that is known."""
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if most > 200_000:
        pytest.skip("the kernel keeps too many events for a test to fill its queue")
    go_on, told = threading.Event(), threading.Event()

    def notice(path: str, _hint: object) -> None:
        assert go_on.wait(PATIENCE)
        if path == "late/file":
            told.set()

    with closing(Watch(root.inbox, notice, root.requests, lambda: None)) as watch:
        names = [root.inbox / "a", root.inbox / "b"]
        names[0].touch()
        for n in range(2 * most):
            names[n % 2].rename(names[1 - n % 2])
        (root.inbox / "late").mkdir()
        go_on.set()
        for _ in range(int(PATIENCE / 0.1)):
            (root.inbox / "late" / "file").write_bytes(b"")
            if told.wait(0.1):
                break

        assert told.is_set()
        assert watch.alive()
    assert "Inotify queue overflowed" in caplog.text


CLOSED = """
import sys
from pathlib import Path
from fluxdrop.intake import watch
from fluxdrop.intake.watch import Watch
from fluxdrop.files.layout import Root

root = Root(Path(sys.argv[1]))
for folder in ("one", "two", "."):
    (root.inbox / folder).chmod(0)
    try:
        Watch(root.inbox, print, root.requests, print).close()
    except OSError as error:
        print(error.strerror)
    else:
        print("watched")
"""


def test_closed_folders(root: Root) -> None:
    """Subfolders that may not be read keep the others from no watch; the inbox itself is then not
    said to be watched.
    """
    for name in ("one", "two"):
        (root.inbox / name).mkdir()
    # In a namespace of its own not even root may read what its owner closed.
    command = ["unshare", "-U", sys.executable, "-W", "error", "-c", CLOSED, str(root.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unshare:" in done.stderr:
        pytest.skip("a user namespace of our own cannot be made here")

    assert (["watched", "watched", "Permission denied"], "") == (
        done.stdout.splitlines(),
        done.stderr,
    )


LIMITED = """
import os, sys, threading
from pathlib import Path
from fluxdrop.config import Settings
from fluxdrop.intake.intake import Intake
from fluxdrop.files.layout import Root

claims = []
intake = Intake(Root(Path(sys.argv[1])), Settings(), claims.append, lambda _: True)
fds = os.listdir("/proc/self/fd")
for _ in range(5):
    intake._next_scan = 0
    intake.step(timeout=0)
assert fds == os.listdir("/proc/self/fd")
print(len(claims), intake.watching, threading.active_count())
"""


@pytest.mark.parametrize("limit", ["max_inotify_instances", "max_inotify_watches"])
def test_no_watch_can_be_made(root: Root, png: bytes, limit: str) -> None:
    """Where the system's limits allow no watch, files are found by scans, and the attempts leave
    neither a thread nor a descriptor behind.
    """
    (root.inbox / "a.png").write_bytes(png)
    command = f'echo 0 > /proc/sys/user/{limit} && exec "$1" -c "$2" "$3"'
    done = subprocess.run(
        ["unshare", "-Ur", "sh", "-c", command, "sh", sys.executable, LIMITED, root.path],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare:" in done.stderr or limit in done.stderr:
        pytest.skip("a limit of our own cannot be set here")

    assert ("1 False 1\n", 0) == (done.stdout, done.returncode)


def test_watch_that_fails_halfway(root: Root, png: bytes) -> None:
    """A watch that cannot be completed, as a folder is missing, leaves no thread and no descriptor;
    files are found all the same.
    """
    root.requests.rmdir()
    station = Station(root)
    with closing(station.intake):
        station.drop("a.png", png)
        for _ in range(3):
            station.intake._next_scan = 0
            station.steps()

        assert {"a.png": png} == station.contents()
        assert not station.intake.watching


def test_folder_that_becomes_a_link(
    station: Station, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is exchanged for a symlink while it is looked at has nothing behind that watched."""
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)

    def exchange(top: Path, path: str) -> int:
        if path == "a/deep" and not (top / "a").is_symlink():
            (top / "a").rename(top / "b")
            (top / "a").symlink_to(outside)
        return open_folder(top, path)

    monkeypatch.setattr("fluxdrop.intake.watch.open_folder", exchange)
    station.steps()
    (station.root.path / "a" / "deep").mkdir(parents=True)
    (station.root.path / "a").rename(station.root.inbox / "a")
    station.step_until(lambda: (station.root.inbox / "a").is_symlink())
    station.steps()
    (outside / "deep" / "secret.png").write_bytes(b"secret")
    station.steps()

    assert [] == [path for path in station.intake.skipped if "secret" in path]
    assert 0 == station.intake.waiting


def test_more_folders_than_are_watched(
    root: Root, png: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of very many folders only some are watched, as the log says; the files in the others are found by scans."""
    monkeypatch.setattr(watch, "_MAX_FOLDERS", 3)
    for number in range(6):
        (root.inbox / str(number)).mkdir()
    station = Station(root, Settings(settle_seconds=0.1, scan_seconds=0.2))
    with closing(station.intake):
        station.steps()
        for number in range(6):
            station.drop(f"{number}/a.png", png)

        assert {f"{number}/a.png": png for number in range(6)} == station.take(6)
    assert 1 == caplog.text.count("only some folders of the inbox are watched")


def test_folder_that_is_renamed_again_and_again(
    station: Station, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is renamed very often is listed once for the watch, and a file beside it comes through."""
    listed: list[object] = []
    scandir = os.scandir

    def count(folder: object) -> object:
        listed.append(folder)
        return scandir(folder)  # type: ignore[call-overload]

    (station.root.inbox / "a").mkdir()
    station.steps()
    monkeypatch.setattr("fluxdrop.intake.watch.os.scandir", count)
    for _ in range(200):
        (station.root.inbox / "a").rename(station.root.inbox / "b")
        (station.root.inbox / "b").rename(station.root.inbox / "a")
    station.drop("cat.png", png)

    assert {"cat.png": png} == station.take(1)
    assert len(listed) < 200
