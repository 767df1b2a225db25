"""Providing Julia: the real Debian archive where it can be reached, the real juliapkg throughout.

No Julia server is needed: a small HTTP server answers in its place and a shell script stands in
for the Julia that juliapkg drives.
"""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import typer
from conftest import fluxdrop as command_line
from typer.testing import CliRunner

import fluxdrop
from fluxdrop.errors import FluxdropError
from fluxdrop.provision import JuliaInstall, debian, find_julia, julia_command
from fluxdrop.provision.command import setup
from fluxdrop.provision.juliapkg_setup import provide_flux
from fluxdrop.provision.progress import Silent
from fluxdrop.provision.provide import provision
from fluxdrop.provision.reach import unreachable
from fluxdrop.provision.state import read_install, write_install

SYSTEM_PATH = os.environ["PATH"]
STAND_IN = """\
#!/bin/sh
for last; do :; done
case $last in
--version) echo julia version {version} ;;
*libjulia*) printf '/lib/libjulia.so\\0/bin' ;;
*fluxdrop-check*) echo 'fluxdrop-check|{version}|{flux}|{trouble}' ;;
*Pkg*) {pkg} ;;
esac
"""


def stand_in(
    folder: Path,
    version: str = "1.11.7",
    flux: str = "0.16.5",
    trouble: str = "",
    pkg: str = "echo resolved",
) -> Path:
    """A script that answers as Julia does what juliapkg and fluxdrop ask of it."""
    folder.mkdir(parents=True, exist_ok=True)
    julia = folder / "julia"
    julia.write_text(STAND_IN.format(version=version, flux=flux, trouble=trouble, pkg=pkg))
    julia.chmod(0o755)
    return julia


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No Julia from outside the test, and no Julia server but the test's."""
    for name in (
        "FLUXDROP_JULIA",
        "FLUXDROP_JULIA_PROJECT",
        "PYTHON_JULIAPKG_EXE",
        "PYTHON_JULIAPKG_OFFLINE",
        "PYTHON_JULIAPKG_PROJECT",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setenv("FLUXDROP_DATA_DIR", str(tmp_path / "data"))
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("JULIA_PKG_SERVER", f"http://127.0.0.1:{port}")


@pytest.fixture
def package_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server that answers as Julia's package server does when asked for its registries."""

    class Registries(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/registries" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output clean."""

    with HTTPServer(("127.0.0.1", 0), Registries) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("JULIA_PKG_SERVER", address)
        yield address
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def debian_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that holds Debian's Julia, fetched once a session."""
    data = tmp_path_factory.mktemp("debian")
    before = system_state()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", SYSTEM_PATH)
        patch.setenv("HOME", str(data / "home"))
        if reason := debian.why_not():
            pytest.skip(reason)
        try:
            write_install(data, debian.provide_debian(data, Silent()))
        except FluxdropError as problem:
            if problem.kind in ("unreachable", "disk"):
                pytest.skip(problem.message)
            raise
    assert before == system_state()
    assert not (data / "home").exists()
    return data


def system_state() -> dict[str, object]:
    """What apt and dpkg know and keep, as far as it can be seen from outside."""
    seen: dict[str, object] = {}
    for folder in map(Path, ("/var/lib/apt", "/var/lib/dpkg", "/var/cache/apt")):
        for path in [folder, *folder.glob("*"), *folder.glob("lists/*")]:
            status = path.stat()
            seen[str(path)] = (status.st_mtime_ns, status.st_size)
    return seen


@pytest.fixture
def debian_copy(debian_data: Path, tmp_path: Path) -> Path:
    """The session's Debian Julia behind a data folder that a test may change."""
    data = tmp_path / "data"
    (data / "julia-debian").mkdir(parents=True)
    shutil.copytree(
        debian_data / "julia-debian" / "bullseye",
        data / "julia-debian" / "bullseye",
        symlinks=True,
        copy_function=os.link,
    )
    return data


def test_debian_julia_runs(debian_data: Path) -> None:
    """Julia from Debian's archive computes 1+1 from a private prefix, in an empty environment."""
    install = read_install(debian_data)
    assert install is not None
    command, _ = julia_command(install)

    run = subprocess.run(
        [*command, "-e", "print(1+1, ' ', VERSION)"],
        env=install.env,
        capture_output=True,
        text=True,
        check=True,
    )

    assert "2 1.5.3" == run.stdout


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


def test_leftovers_are_not_taken(debian_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prefix that a killed setup left half unpacked is never found, and is cleared away."""
    monkeypatch.setenv("PATH", SYSTEM_PATH)
    half = debian_copy / "julia-debian" / ".staging-killed"
    stand_in(half / "prefix" / "bin")

    install = debian.provide_debian(debian_copy, Silent())

    assert debian_copy / "julia-debian" / "bullseye" / "bin" / "julia" == install.executable
    assert not half.exists()


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend to be Debian; whatever would call its tools is replaced by the test."""
    monkeypatch.setattr(debian, "why_not", lambda: None)


@pytest.mark.usefixtures("tools")
def test_broken_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A prefix whose Julia does not run is not put in place, and nothing of it is left."""

    def fill(staging: Path, progress: object) -> None:
        stand_in(staging / "prefix" / "bin").write_text("#!/bin/sh\necho ERROR: no BLAS >&2\n")

    monkeypatch.setattr(debian, "_fill", fill)

    with pytest.raises(FluxdropError, match="ERROR: no BLAS"):
        debian.provide_debian(tmp_path, Silent())

    assert [] == list((tmp_path / "julia-debian").iterdir())


@pytest.mark.usefixtures("tools")
def test_damaged_prefix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A prefix in place that no longer runs is fetched anew."""
    stand_in(tmp_path / "julia-debian" / "bullseye" / "bin").write_text("#!/bin/sh\nexit 1\n")
    monkeypatch.setattr(
        debian, "_fill", lambda staging, progress: stand_in(staging / "prefix" / "bin", "1.5.3")
    )

    install = debian.provide_debian(tmp_path, Silent())

    assert "1.5.3" == install.version


@pytest.fixture
def apt_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A sources.list that apt reads in place of the system's; nothing is fetched for it yet."""
    monkeypatch.setenv("PATH", SYSTEM_PATH)
    if reason := debian.why_not():
        pytest.skip(reason)
    sources = tmp_path / "sources.list"
    (tmp_path / "lists" / "partial").mkdir(parents=True)
    conf = tmp_path / "apt.conf"
    conf.write_text(
        f'Dir::Etc::sourcelist "{sources}";\nDir::Etc::sourceparts "/dev/null";\n'
        f'Dir::State::lists "{tmp_path / "lists"}";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(conf))
    return sources


def runs(pid: int) -> bool:
    """Whether a process runs; one that is dead and waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return state.rpartition(") ")[2][0] != "Z"


def test_configured_mirror(apt_sources: Path) -> None:
    """The mirror that apt is set up with is asked first, Debian's security archive never."""
    apt_sources.write_text(
        "deb http://security.example/debian-security bookworm-security main\n"
        "deb http://mirror.example/pub/debian bookworm main\n"
    )

    assert ["http://mirror.example/pub/debian", debian.OLD_RELEASES] == debian.mirrors()


def test_no_debian_mirror(apt_sources: Path) -> None:
    """Debian's own address is asked where apt knows of no Debian mirror, as on Ubuntu."""
    apt_sources.write_text("deb http://archive.example/ubuntu noble main\n")

    assert [debian.ARCHIVE, debian.OLD_RELEASES] == debian.mirrors()


def test_unsigned_archive(
    apt_sources: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An archive without Debian's signature is refused before anything of it is unpacked."""
    suite = tmp_path / "debian" / "dists" / "bullseye"
    architecture = subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()
    packages = suite / "main" / f"binary-{architecture}" / "Packages"
    packages.parent.mkdir(parents=True)
    packages.touch()
    empty = hashlib.sha256(b"").hexdigest()
    (suite / "Release").write_text(
        f"Suite: bullseye\nCodename: bullseye\nComponents: main\nArchitectures: {architecture}\n"
        "Date: Sat, 01 Jan 2022 00:00:00 UTC\n"
        f"SHA256:\n {empty} 0 {packages.relative_to(suite)}\n"
    )
    apt_sources.write_text(f"deb file:{tmp_path}/debian bullseye main\n")
    monkeypatch.setattr(debian, "OLD_RELEASES", f"file:{tmp_path}/debian")

    with pytest.raises(FluxdropError, match="not signed"):
        debian.provide_debian(tmp_path / "data", Silent())

    assert [] == list((tmp_path / "data" / "julia-debian").iterdir())


def test_no_tools(tmp_path: Path) -> None:
    """Where there is no apt and no Julia, onnxruntime is the engine and the report says why."""
    report = provision(data=tmp_path / "data")

    assert ("onnxruntime", None) == (report.engine, report.install)
    assert ["juliapkg", "PATH", "Debian's archive"] == [step.name for step in report.steps]
    assert "There is no apt-get here, so this is not Debian or its kin." == report.steps[2].reason
    assert report.remedies


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

    patience = time.monotonic() + 10
    while runs(int(pid.read_text())) and time.monotonic() < patience:
        time.sleep(0.01)

    assert not runs(int(pid.read_text()))


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
