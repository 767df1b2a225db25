"""The units of a cluster's machines: what `service install` writes, and Ray under a real systemd."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from fluxdrop import config
from fluxdrop.cluster.starting import PORTS, TOKEN, VARIABLES
from fluxdrop.config import Settings
from fluxdrop.resources import systemd_folder
from support import systemd_machine
from support.daemons import PATIENCE, fluxdrop
from support.systemd_machine import machine

pytestmark = pytest.mark.slow

UNITS = "etc/systemd/system"
PAGE = systemd_folder().parent / "docs/cluster.md"
needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze on this machine"
)


@needs_analyze
@pytest.mark.parametrize(
    ("role", "names"),
    [
        (["--cluster-head"], ["fluxdrop.service", "fluxdrop-cluster.service"]),
        (["--cluster-host", "station", "--gpu"], ["fluxdrop-cluster.service"]),
    ],
    ids=["head", "host"],
)
def test_installed(tmp_path: Path, role: list[str], names: list[str]) -> None:
    """What is installed is clean to systemd-analyze and little exposed, and all but the token goes when it is
    uninstalled."""
    told = fluxdrop("service", "install", *role, "--destdir", tmp_path, "--json")
    for name in names:
        unit = str(tmp_path / UNITS / name)
        verify = ["systemd-analyze", "verify", "--man=no", unit]
        verified = subprocess.run(verify, capture_output=True, text=True, check=False)
        assert (0, "") == (verified.returncode, verified.stderr)
        security = ["systemd-analyze", "security", "--offline=true", "--threshold=20", unit]
        assert 0 == subprocess.run(security, capture_output=True, check=False).returncode
    removed = fluxdrop("service", "uninstall", "--destdir", tmp_path, "--json")

    token = tmp_path / TOKEN.relative_to("/")
    kept = [token] if "--cluster-head" in role else []
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    written = set(json.loads(told.stdout)["written"])
    assert written == {*json.loads(removed.stdout)["removed"], *map(str, kept)}
    assert kept == files
    assert all(0o600 == path.stat().st_mode & 0o777 for path in kept)


def test_variables_of_cluster_env() -> None:
    """The station's daemon, which gets cluster.env too, starts with each of its variables."""
    assert Settings() == config.load(None, environ=dict.fromkeys(VARIABLES.values(), "1"))


def test_token_stays(tmp_path: Path) -> None:
    """A token is made once: another install keeps it, as the hosts have it."""
    token = tmp_path / TOKEN.relative_to("/")
    install = ("service", "install", "--cluster-head", "--destdir", tmp_path)
    assert 0 == fluxdrop(*install).returncode
    first = token.read_bytes()
    again = fluxdrop(*install)

    assert 64 == len(first.strip())
    assert first == token.read_bytes()
    assert str(token) not in again.stdout


@pytest.mark.parametrize("other", ["--cluster-head", "--root=/srv/a", "--user"])
def test_contradictions(tmp_path: Path, other: str) -> None:
    """A host is no station, serves no root, and is nobody's own service."""
    refused = fluxdrop(
        *("service", "install", "--cluster-host", "station", other, "--destdir", tmp_path)
    )

    assert 2 == refused.returncode
    assert other.partition("=")[0] in refused.stderr
    assert [] == list(tmp_path.iterdir())


def test_ray_under_systemd(tmp_path: Path) -> None:
    """Under a real systemd, with every restriction of the unit, the head starts without a complaint of what it may
    not; it does not start without the token, and says so."""
    pytest.importorskip("ray")
    systemd_machine.needed()
    files = tmp_path / "files"
    (files / "etc").mkdir(parents=True)
    for name in ("passwd", "group"):
        shutil.copy(f"/etc/{name}", files / "etc")
    done = fluxdrop("service", "install", "--cluster-head", "--destdir", files)
    assert 0 == done.returncode, done.stderr
    conf = files / "etc/sysusers.d/fluxdrop.conf"
    subprocess.run(["systemd-sysusers", f"--root={files}", str(conf)], check=True)
    token = files / TOKEN.relative_to("/")
    log = files / "stderr"
    drop_in = files / UNITS / "fluxdrop-cluster.service.d/test.conf"
    drop_in.parent.mkdir(exist_ok=True)
    lines = [
        "[Service]",
        f"Environment=FLUXDROP_CLUSTER_TOKEN={token}",
        "Environment=FLUXDROP_CLUSTER_OBJECT_STORE_BYTES=80000000",
        f"StandardOutput=append:{log}",
        f"StandardError=append:{log}",
        f"BindPaths={files}",
    ]
    drop_in.write_text("\n".join(lines) + "\n")

    with machine(files) as there:

        def wait_for(said: str) -> None:
            deadline = time.monotonic() + PATIENCE
            while said not in (text := log.read_text() if log.exists() else ""):
                assert time.monotonic() < deadline, text
                time.sleep(0.1)

        there.run("ip", "link", "set", "lo", "up")
        there.run("systemctl", "start", "fluxdrop-cluster", check=False)
        wait_for(f"{token} cannot be read")
        create = ["systemd-tmpfiles", f"--root={files}", "--create", "fluxdrop-cluster.conf"]
        subprocess.run(create, check=True)
        wait_for("Ray runtime started")
        there.run("systemctl", "stop", "fluxdrop-cluster")
        left = there.run("systemctl", "show", "fluxdrop-cluster", "--property=TasksCurrent")

    assert "not permitted" not in log.read_text()
    assert left in ("TasksCurrent=0", "TasksCurrent=[not set]")


def test_page(tmp_path: Path) -> None:
    """docs/cluster.md has the ports, the variables, and the very steps that `service install` tells."""
    text = PAGE.read_text()
    shown = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    for role, root in (
        (["--cluster-head"], ["--root", "/srv/fluxdrop"]),
        (["--cluster-host", "station.example"], []),
    ):
        command = ("service", "install", *role, *root)
        told = json.loads(fluxdrop(*command, "--destdir", tmp_path, "--json").stdout)["next"]
        begin = next(place for place, line in enumerate(shown) if " ".join(command[:3]) in line)
        assert told == shown[begin + 1 : begin + 1 + len(told)]
    rows = [line.split("|")[1:4] for line in text.splitlines() if line.startswith("| 25")]
    assert [[str(port.number), port.purpose, port.opened_to] for port in PORTS] == [
        [word.strip() for word in row] for row in rows
    ]
    assert set(VARIABLES.values()) == set(re.findall(r"^\| `(FLUXDROP_\w+)`", text, re.MULTILINE))
