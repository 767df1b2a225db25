"""Julia and Flux from the real juliapkg, with a stand-in for Julia and its server."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import fluxdrop
from fluxdrop.errors import FluxdropError
from fluxdrop.provision import JuliaInstall, find_julia
from fluxdrop.provision.juliapkg_setup import provide_flux
from fluxdrop.provision.progress import Silent
from fluxdrop.provision.provide import provision
from fluxdrop.provision.reach import unreachable
from support.daemons import wait_for_end
from support.provisioning import stand_in

pytestmark = [pytest.mark.usefixtures("nothing_set"), pytest.mark.slow]


def test_requirements() -> None:
    """juliapkg finds our juliapkg.json, understands its bounds, and asks for Flux 0.16."""
    code = (
        "import sys, json; sys.path[:0] = sys.argv[1:];"
        "from juliapkg.deps import find_requirements; from juliapkg.compat import Version;"
        "compat, packages = find_requirements();"
        "flux = [p for p in packages if p.name == 'Flux'][0];"
        "fits = [v for v in sys.stdin.read().split() if Version.parse(v) in compat];"
        "print(json.dumps([flux.uuid, flux.version, fits]))"
    )

    run = subprocess.run(
        [sys.executable, "-P", "-c", code, str(Path(fluxdrop.__file__).parents[1])],
        input="1.5.3 1.9.4 1.10.11 1.11.7 1.13.0",
        capture_output=True,
        text=True,
        check=True,
    )

    uuid = "587475ba-b771-5e3f-ad9e-33799f191a9c"
    found = json.loads(run.stdout.splitlines()[-1])

    assert [uuid, "^0.16", ["1.10.11", "1.11.7"]] == found


@pytest.mark.usefixtures("package_server")
def test_juliapkg_provides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the server answers, the real juliapkg resolves Flux into our project, once."""
    julia = stand_in(tmp_path / "path")
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/usr/bin:/bin")
    data, project = tmp_path / "data", tmp_path / "data" / "julia-env"

    report = provision(data=data)
    monkeypatch.setattr(subprocess, "Popen", None)
    again = provision(data=data)

    expected = JuliaInstall(julia, project, {}, "1.11.7", "juliapkg", "0.16.5")
    assert ("julia with Flux", expected) == (report.engine, report.install)
    assert expected == again.install == find_julia(data)
    assert 'Flux = "587475ba-' in (project / "Project.toml").read_text()


@pytest.mark.usefixtures("package_server")
def test_depot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Packages are kept in the data folder, where a service finds them, and not in the user's ~/.julia."""
    stand_in(tmp_path / "path", pkg=f"echo $JULIA_DEPOT_PATH > {tmp_path / 'depots'}")
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/usr/bin:/bin")
    monkeypatch.delenv("JULIA_DEPOT_PATH", raising=False)

    provision(data=tmp_path / "data")

    kept, *_ = (tmp_path / "depots").read_text().split(":")
    assert str(tmp_path / "data" / "julia-depot") == kept


@pytest.mark.usefixtures("package_server")
def test_resolver_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What Julia's package manager complains of is the reason in the report."""
    stand_in(tmp_path / "path", pkg="echo 'ERROR: Unsatisfiable requirements' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/usr/bin:/bin")
    data = tmp_path / "data"
    data.mkdir()

    with pytest.raises(FluxdropError, match="ERROR: Unsatisfiable requirements"):
        provide_flux(data, Silent())


@pytest.mark.usefixtures("package_server")
def test_resolver_hangs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A resolver that never ends is ended at the limit, with the Julia that it started."""
    pid = tmp_path / "pid"
    stand_in(tmp_path / "path", pkg=f"echo $$ > {pid}; exec sleep 600")
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/usr/bin:/bin")
    data = tmp_path / "data"
    data.mkdir()

    with pytest.raises(FluxdropError, match="was not done after 5 s"):
        provide_flux(data, Silent(), limit=5)

    wait_for_end(int(pid.read_text()))


def test_juliapkg_with_debian_julia(debian_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a real Julia says to juliapkg's questions is the reason, not juliapkg's traceback.

    Debian's lacks the name libjulia.so, which juliapkg asks for.
    """
    julia = debian_copy / "julia-debian" / "bullseye" / "bin" / "julia"
    monkeypatch.setenv("PYTHON_JULIAPKG_EXE", str(julia))
    monkeypatch.setenv("PYTHON_JULIAPKG_OFFLINE", "yes")

    with pytest.raises(FluxdropError, match="ERROR: could not load library"):
        provide_flux(debian_copy, Silent())


def test_silent_server() -> None:
    """A server that takes the connection and never answers is given up."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"

        failure = unreachable([address], seconds=0.2)

    assert failure is not None
    assert address in failure
