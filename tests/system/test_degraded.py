"""What a real daemon says and does while something around it is away."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fluxdrop.files.layout import Root
from support.daemons import Daemon, degraded_reasons, environment, failures, results, serving


def told(daemon: Daemon, part: str) -> list[str]:
    """What the log tells of the outages of *part*."""
    return [line["event"] for line in daemon.log() if line.get("part") == part]


@contextmanager
def away(folder: Path) -> Iterator[None]:
    """*folder* under another name for a while."""
    elsewhere = folder.rename(folder.with_name("elsewhere"))
    yield
    elsewhere.rename(folder)


@contextmanager
def not_writable(folder: Path) -> Iterator[None]:
    """*folder* as one that nothing can be written to: root may write wherever modes forbid it, so
    for root it is mounted read-only."""
    if os.geteuid() != 0:
        folder.chmod(0o555)
        yield
        folder.chmod(0o755)
        return
    bound = subprocess.run(["mount", "--bind", folder, folder], capture_output=True, check=False)
    if bound.returncode:
        pytest.skip("a folder cannot be mounted here")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize(
    ("part", "folder", "lose", "words"),
    [
        ("inbox", "inbox", away, "inbox: No such file or directory"),
        ("state", ".fluxdrop", away, None),
        ("publish", "outputs", not_writable, "publish: "),
    ],
)
def test_folder_goes_and_comes_back(
    root: Root,
    samples: Path,
    part: str,
    folder: str,
    lose: Callable[[Path], object],
    words: str | None,
) -> None:
    """While a folder is away or not writable the daemon lives on and tells it, in `status` and once
    in the log; when it is back, what was dropped is done."""
    picture = samples / "round_circle_01.png"
    with serving(root, engine="onnxruntime", scan_seconds=1) as daemon:
        log = (root.logs / "fluxdrop.log").open()
        with lose(root.path / folder):  # type: ignore[attr-defined]
            if part != "inbox":
                shutil.copyfile(picture, root.inbox / "a.png")
            if words is None:
                text = ""
                while '"outage begins"' not in text:
                    assert daemon.process.poll() is None
                    time.sleep(0.05)
                    text += log.read()
            else:
                daemon.wait_until(
                    lambda: any(words in one for one in degraded_reasons(root)), words
                )
        log.close()
        if part == "inbox":
            shutil.copyfile(picture, root.inbox / "a.png")
        daemon.wait_for_ends(1)
        daemon.wait_until(lambda: not degraded_reasons(root), "no outage")
        assert 0 == daemon.stop()

    assert ({"a.json"}, {}) == (set(results(root)), failures(root))
    assert ["outage begins", "outage ended"] == told(daemon, part)


LIMITED = """
echo 0 > /proc/sys/user/{limit} || exit 77
while [ ! -e "$1/enough" ]; do sleep 0.2; done && echo 9999 > /proc/sys/user/{limit} &
exec "$2" -m fluxdrop run --root "$1"
"""


@pytest.mark.parametrize(
    ("limit", "setting"),
    [
        ("max_inotify_watches", "fs.inotify.max_user_watches"),
        ("max_inotify_instances", "fs.inotify.max_user_instances"),
    ],
)
def test_inotify_limits(root: Root, samples: Path, limit: str, setting: str) -> None:
    """Where the system allows no watch, scans find the files, and `status` names the setting to
    raise; when that was done, events arrive again by themselves."""
    script = LIMITED.format(limit=limit)
    process = subprocess.Popen(
        ["unshare", "-Ur", "sh", "-c", script, "sh", root.path, sys.executable],
        env=environment(engine="onnxruntime", scan_seconds=1),
        stderr=subprocess.DEVNULL,
    )
    daemon = Daemon(root, process)
    try:
        while not root.heartbeat.exists():
            if process.poll() is not None:
                pytest.skip("a limit of our own cannot be set here")
            time.sleep(0.05)
        found = degraded_reasons(root)
        shutil.copyfile(samples / "round_circle_01.png", root.inbox / "a.png")
        daemon.wait_for_ends(1)
        (root.path / "enough").touch()
        daemon.wait_until(lambda: not degraded_reasons(root), "no outage")
        assert 0 == daemon.stop()
    finally:
        process.kill()
        process.wait()

    assert 1 == len(found)
    assert "found by scans only" in found[0]
    assert setting in found[0]
    assert ["outage begins", "outage ended"] == told(daemon, "events")
