"""The command `fluxdrop setup` with the real juliapkg, Julia and Pkg, which download from a server on the loopback.

The packages are small ones under the names of those that fluxdrop asks for. The last test has the real ones, where
FLUXDROP_JULIA_PROJECT has them as folders.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from fluxdrop.provision.find import release
from fluxdrop.provision.juliapkg_setup import NEWEST_WITH_FLUX, OLDEST_WITH_FLUX
from fluxdrop.provision.script import answer_of
from fluxdrop.provision.state import read_install
from fluxdrop.resources import julia_folder
from support.daemons import PATIENCE, SAMPLES, wait_for_end
from support.filesystems import tmpfs
from support.needs import JULIA
from support.package_server import (
    Fault,
    Package,
    PackageServer,
    packages_of,
    serving_packages,
    small_package,
)

WANTED = ("Flux", "JLD2", "BSON")
FLUX = "587475ba-b771-5e3f-ad9e-33799f191a9c"
PACKAGES = [
    small_package("Flux", FLUX, "0.16.99"),
    small_package("JLD2", "033835bb-8acc-5ee8-8aae-3f567f8a3819", "0.6.99"),
    small_package("BSON", "fbb218c0-5317-5bc6-957e-2ee96dd4b1f0", "0.3.99"),
]
REAL = os.environ.get("FLUXDROP_JULIA_PROJECT", "")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        JULIA is None or not OLDEST_WITH_FLUX <= release(JULIA.version) <= NEWEST_WITH_FLUX,
        reason="no Julia of 1.10 to 1.12, which Flux 0.16 needs",
    ),
    pytest.mark.skipif(
        find_spec("juliacall") is not None, reason="juliacall asks for packages of its own"
    ),
]


@dataclass(frozen=True)
class Machine:
    """A user's machine: a home, a Julia on PATH, and the package server of its choice."""

    home: Path
    server: PackageServer

    @property
    def data(self) -> Path:
        """fluxdrop's data folder."""
        return self.home / "data"

    @property
    def environment(self) -> dict[str, str]:
        """The variables of its processes."""
        assert JULIA is not None
        path = self.home / "path"
        path.mkdir(exist_ok=True)
        (path / "julia").write_text(f'#!/bin/sh\nexec "{JULIA.executable}" "$@"\n')
        (path / "julia").chmod(0o755)
        own = ("FLUXDROP_", "JULIA_", "PYTHON_JULIAPKG_")
        return {name: value for name, value in os.environ.items() if not name.startswith(own)} | {
            "HOME": str(self.home),
            "PATH": f"{path}:/usr/bin:/bin",
            "FLUXDROP_DATA_DIR": str(self.data),
            "JULIA_PKG_SERVER": self.server.address,
            "JULIA_PKG_OFFLINE": "false",
            "no_proxy": "127.0.0.1",
        }

    def keep_compiled(self, folder: Path) -> None:
        """Copy *folder* to where this machine's Julia keeps compiled code."""
        kept = self.data / "julia-depot" / "compiled" / folder.parent.name / folder.name
        shutil.copytree(folder, kept, dirs_exist_ok=True)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `fluxdrop` with *arguments*."""
        return subprocess.Popen(
            [sys.executable, "-m", "fluxdrop", *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def setup(self, *flags: str) -> dict[str, Any]:
        """Run `fluxdrop setup` to its end, which is a success; its report."""
        return report_of(self.start("setup", "--json", *flags))


def report_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What a setup with --json prints; it exits with 0, and stderr has at most a line for each step."""
    stdout, stderr = process.communicate()
    assert 0 == process.returncode, stderr
    assert "Traceback" not in stderr
    assert "Stacktrace" not in stderr
    report: dict[str, Any] = json.loads(stdout)
    return report


