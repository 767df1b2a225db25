"""The systemd units: what they are, how they are installed, and the daemon at work under a real systemd."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fluxdrop.files.layout import Root
from fluxdrop.resources import systemd_folder
from support import systemd_machine
from support.daemons import PATIENCE, ends, every_file, failures, fluxdrop, results
from support.needs import needs_julia
from support.systemd_machine import Machine, machine

needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze on this machine"
)
UNITS = "etc/systemd/system"
# Filesystems that keep nothing.
VOLATILE = {"tmpfs", "devtmpfs", "devpts", "proc", "sysfs", "cgroup2", "mqueue", "hugetlbfs"}


def exposure(folder: Path, name: str) -> float:
    """What systemd-analyze says of how exposed the unit is, 0 to 10."""
    said = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(folder / name)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = re.search(r"Overall exposure level for .*: ([\d.]+) ", said)
    assert found is not None, said
    return float(found[1])


@needs_analyze
@pytest.mark.parametrize("name", ["fluxdrop.service", "fluxdrop@.service"])
@pytest.mark.parametrize(("gpu", "limit"), [(False, 1.0), (True, 1.5)], ids=["cpu", "gpu"])
def test_exposure(tmp_path: Path, name: str, gpu: bool, limit: float) -> None:
    """The installed units are clean to systemd-analyze, and little exposed, also with the GPU drop-in."""
    flags = ["--gpu"] if gpu else []
    assert 0 == fluxdrop("service", "install", "--destdir", tmp_path, *flags).returncode
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / UNITS / name)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (0, "") == (verified.returncode, verified.stderr)
    assert exposure(tmp_path / UNITS, name) <= limit


def test_template_is_the_service() -> None:
    """fluxdrop@.service is fluxdrop.service for another root, with every other line the same."""

    def lines(name: str) -> list[str]:
        text = (systemd_folder() / name).read_text()
        return [line for line in text.splitlines() if not line.startswith("#")]

    expected = [
        line.replace("/srv/fluxdrop", "%f").replace("ReadWritePaths=%f", "BindPaths=%f")
        + (" (%f)" if line.startswith("Description=") else "")
        for line in lines("fluxdrop.service")
    ]

    assert expected == lines("fluxdrop@.service")


def test_install_keeps_changes(tmp_path: Path) -> None:
    """A unit that was changed by hand is neither overwritten nor removed without --force; the rest
    is not touched either, and an untouched one is both.
    """
    there = ("--destdir", tmp_path)
    unit = tmp_path / UNITS / "fluxdrop.service"

    def install(root: str, *flags: str) -> int:
        return fluxdrop("service", "install", *there, "--root", root, *flags).returncode

    assert [0, 0] == [install("/srv/one"), install("/srv/two")]
    changed = unit.read_text() + "# mine\n"
    unit.write_text(changed)
    template = (tmp_path / UNITS / "fluxdrop@.service").read_text()
    refused = fluxdrop("service", "install", *there, "--root", "/srv/three")
    removed = fluxdrop("service", "uninstall", *there)

    assert (2, 2) == (refused.returncode, removed.returncode)
    assert f"{unit} was not written by" in refused.stderr
    assert changed == unit.read_text()
    assert template == (tmp_path / UNITS / "fluxdrop@.service").read_text()
    assert 0 == install("/srv/three", "--force", "--gpu")
    assert "FLUXDROP_ROOT=/srv/three\n" in unit.read_text()
    uninstalled = fluxdrop("service", "uninstall", *there)
    assert (0, {"Removed"}) == (
        uninstalled.returncode,
        {line.split()[0] for line in uninstalled.stdout.splitlines()},
    )
    assert [] == [path for path in tmp_path.rglob("*") if path.is_file()]


def test_show_is_what_install_writes(tmp_path: Path) -> None:
    """`service show` prints the very texts that `install` writes, and writes nothing."""
    root = tmp_path / "ROOT with 100% of: spaces"
    shown = json.loads(fluxdrop("service", "show", "--root", root, "--json").stdout)
    assert [] == list(tmp_path.iterdir())
    fluxdrop("service", "install", "--root", root, "--destdir", tmp_path)
    written = {
        f"/{path.relative_to(tmp_path)}": path.read_text().partition("\n")[2]
        for path in tmp_path.rglob("*")
        if path.is_file()
    }

    assert shown == written


@needs_analyze
def test_user_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --user the unit goes where the user's own manager looks, asks for no other account, and is
    clean to systemd-analyze."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    done = fluxdrop("service", "install", "--user", "--root", tmp_path / "root")
    unit = tmp_path / "config/systemd/user/fluxdrop.service"
    verified = subprocess.run(
        ["systemd-analyze", "--user", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (0, "") == (verified.returncode, verified.stderr)
    assert "systemctl --user enable --now fluxdrop" in done.stdout
    assert "User=" not in unit.read_text()
    assert "WantedBy=default.target" in unit.read_text()


@pytest.fixture
def station(tmp_path: Path) -> Iterator[tuple[Machine, Root]]:
    """A machine on which fluxdrop was installed as docs/operations.md says, with its account and root."""
    systemd_machine.needed()
    files = tmp_path / "files"
    (files / "etc").mkdir(parents=True)
    for name in ("passwd", "group"):
        shutil.copy(f"/etc/{name}", files / "etc")
    root = Root(tmp_path / "root")
    done = fluxdrop("service", "install", "--root", root.path, "--destdir", files)
    assert 0 == done.returncode, done.stderr
    for tool, name in (
        (["systemd-sysusers"], "sysusers.d/fluxdrop.conf"),
        (["systemd-tmpfiles", "--create"], "tmpfiles.d/fluxdrop.conf"),
    ):
        text = (files / "etc" / name).read_text().replace(str(root.path), "/root-of-the-test")
        (files / "etc" / name).write_text(text)
        subprocess.run([*tool, f"--root={files}", str(files / "etc" / name)], check=True)
    (files / "root-of-the-test").rename(root.path)
    drop_in = files / UNITS / "fluxdrop.service.d/test.conf"
    drop_in.parent.mkdir()
    python_path = os.environ.get("PYTHONPATH", "")
    drop_in.write_text(
        f"[Service]\nEnvironment=PYTHONPATH={python_path}\nStandardError=append:{files}/stderr\n"
    )
    with machine(files) as started:
        yield started, root


def wait_until(is_so: Callable[[], object], there: Machine) -> None:
    """Wait until *is_so* gives something true; the log is shown when it never does."""
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline, log(there)
        time.sleep(0.1)


def start(there: Machine) -> None:
    """Start the service, which waits for READY."""
    there.run("systemctl", "start", "fluxdrop", check=False)
    active = there.property("fluxdrop", "ActiveState")
    assert active == "active", log(there)


@needs_julia
def test_under_systemd(station: tuple[Machine, Root], samples: Path) -> None:
    """Under a real systemd, with every restriction of the unit, the daemon makes a prompt's picture with
    diffusers and runs both pictures through Julia, and nothing of them complains of what it may not;
    a stop in the middle of it leaves nothing half-done, and the group can read all files, and leave requests.
    """
    pytest.importorskip("diffusers")
    there, root = station
    start(there)
    pid = there.property("fluxdrop", "MainPID")
    limits = there.run("cat", f"/proc/{pid}/status")
    mounts = there.run("cat", f"/proc/{pid}/mountinfo")
    wait_until(lambda: there.property("fluxdrop", "StatusText"), there)
    status = there.property("fluxdrop", "StatusText")
    subprocess.run(["cp", samples / "angular_star_01.png", root.inbox / "star.png"], check=True)
    (root.inbox / "circle.txt").write_text("a circle\nSteps: 20, Seed: 1, Size: 64x64\n")
    wait_until(lambda: ends(root) and "fluxdrop.generator" in log(there), there)
    there.run("systemctl", "stop", "fluxdrop")

    writable = [
        line.split()[4]
        for line in mounts.splitlines()
        if "rw" in line.split()[5].split(",") and line.split(" - ")[1].split()[0] not in VOLATILE
    ]
    claimed = list(root.work.iterdir())

    assert "success" == there.property("fluxdrop", "Result")
    assert ["star.json"] == list(results(root))
    assert not any("circle" in name for name in every_file(root))
    assert 1 == len(claimed)
    assert "round-or-angular on julia" in status
    for line in ("NoNewPrivs:\t1", "Seccomp:\t2", "CapBnd:\t0000000000000000"):
        assert line in limits
    assert {str(root.path)} == set(writable) - {"/tmp", "/var/tmp"}

    start(there)
    there.run("systemctl", "reload", "fluxdrop")
    wait_until(lambda: len(ends(root)) == 2, there)
    wait_until(lambda: there.property("fluxdrop", "ActiveState") == "active", there)
    there.run("systemctl", "stop", "fluxdrop")
    made = [root.path / name for name in every_file(root)]

    assert {} == failures(root)
    assert {"julia"} == {record["model"]["engine"] for record in results(root).values()}
    assert '"reloaded"' in log(there)
    assert "not permitted" not in (root.logs / "fluxdrop.log").read_text() + log(there)
    assert {"fluxdrop"} == {grp(there, path) for path in made}
    assert {0o640} == {path.stat().st_mode & 0o777 for path in made}
    assert [0o2750, 0o2770, 0o2750, 0o3730] == [
        path.stat().st_mode & 0o7777
        for path in (root.path, root.inbox, root.outputs, root.requests)
    ]


def log(there: Machine) -> str:
    """What the daemon wrote to its stderr."""
    return (there.files / "stderr").read_text()


def grp(there: Machine, path: Path) -> str:
    """The group of the file at *path*, by its name in the machine."""
    return there.run("stat", "--format=%G", str(path))


def test_commands_of_the_docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every `fluxdrop` command that docs/operations.md shows works, with its paths below a folder of the
    test; the systemctl ones are what `service install` tells to do, or are for units that it wrote.
    """
    monkeypatch.setenv("FLUXDROP_ROOT", str(tmp_path))
    text = (systemd_folder().parent / "docs/operations.md").read_text()
    shown = {line.strip() for line in text.splitlines() if line.startswith("    ")}
    root = Root(tmp_path / "srv/fluxdrop")
    root.create()
    commands = [line.split()[1:] for line in sorted(shown) if line.startswith("fluxdrop ")]
    told = json.loads(fluxdrop("service", "install", "--destdir", tmp_path, "--json").stdout)[
        "next"
    ]

    for command in commands:
        if command[0] == "setup":
            continue
        placed = [word.replace("/srv/", f"{tmp_path}/srv/") for word in command]
        flags = ["--destdir", tmp_path] if "install" in command else []
        done = fluxdrop(*placed, *flags)
        assert 0 == done.returncode, (command, done.stderr)
    assert set(told) <= shown
    assert {"config", "doctor", "service", "setup"} == {command[0] for command in commands}
