"""What a real daemon tells a service manager that listens on a real socket, and when it falls silent."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fluxdrop.files.layout import Root
from fluxdrop.service.reporting import heartbeat
from fluxdrop.service.reporting.notify import Notifier
from support.daemons import PATIENCE, Daemon, failures, results, serving, started
from support.needs import needs_julia

pytestmark = pytest.mark.slow

WATCHDOG_SECONDS = 4


class ServiceManager:
    """Listens as systemd does, and keeps what it hears."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.heard: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)

    def listen(self, seconds: float) -> str:
        """The next message; empty when none comes within *seconds*."""
        self._socket.settimeout(seconds)
        try:
            message = self._socket.recv(65536).decode()
        except TimeoutError:
            return ""
        self.heard.append(message)
        return message

    def wait_for(self, start: str) -> str:
        """The next message that begins with *start*; what comes before it is kept, too."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if (message := self.listen(1.0)).startswith(start):
                return message
        raise AssertionError(f"never heard {start}, but {self.heard}")

    def wait_for_silence(self) -> None:
        """Wait until no ping came for as long as the watchdog waits."""
        deadline = time.monotonic() + PATIENCE
        quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < WATCHDOG_SECONDS:
            assert time.monotonic() < deadline, "the pings go on"
            if self.listen(0.5) == "WATCHDOG=1":
                quiet_since = time.monotonic()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Both kinds of address that systemd gives."""
    return str(tmp_path / "notify") if request.param == "path" else f"@fluxdrop/{tmp_path}"


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ServiceManager]:
    """A service manager with a socket in the file system."""
    made = ServiceManager(str(tmp_path / "notify"))
    yield made
    made.close()


@contextmanager
def managed(manager: ServiceManager, root: Root, **settings: object) -> Iterator[Daemon]:
    """A daemon started by *manager*, with a watchdog."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOTIFY_SOCKET", manager.address)
        patch.setenv("WATCHDOG_USEC", str(WATCHDOG_SECONDS * 1_000_000))
        with started(root, **settings) as daemon:
            yield daemon


def wait_for_log(daemon: Daemon, event: str) -> dict[str, object]:
    """The daemon's last log line with *event*, once there is one."""
    lines = [line for line in daemon.log() if line["event"] == event]
    if not lines:
        daemon.wait_until(lambda: any(line["event"] == event for line in daemon.log()), event)
        lines = [line for line in daemon.log() if line["event"] == event]
    return lines[-1]


def test_order(root: Root, samples: Path, address: str) -> None:
    """READY comes once the engine is warm, with the status behind it, pings while it serves, RELOADING
    with the time and READY around a reload, STOPPING at the end; no child hears of the socket.
    """
    manager = ServiceManager(address)
    with managed(manager, root, engine="onnxruntime") as daemon:
        manager.wait_for("READY=1")
        status = manager.wait_for("STATUS=")
        manager.wait_for("WATCHDOG=1")
        daemon.process.send_signal(signal.SIGHUP)
        reloading = manager.wait_for("RELOADING=1")
        manager.wait_for("READY=1")
        shutil.copyfile(samples / "round_ring_01.png", root.inbox / "ring.png")
        daemon.wait_for_ends(1)
        assert 0 == daemon.stop()
        manager.wait_for("STOPPING=1")
    manager.close()

    kinds = [message.partition("=")[0] for message in manager.heard]
    order = [kind for kind in kinds if kind in ("READY", "RELOADING", "STOPPING")]

    assert ["WATCHDOG_USEC", "READY"] == kinds[:2]
    assert ["READY", "RELOADING", "READY", "STOPPING"] == order
    assert "round-or-angular on onnxruntime" in status
    assert "MONOTONIC_USEC" == reloading.splitlines()[1].partition("=")[0]


@needs_julia
def test_hung_worker(root: Root, samples: Path, manager: ServiceManager) -> None:
    """Pings stop while the Julia worker is stopped with a picture in hand, and come again with it."""
    with managed(manager, root, engine="julia") as daemon:
        manager.wait_for("WATCHDOG=1")
        # The heartbeat is written after the watchdog is fed.
        daemon.wait_until(root.heartbeat.exists, "heartbeat")
        status = heartbeat.read(root.heartbeat)
        assert status is not None
        assert status.engine is not None
        assert status.engine.pid is not None
        os.kill(status.engine.pid, signal.SIGSTOP)
        shutil.copyfile(samples / "round_ring_01.png", root.inbox / "ring.png")
        manager.wait_for_silence()
        told = wait_for_log(daemon, "the watchdog is not fed")
        os.kill(status.engine.pid, signal.SIGCONT)
        manager.wait_for("WATCHDOG=1")
        daemon.wait_for_ends(1)

    assert "worker" == told["reason"]
    assert ["ring.json"] == list(results(root))


