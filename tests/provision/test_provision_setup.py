"""`fluxdrop setup`: which Julia it settles on, and what it tells."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from fluxdrop.provision import JuliaInstall, find_julia
from fluxdrop.provision.command import setup
from fluxdrop.provision.provide import provision
from fluxdrop.provision.state import read_install, write_install
from support.daemons import fluxdrop as command_line
from support.provisioning import SYSTEM_PATH, stand_in

pytestmark = [pytest.mark.usefixtures("nothing_set"), pytest.mark.slow]


def test_repeat_is_instant(debian_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once provided, setup and the daemon's search start no process at all."""
    monkeypatch.setattr(subprocess, "Popen", None)

    report = provision(data=debian_data)

    assert "julia with plain layers" == report.engine
    assert find_julia(debian_data) == report.install
    assert ["earlier setup"] == [step.name for step in report.steps]


def test_unreachable_server_falls_through(
    debian_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Julia's server out of reach gives a reason with its address, and Debian's Julia."""
    monkeypatch.setenv("PATH", SYSTEM_PATH)
    if shutil.which("julia"):
        pytest.skip("there is a julia on this machine's PATH")

    report = provision(data=debian_copy)

    assert "julia with plain layers" == report.engine
    assert ["failed", "skipped", "used"] == [step.outcome for step in report.steps]
    assert "cannot be reached" in report.steps[0].reason
    assert report.install == read_install(debian_copy)


def test_no_tools(tmp_path: Path) -> None:
    """Where there is no apt and no Julia, onnxruntime is the engine and the report says why."""
    report = provision(data=tmp_path / "data")

    assert ("onnxruntime", None) == (report.engine, report.install)
    assert ["juliapkg", "PATH", "Debian's archive"] == [step.name for step in report.steps]
    assert (
        "There is no apt-get here, so this is not Debian or a derivative of it."
        == report.steps[2].reason
    )
    assert report.remedies


@pytest.mark.usefixtures("package_server")
def test_upgrade(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A plain install is kept by a plain setup and replaced by a forced one with Flux."""
    stand_in(tmp_path / "path")
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/usr/bin:/bin")
    data = tmp_path / "data"
    data.mkdir()
    plain = JuliaInstall(stand_in(tmp_path / "plain"), None, version="1.5.3", source="Debian")
    write_install(data, plain)

    engines = [provision(data=data).engine, provision(data=data, force=True).engine]

    assert ["julia with plain layers", "julia with Flux"] == engines


def test_flux_is_never_given_up(tmp_path: Path) -> None:
    """A forced setup that reaches nothing keeps the Flux that an earlier one provided."""
    data = tmp_path / "data"
    data.mkdir()
    install = JuliaInstall(stand_in(tmp_path / "a"), tmp_path, {}, "1.11.7", "juliapkg", "0.16.5")
    write_install(data, install)

    report = provision(data=data, force=True)

    assert ["failed", "used"] == [step.outcome for step in report.steps]
    assert install == report.install == read_install(data)


def test_forced_path(tmp_path: Path) -> None:
    """A forced setup that settles on PATH leaves no record that would go before it."""
    on_path = stand_in(tmp_path / "path", "1.6.7", "", "Flux 0.16 needs Julia 1.10")
    data = tmp_path / "data"
    data.mkdir()
    write_install(data, JuliaInstall(stand_in(tmp_path / "old"), None, version="1.5.3"))

    report = provision(data=data, force=True)
    found = find_julia(data)

    assert report.install == found
    assert found is not None
    assert on_path == found.executable
    assert report.steps[-1].reason.endswith("is on PATH; Flux 0.16 needs Julia 1.10.")


@pytest.fixture
def command(tmp_path: Path) -> typer.Typer:
    """The command as the CLI mounts it."""
    app = typer.Typer()
    app.command()(setup)
    return app


def test_command_json(command: typer.Typer) -> None:
    """`--json` prints one JSON document, and onnxruntime alone is a success."""
    result = CliRunner().invoke(command, ["--json"])

    assert (0, "onnxruntime") == (result.exit_code, json.loads(result.stdout)["engine"])


def test_command_in_a_pipe(command: typer.Typer) -> None:
    """In a pipe each step is a line on stderr and the report is on stdout."""
    result = CliRunner().invoke(command, [])

    assert 0 == result.exit_code
    assert ["Asking whether Julia's servers answer"] == result.stderr.splitlines()
    assert "Engine: onnxruntime" in result.stdout.splitlines()


def test_command_override(
    command: typer.Typer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A named Julia is verified and nothing is provided."""
    monkeypatch.setenv("FLUXDROP_JULIA", str(stand_in(tmp_path / "own")))

    result = CliRunner().invoke(command, ["--json"])
    answer = json.loads(result.stdout)

    assert "julia with Flux" == answer["engine"]
    assert ["environment"] == [step["name"] for step in answer["steps"]]
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_command_broken_override(flags: list[str]) -> None:
    """A broken override fails with a message that names the variable."""
    ended = command_line("setup", *flags, julia="/missing/julia")

    assert 2 == ended.returncode
    assert "FLUXDROP_JULIA is set to /missing/julia" in ended.stderr
    assert bool(flags) == ("FLUXDROP_JULIA is set to /missing/julia" in ended.stdout)
