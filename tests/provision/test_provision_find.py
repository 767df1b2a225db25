"""Finding the Julia that workers run on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fluxdrop
from fluxdrop.errors import FluxdropError
from fluxdrop.provision import JuliaInstall, data_dir, find_julia, julia_command
from fluxdrop.provision.state import state_file, write_install
from support.provisioning import stand_in


@pytest.fixture(autouse=True)
def data_folder(nothing_set: None, tmp_path: Path) -> None:
    """No Julia from outside the test, and a data folder in which nothing was recorded yet."""
    (tmp_path / "data").mkdir()


def test_no_julia() -> None:
    """Without any Julia the answer is None and not an error."""
    found = find_julia()

    assert None is found


def test_override_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """FLUXDROP_JULIA goes before what setup recorded and before PATH."""
    stand_in(tmp_path / "path")
    recorded = stand_in(tmp_path / "recorded", "1.10.4")
    write_install(data_dir(), JuliaInstall(recorded, None, version="1.10.4", source="juliapkg"))
    named = stand_in(tmp_path / "named", "1.11.7")
    monkeypatch.setenv("FLUXDROP_JULIA", str(named))

    found = find_julia()

    assert JuliaInstall(named, None, version="1.11.7", source="FLUXDROP_JULIA") == found


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        ("not a program", "Exec format error"),
        ("#!/bin/sh\necho hello\n", "it printed 'hello'"),
        ("#!/bin/sh\necho no libjulia.so >&2\nexit 3\n", "it ended with 3: no libjulia.so"),
        ("#!/bin/sh\nprintf '\\377'\n", "it printed no text"),
    ],
)
def test_broken_override(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None, reason: str
) -> None:
    """A FLUXDROP_JULIA that does not run as Julia is an error that names the variable and says why."""
    stand_in(tmp_path / "path")
    named = tmp_path / "named"
    if content is not None:
        named.write_text(content)
        named.chmod(0o755)
    monkeypatch.setenv("FLUXDROP_JULIA", str(named))

    with pytest.raises(FluxdropError, match="FLUXDROP_JULIA is set to") as caught:
        find_julia()

    assert ("julia", True) == (
        caught.value.kind,
        f"as Julia: {reason}" in caught.value.message,
    )


def test_project_override_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """FLUXDROP_JULIA_PROJECT alone changes the project of the Julia that is found anyway."""
    julia = stand_in(tmp_path / "path")
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.setenv("FLUXDROP_JULIA_PROJECT", str(project))

    found = find_julia()

    assert JuliaInstall(julia, project, version="1.11.7", source="PATH") == found


def test_missing_project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A FLUXDROP_JULIA_PROJECT that is no folder is an error that names the variable."""
    stand_in(tmp_path / "path")
    monkeypatch.setenv("FLUXDROP_JULIA_PROJECT", str(tmp_path / "missing"))

    with pytest.raises(FluxdropError, match="FLUXDROP_JULIA_PROJECT is set to"):
        find_julia()


@pytest.mark.parametrize("variable", [True, False])
def test_too_old(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: bool) -> None:
    """A Julia older than 1.5 is refused with its version, named or on PATH."""
    julia = stand_in(tmp_path / "path", "1.4.2")
    if variable:
        monkeypatch.setenv("FLUXDROP_JULIA", str(julia))

    with pytest.raises(FluxdropError, match=r"Julia 1\.4\.2; fluxdrop needs 1\.5"):
        find_julia()


@pytest.mark.parametrize("version", ["1.5.3", "1.12.0-rc1", "1.13.0-DEV.1234"])
def test_versions(tmp_path: Path, version: str) -> None:
    """Releases, release candidates and nightly builds are all understood."""
    stand_in(tmp_path / "path", version)

    found = find_julia()

    assert found is not None
    assert version == found.version


def test_record_starts_no_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What setup recorded comes back whole, and no process is started for it."""
    project = tmp_path / "project"
    project.mkdir()
    install = JuliaInstall(
        stand_in(tmp_path / "recorded"), project, {"A": "b"}, "1.11.7", "juliapkg", "0.16.5"
    )
    write_install(data_dir(), install)
    monkeypatch.setattr(subprocess, "Popen", None)

    found = find_julia()

    assert install == found


@pytest.mark.parametrize("gone", ["executable", "project"])
def test_stale_record(tmp_path: Path, gone: str) -> None:
    """A record of what is no longer on disk is passed over."""
    on_path = stand_in(tmp_path / "path")
    executable, project = stand_in(tmp_path / "recorded"), tmp_path / "project"
    project.mkdir()
    write_install(data_dir(), JuliaInstall(executable, project, version="1.11.7"))
    if gone == "executable":
        executable.unlink()
    else:
        project.rmdir()

    found = find_julia()

    assert found is not None
    assert on_path == found.executable


@pytest.mark.parametrize(
    "content", ["", "[]", "null", '{"state_version": 99}', '{"state_version": 1, "env": 3}']
)
def test_damaged_record(tmp_path: Path, content: str) -> None:
    """A damaged record, or one of another version, is as good as none."""
    state_file(data_dir()).write_text(content)

    found = find_julia()

    assert None is found


def test_data_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """FLUXDROP_DATA_DIR goes before XDG_DATA_HOME, and that before the home folder."""
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("XDG_DATA_HOME", "/xdg")
    seen = [data_dir()]
    monkeypatch.delenv("FLUXDROP_DATA_DIR")
    seen.append(data_dir())
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    seen.append(data_dir())

    expected = ["/xdg/fluxdrop", "/home/someone/.local/share/fluxdrop"]

    assert [tmp_path / "data", *map(Path, expected)] == seen


def test_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker's command leaves out startup.jl, names the project, may use every processor that this
    process may use, and has the whole environment.
    """
    monkeypatch.setenv("KEPT", "yes")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 5})
    install = JuliaInstall(Path("/j/bin/julia"), Path("/p"), {"JULIA_DEPOT_PATH": "/d"})

    command, env = julia_command(install)

    assert ["/j/bin/julia", "--startup-file=no", "--threads=3", "--project=/p"] == command
    assert ("yes", "/d") == (env["KEPT"], env["JULIA_DEPOT_PATH"])


@pytest.mark.parametrize(
    ("version", "chosen", "expected"),
    [("1.5.3", None, "Haswell"), ("1.5.3", "Zen", "Zen"), ("1.10.4", None, None)],
)
@pytest.mark.skipif("avx2" not in Path("/proc/cpuinfo").read_text(), reason="there is no AVX2 here")
def test_old_openblas(
    version: str, chosen: str | None, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An OpenBLAS that may not know the processor is told which instructions it has, unless somebody did."""
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    if chosen:
        monkeypatch.setenv("OPENBLAS_CORETYPE", chosen)

    _, env = julia_command(JuliaInstall(Path("/j/bin/julia"), None, version=version))

    assert expected == env.get("OPENBLAS_CORETYPE")


def test_light_import() -> None:
    """Finding Julia imports nothing that only `fluxdrop setup` needs."""
    heavy = ["juliapkg", "rich", "typer", "urllib.request", "fluxdrop.provision.debian"]
    code = (
        "import sys, json, fluxdrop; before = set(sys.modules); import fluxdrop.provision;"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(fluxdrop.__file__).parents[1])}

    run = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )

    assert [] == [name for name in heavy if name in json.loads(run.stdout)]
