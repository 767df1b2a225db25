"""What provides a Julia in the tests: Debian's real archive where it can be reached, and stand-ins.

No Julia server is needed: a small HTTP server answers in its place and a shell script stands in
for the Julia that juliapkg drives.
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from fluxdrop.errors import FluxdropError
from fluxdrop.provision import debian
from fluxdrop.provision.progress import Silent
from fluxdrop.provision.state import write_install

SYSTEM_PATH = os.environ["PATH"]
STAND_IN = """\
#!/bin/sh
for last; do :; done
case $last in
--version) echo julia version {version} ;;
*libjulia*) printf '/lib/libjulia.so\\0/bin' ;;
*fluxdrop-check*) echo 'fluxdrop-check|{version}|{flux}|{flux_error}' ;;
*Pkg*) {pkg} ;;
esac
"""


def stand_in(
    folder: Path,
    version: str = "1.11.7",
    flux: str = "0.16.5",
    flux_error: str = "",
    pkg: str = "echo resolved",
) -> Path:
    """A script that answers as Julia does what juliapkg and fluxdrop ask of it."""
    folder.mkdir(parents=True, exist_ok=True)
    julia = folder / "julia"
    julia.write_text(STAND_IN.format(version=version, flux=flux, flux_error=flux_error, pkg=pkg))
    julia.chmod(0o755)
    return julia


@pytest.fixture
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
def package_server(nothing_set: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
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
        patch.setenv("FLUXDROP_DATA_DIR", str(data))
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