@pytest.fixture
def frozen_disk(tmp_path: Path) -> Iterator[tuple[Root, Callable[[str], None]]]:
    """A root on a filesystem of its own, and how to freeze (``-f``) and thaw (``-u``) it."""
    if os.geteuid() != 0 or not shutil.which("fsfreeze") or not shutil.which("mkfs.ext4"):
        pytest.skip("needs root, fsfreeze and mkfs.ext4")
    image, folder = tmp_path / "disk.img", tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(32 * 1024**2)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    folder.mkdir()
    mounted = subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=False)
    if mounted.returncode != 0:
        pytest.skip("no loop device can be mounted here")

    def freeze(how: str) -> None:
        subprocess.run(["fsfreeze", how, str(folder)], check=True)

    root = Root(folder / "root")
    root.create()
    try:
        yield root, freeze
    finally:
        subprocess.run(["fsfreeze", "-u", str(folder)], check=False, stderr=subprocess.DEVNULL)
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_hung_scan_loop(
    frozen_disk: tuple[Root, Callable[[str], None]], samples: Path, manager: ServiceManager
) -> None:
    """Pings stop while the filesystem of the root does not answer, and come again when it does; the
    picture that was being claimed meanwhile comes through.
    """
    root, freeze = frozen_disk
    with managed(manager, root, engine="onnxruntime", settle_seconds=1) as daemon:
        manager.wait_for("WATCHDOG=1")
        shutil.copyfile(samples / "round_ring_01.png", root.inbox / ".ring.part")
        (root.inbox / ".ring.part").rename(root.inbox / "ring.png")
        freeze("-f")
        manager.wait_for_silence()
        freeze("-u")
        manager.wait_for("WATCHDOG=1")
        daemon.wait_for_ends(1)
        assert 0 == daemon.stop()

    assert ["ring.json"] == list(results(root))


def test_reload(root: Root, samples: Path) -> None:
    """SIGHUP changes what can change, names what waits for a restart, and refuses a wrong file whole."""

    def reloaded(daemon: Daemon, text: str, event: str, count: int) -> dict[str, object]:
        (root.path / "fluxdrop.toml").write_text(text)
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_until(
            lambda: sum(line["event"] == event for line in daemon.log()) == count, event
        )
        return wait_for_log(daemon, event)

    model = samples.parent / "daemon/fluxdrop/models/round-or-angular"
    shutil.copytree(model, root.models / "other")
    onnx = 'engine = "onnxruntime"\n'
    (root.path / "fluxdrop.toml").write_text(onnx)
    with serving(root) as daemon:
        first = reloaded(daemon, f"{onnx}batch_size = 7\nscan_seconds = 9\n", "reloaded", 1)
        other = f'{onnx}scan_seconds = 9\nmodel = "other"\nmax_pixels = 100\n'
        second = reloaded(daemon, other, "reloaded", 2)
        unknown = reloaded(daemon, "max_pixel = 9\n", "reload refused", 1)
        absent = reloaded(daemon, 'model = "nowhere"\n', "reload refused", 2)
        shutil.copyfile(samples / "round_ring_01.png", root.inbox / "ring.png")
        daemon.wait_for_ends(1)
        assert 0 == daemon.stop()

    failure = failures(root)["ring.png.error.json"]

    assert (["scan_seconds"], ["batch_size"]) == (first["changed"], first["after_a_restart"])
    assert ["model", "max_pixels"] == second["changed"]
    assert "has the unknown key max_pixel." in str(unknown["reason"])
    assert "nowhere" in str(absent["reason"])
    assert "picture" == failure["error"]["kind"]


def test_names_do_not_speak(manager: ServiceManager) -> None:
    """A newline in a status, as a file's name may have, ends no message; a byte that is no text is none."""
    Notifier(manager.address).status("generating a\nWATCHDOG=1\udcff.txt")

    assert "STATUS=generating a WATCHDOG=1?.txt" == manager.listen(1.0)


@pytest.mark.parametrize(
    ("environ", "patience"),
    [
        ({}, float("inf")),
        ({"NOTIFY_SOCKET": "/run/x"}, float("inf")),
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "4000000"}, 1.0),
        (
            {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"},
            float("inf"),
        ),
    ],
)
def test_environment(environ: dict[str, str], patience: float) -> None:
    """The watchdog counts where it is meant for this process; no child inherits the variables."""
    notifier = Notifier.from_environment(environ)

    assert (patience, {}) == (notifier.max_silence_seconds, environ)


def test_nobody_listens(tmp_path: Path) -> None:
    """A service manager that went away does not end the daemon's work."""
    Notifier(str(tmp_path / "nobody")).stopping()
