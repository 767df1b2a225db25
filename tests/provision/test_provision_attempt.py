"""An attempt to resolve: what it leaves where it fails, is killed, or succeeds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from fluxdrop.provision import JuliaInstall
from fluxdrop.provision.attempt import attempt
from fluxdrop.provision.provide import provision
from fluxdrop.provision.state import write_install
from support.provisioning import stand_in

WRITES = """
import os, signal, sys
from pathlib import Path
from fluxdrop.provision.attempt import attempt
project, depot = map(Path, sys.argv[1:])
with attempt(project, depot):
    (project / "Project.toml").write_text("")
    (project / "Manifest.toml").write_text("[[de")
    (depot / "packages" / "Flux" / "abc").mkdir(parents=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that was resolved before, except for its Manifest.toml."""
    folder = tmp_path / "project"
    (folder / "pyjuliapkg").mkdir(parents=True)
    (folder / "Project.toml").write_text("[deps]\n")
    (folder / "pyjuliapkg" / "meta.json").write_text("{}")
    return folder


def contents(folder: Path) -> dict[str, str]:
    """The files below *folder*, with their text."""
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def run_killed(project: Path, depot: Path) -> None:
    """Run an attempt that is killed in the middle."""
    killed = subprocess.run(
        [sys.executable, "-c", WRITES, str(project), str(depot)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert -signal.SIGKILL == killed.returncode


def test_failure_is_undone(project: Path, tmp_path: Path) -> None:
    """The project is as before, the registries are gone, and of the packages only complete ones stay."""
    depot, before = tmp_path / "depot", contents(project)

    with suppress(ZeroDivisionError), attempt(project, depot) as temporary:
        (temporary / "half").touch()
        (project / "Project.toml").write_text("")
        (project / "Manifest.toml").write_text("[[de")
        for folder in ("registries", "packages/Flux/abc", "packages/Flux/def/src"):
            (depot / folder).mkdir(parents=True)
        raise ZeroDivisionError

    assert before == contents(project)
    assert ["packages/Flux/def/src"] == [
        os.path.relpath(folder, depot) for folder, below, _ in os.walk(depot) if not below
    ]


def test_kill_is_undone_by_the_next(project: Path, tmp_path: Path) -> None:
    """What a killed attempt wrote is gone before the next one begins."""
    depot, before = tmp_path / "depot", contents(project)
    run_killed(project, depot)

    assert before != contents(project)
    with attempt(project, depot):
        seen = {name: text for name, text in contents(project).items() if name in before}
        assert before == seen
        assert not (project / "Manifest.toml").exists()
        assert not (depot / "packages" / "Flux" / "abc").exists()


@pytest.mark.usefixtures("nothing_set")
def test_setup_undoes_a_killed_one(project: Path, tmp_path: Path) -> None:
    """A plain setup that keeps what an earlier one recorded also undoes a forced one that was killed."""
    data = tmp_path / "data"
    data.mkdir()
    project = project.rename(data / "julia-env")
    before = contents(project)
    julia = stand_in(tmp_path / "julia")
    write_install(data, JuliaInstall(julia, project, {}, "1.11.7", "juliapkg", "0.16.5"))
    run_killed(project, data / "julia-depot")
    assert before != contents(project)

    report = provision(data=data)

    assert ["earlier setup"] == [step.name for step in report.steps]
    assert before == contents(project)


def test_success_stays(project: Path, tmp_path: Path) -> None:
    """What a successful attempt wrote stays, also through the next one, and nothing else does."""
    depot = tmp_path / "depot"

    for text in ("one", "two"):
        with attempt(project, depot) as temporary:
            (temporary / "half").touch()
            (project / "Manifest.toml").write_text(text)

    assert {"Project.toml": "[deps]\n", "Manifest.toml": "two", "pyjuliapkg/meta.json": "{}"} == (
        contents(project)
    )
    assert {} == contents(depot)