def loaded_flux(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> str:
    """The version of Flux that a worker loads from what the setup recorded."""
    install = read_install(machine.data)
    assert install is not None
    monkeypatch.delenv("JULIA_DEPOT_PATH", raising=False)
    for name, value in machine.environment.items():
        monkeypatch.setenv(name, value)
    load = json.dumps(str(julia_folder() / "load.jl"))
    script = f"""
        include({load})
        backend = FluxdropWorker.choose_backend("auto")
        println("loaded|", FluxdropWorker.flux_version(backend))
        """
    return answer_of(install, script, "loaded", 300)


def assert_failed_in_one_sentence(report: dict[str, Any], says: str) -> None:
    """The report blames juliapkg's step in one line that says *says*, and another engine is used."""
    failed, *_, used = report["steps"]
    assert ("juliapkg", "failed", "used") == (failed["name"], failed["outcome"], used["outcome"])
    assert says in failed["reason"]
    assert failed["reason"].endswith(".")
    assert "\n" not in failed["reason"]
    assert "julia with plain layers" == report["engine"]


def assert_works(machine: Machine) -> None:
    """A plain setup provides Flux."""
    report = machine.setup()
    assert "julia with Flux" == report["engine"], report["steps"]
    assert [("juliapkg", "used")] == [(step["name"], step["outcome"]) for step in report["steps"]]


@pytest.fixture(scope="module")
def server() -> Iterator[PackageServer]:
    """A server of small packages."""
    with serving_packages(PACKAGES) as running:
        yield running


@pytest.fixture
def machine(server: PackageServer, tmp_path: Path) -> Iterator[Machine]:
    """A machine without anything of fluxdrop's, and a server without faults."""
    server.heal()
    yield Machine(tmp_path, server)
    server.heal()


@pytest.fixture(scope="module")
def compiled(server: PackageServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a depot keeps of the worker's code, so that not every test has to compile it."""
    machine = Machine(tmp_path_factory.mktemp("compiled"), server)
    machine.setup()
    (folder,) = (machine.data / "julia-depot" / "compiled").glob("*/FluxdropWorker")
    return folder


def test_whole_setup(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Setup downloads the registry and Flux, leaves nothing temporary, and a worker loads that Flux."""
    report = machine.setup()

    assert "julia with Flux" == report["engine"], report["steps"]
    assert "0.16.99" == report["julia"]["flux"] == loaded_flux(machine, monkeypatch)
    assert set(machine.server.bodies) <= set(machine.server.asked)
    assert not [*machine.data.rglob(".before-setup*"), *machine.data.glob("julia-depot/tmp")]
    assert not (machine.home / ".julia").exists()


@pytest.mark.parametrize(
    ("where", "fault", "says"),
    [
        ("/registry/", "cut", "could not download"),
        (f"/package/{FLUX}", "cut", "failed to clone"),
        (f"/package/{FLUX}", "wrong", "wrong content"),
        ("/registry/", "gone", "could not download"),
        (f"/package/{FLUX}", "gone", "failed to clone"),
        (f"/package/{FLUX}", "hang", "failed to clone"),
    ],
)
def test_broken_download(
    machine: Machine, compiled: Path, where: str, fault: Fault, says: str
) -> None:
    """A broken download and a network that goes away are one sentence, and the next setup works."""
    machine.keep_compiled(compiled)
    machine.server.break_at(where, fault)
    assert_failed_in_one_sentence(machine.setup(), says)

    machine.server.heal()
    assert_works(machine)


@pytest.mark.parametrize("free", [0, 20, 28])
def test_full_disk(machine: Machine, compiled: Path, free: int) -> None:
    """With *free* KiB left, the sentence says that the disk is full; with space, the next setup works."""
    machine.data.mkdir()
    with tmpfs(machine.data, "64m"):
        machine.keep_compiled(compiled)
        filler = machine.data / "filler"
        space = os.statvfs(machine.data)
        filler.write_bytes(bytes(space.f_bavail * space.f_frsize - free * 1024))
        full = f"There is no space left in {machine.data}."
        assert_failed_in_one_sentence(machine.setup(), full)

        filler.unlink()
        assert_works(machine)


def test_killed(machine: Machine) -> None:
    """A setup that is killed takes Julia with it, wherever it is, and a setup after many of them works."""
    manifest = machine.data / "julia-env" / "Manifest.toml"
    moments: list[tuple[str, Callable[[], object]]] = [
        ("/registry/", lambda: machine.server.wait_for("/registry/")),
        (f"/package/{FLUX}", lambda: machine.server.wait_for(f"/package/{FLUX}")),
        ("", lambda: wait_until(manifest.exists)),
    ]
    for where, moment in moments:
        machine.server.break_at(where or "none", "hang")
        process = machine.start("setup")
        moment()
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.communicate()
        assert -signal.SIGKILL == process.returncode
        assert children
        for child in children:
            wait_for_end(child.pid)
        machine.server.heal()

    assert_works(machine)


def test_second_setup_beside_it(machine: Machine) -> None:
    """A second setup says that it waits, and then has what the first one provided."""
    machine.server.break_at(f"/package/{FLUX}", "hang")
    first = machine.start("setup", "--json")
    machine.server.wait_for(f"/package/{FLUX}")
    second = machine.start("setup")
    assert second.stderr is not None
    assert "Waiting for another setup to end\n" == second.stderr.readline()
    machine.server.heal()

    assert "julia with Flux" == report_of(first)["engine"]
    stdout, _ = second.communicate()
    assert 0 == second.returncode
    assert stdout.startswith("✓ earlier setup: Julia")
    assert "Engine: julia with Flux" in stdout


def test_forced_setup_that_fails_keeps_flux(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the server, a forced setup says so, and workers load the Flux that was there."""
    assert_works(machine)
    manifest = machine.data / "julia-env" / "Manifest.toml"
    before = manifest.read_bytes()
    machine.server.break_at("/registry/", "gone")
    (machine.data / "julia-depot" / "registries" / "General.toml").unlink()

    report = machine.setup("--force")

    assert ["failed", "used"] == [step["outcome"] for step in report["steps"]]
    assert "julia with Flux" == report["engine"]
    assert before == manifest.read_bytes()
    assert "0.16.99" == loaded_flux(machine, monkeypatch)


@pytest.mark.skipif(
    not Path(REAL, "Manifest.toml").is_file() or not REAL,
    reason="FLUXDROP_JULIA_PROJECT names no project with Flux",
)
def test_real_flux(tmp_path: Path) -> None:
    """The real Flux and all that it depends on are downloaded and compiled, and a prediction runs on them."""
    assert JULIA is not None
    stdlib = answer_of(JULIA, 'println("stdlib|", Sys.STDLIB)', "stdlib", 60)
    packages: list[Package] = packages_of(Path(REAL), WANTED, Path(stdlib))
    names = {package.project["name"] for package in packages}
    if not set(WANTED) <= names:
        pytest.skip("FLUXDROP_JULIA_PROJECT does not have Flux, JLD2 and BSON as folders")
    with serving_packages(packages) as server:
        machine = Machine(tmp_path, server)

        report = machine.setup()

        assert "julia with Flux" == report["engine"], report["steps"]
        predicted = machine.start(
            "predict", str(SAMPLES / "round_ring_01.png"), "--engine", "julia", "--json"
        )
        stdout, stderr = predicted.communicate()
        assert 0 == predicted.returncode, stderr
        assert f'"flux": "{report["julia"]["flux"]}"' in stdout


def wait_until(is_so: Callable[[], object]) -> None:
    """Wait for *is_so*."""
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)
