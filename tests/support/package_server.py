"""A server on the loopback that speaks the protocol of Julia's package server, with faults to order.

It has one registry, which stands in for General, and one version of each package. Julia's Pkg asks for
``/registries``, ``/registry/UUID/TREE`` and ``/package/UUID/TREE``, and checks what it gets against the git
tree hash in the path. Real packages can be served too: those that a Manifest.toml has as folders.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, NamedTuple

from support.daemons import PATIENCE

GENERAL = "23338594-aafe-5451-b93e-139f81909106"
"""The UUID of the registry that Julia installs by itself."""

_REGISTERED_STDLIB = ("DelimitedFiles", "Statistics")

Fault = Literal["", "error", "cut", "wrong", "hang", "gone"]
"""What happens to a request: the answer 500; a body that ends in the middle; the bytes of another tree; a body that
stops in the middle, and goes on when the server is healed; this connection and all later ones end without an
answer."""


class File(NamedTuple):
    """A file of a tree."""

    content: bytes
    executable: bool = False


Tree = dict[str, File]
"""Files by their paths."""


@dataclass(frozen=True)
class Package:
    """One version of a package."""

    tree: Tree

    @cached_property
    def project(self) -> dict[str, Any]:
        """What its Project.toml says."""
        return tomllib.loads(self.tree["Project.toml"].content.decode())

    @property
    def uuid(self) -> str:
        """The UUID of the package."""
        return str(self.project["uuid"])

    @property
    def deps(self) -> dict[str, str]:
        """The UUIDs of the packages that it needs, by their names. Those before Julia 1.9 repeat weak ones here."""
        weak = self.project.get("weakdeps", {})
        deps = self.project.get("deps", {})
        return {name: uuid for name, uuid in deps.items() if name not in weak}


def small_package(name: str, uuid: str, version: str, source: str = "") -> Package:
    """A package without dependencies whose module consists of *source*."""
    project = f'name = "{name}"\nuuid = "{uuid}"\nversion = "{version}"\n'
    module = f"module {name}\n{source}\nend\n"
    return Package({"Project.toml": _file(project), f"src/{name}.jl": _file(module)})


def packages_of(project: Path, wanted: tuple[str, ...], stdlib: Path) -> list[Package]:
    """The packages *wanted* and their dependencies, as far as the Manifest.toml of *project* has them as folders.

    What Julia has in *stdlib* but looks up in a registry is among them.
    """
    entries = tomllib.loads((project / "Manifest.toml").read_text())["deps"]
    found: dict[str, Package] = {}
    names = list(wanted)
    while names:
        name = names.pop()
        path = entries[name][0].get("path") if name in entries else None
        folder = project / path if path else stdlib / name if name in _REGISTERED_STDLIB else None
        if folder and name not in found:
            found[name] = Package(tree_of(folder))
            names += found[name].deps
    return list(found.values())


def tree_of(folder: Path) -> Tree:
    """The files below *folder*."""
    return {
        str(path.relative_to(folder)): File(path.read_bytes(), bool(path.stat().st_mode & 0o100))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".git" not in path.parts
    }


def tree_hash(tree: Tree) -> str:
    """The hash that git gives *tree*."""
    return _tree_digest(tree).hex()


def registry_of(packages: list[Package]) -> Tree:
    """The registry that lists *packages*, each in its one version."""
    lines = ['name = "General"', f'uuid = "{GENERAL}"', "[packages]"]
    tree: Tree = {}
    for package in packages:
        project = package.project
        name = project["name"]
        lines.append(f'{package.uuid} = {{ name = "{name}", path = "{name}" }}')
        texts = {
            # Pkg clones from here what the server does not give it.
            "Package": f'name = "{name}"\nuuid = "{package.uuid}"\nrepo = "http://127.0.0.1:9/{name}.jl.git"\n',
            "Versions": f'["{project["version"]}"]\ngit-tree-sha1 = "{tree_hash(package.tree)}"\n',
            # The heading is a range of versions: this one, where no build number may stand.
            "Deps": f'["{project["version"].partition("+")[0]}"]\n'
            + "".join(f'{dep} = "{uuid}"\n' for dep, uuid in package.deps.items()),
        }
        tree |= {f"{name}/{kind}.toml": _file(text) for kind, text in texts.items()}
    return tree | {"Registry.toml": _file("\n".join(lines) + "\n")}


class PackageServer:
    """A running server; `address` is for JULIA_PKG_SERVER."""

    def __init__(self, packages: list[Package]) -> None:
        registry = registry_of(packages)
        path = f"/registry/{GENERAL}/{tree_hash(registry)}"
        self.bodies = {"/registries": path.encode(), path: _tarball(registry)}
        for package in packages:
            path = f"/package/{package.uuid}/{tree_hash(package.tree)}"
            self.bodies[path] = _tarball(package.tree)
        self.asked: list[str] = []
        """The paths of all requests."""
        self.healed = threading.Event()
        """Lets the requests that hang go on."""
        self.address = ""
        self._fault: Fault = ""
        self._where = ""

    def break_at(self, where: str, fault: Fault) -> None:
        """Let requests whose path begins with *where* meet *fault*."""
        self._where, self._fault = where, fault
        self.healed.clear()
        self.asked.clear()

    def heal(self) -> None:
        """Answer every request again."""
        self._where, self._fault = "", ""
        self.healed.set()

    def wait_for(self, where: str) -> None:
        """Wait until a path that begins with *where* was asked for."""
        deadline = time.monotonic() + PATIENCE
        while not any(path.startswith(where) for path in self.asked):
            assert time.monotonic() < deadline, f"nobody asks for {where}, only for {self.asked}"
            time.sleep(0.02)

    def fault_for(self, path: str) -> Fault:
        """What happens to a request for *path*."""
        if not path.startswith(self._where):
            return ""
        if self._fault == "gone":
            self._where = ""
        return self._fault


@contextmanager
def serving_packages(packages: list[Package]) -> Iterator[PackageServer]:
    """A server of *packages*, until the end of the with statement."""
    served = PackageServer(packages)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked.append(self.path)
            with suppress(ConnectionError):
                self.answer(served.bodies.get(self.path), served.fault_for(self.path))

        def answer(self, body: bytes | None, fault: Fault) -> None:
            self.close_connection = True
            if fault == "gone":
                return
            if fault == "error" or body is None:
                self.send_error(500 if fault else 404)
                return
            if fault == "wrong":
                body = _tarball({"README.md": _file("Something else.\n")})
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if fault not in ("cut", "hang"):
                self.wfile.write(body)
                return
            half = len(body) // 2
            self.wfile.write(body[:half])
            self.wfile.flush()
            if fault == "hang" and served.healed.wait(PATIENCE):
                self.wfile.write(body[half:])

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield served
        finally:
            served.healed.set()
            server.shutdown()
            thread.join()


def _file(text: str) -> File:
    return File(text.encode())


def _tarball(tree: Tree) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path, file in tree.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(file.content), 0o755 if file.executable else 0o644
            tar.addfile(entry, io.BytesIO(file.content))
    return gzip.compress(packed.getvalue())


def _tree_digest(tree: Tree) -> bytes:
    folders: dict[str, Tree] = {}
    # Git sorts a folder as if its name ended with a slash.
    entries: dict[str, bytes] = {}
    for path, file in tree.items():
        name, below, rest = path.partition("/")
        if below:
            folders.setdefault(name, {})[rest] = file
        else:
            mode = "100755" if file.executable else "100644"
            entries[name] = f"{mode} {name}\0".encode() + _digest("blob", file.content)
    for name, folder in folders.items():
        entries[f"{name}/"] = f"40000 {name}\0".encode() + _tree_digest(folder)
    return _digest("tree", b"".join(entries[name] for name in sorted(entries)))


def _digest(kind: str, content: bytes) -> bytes:
    # The hash of git's protocol, which protects nothing here.
    return hashlib.sha1(f"{kind} {len(content)}\0".encode() + content).digest()
