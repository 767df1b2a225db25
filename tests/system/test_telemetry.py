"""Nothing reports to anybody: what commands do to the network and the disk, seen from outside."""

from __future__ import annotations

import ast
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import fluxdrop
from fluxdrop.files.layout import Root
from fluxdrop.provision import data_dir
from support.daemons import SAMPLES, failures, results
from support.needs import needs_generation, needs_julia
from support.traced import Trace, needs_strace, traced

CHECKOUT = Path(__file__).parents[2]
PICTURE = SAMPLES / "round_circle_01.png"
MODEL = Path(fluxdrop.__file__).parent / "models" / "round-or-angular"
PROMPT = "a large red circle on a white background\nSteps: 1\n"


class Place:
    """An account in which nothing is, with an empty home and no variables that other programs set."""

    def __init__(self, folder: Path, root: Root) -> None:
        self.root = root
        self.home, self.temporary, self.elsewhere = (
            folder / name for name in ("home", "temporary", "elsewhere")
        )
        for made in (self.home, self.temporary, self.elsewhere):
            made.mkdir()
        self._log = folder / "strace.log"

    def run(self, *arguments: object, **settings: object) -> Trace:
        """Run a `fluxdrop` command."""
        return self.python("-m", "fluxdrop", *arguments, **settings)

    def python(self, *arguments: object, **settings: object) -> Trace:
        """Run this Python."""
        # No CI=true, which keeps some programs from reporting.
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "FLUXDROP_DATA_DIR": str(data_dir()),
            # What Python itself compiles lies beside its source.
            "PYTHONDONTWRITEBYTECODE": "1",
            **{f"FLUXDROP_{key.upper()}": str(value) for key, value in settings.items()},
        }
        for name in ("CONFIG", "CACHE", "DATA", "STATE"):
            environment[f"XDG_{name}_HOME"] = str(self.home / f".{name.lower()}")
        return traced([sys.executable, *arguments], environment, self.elsewhere, self._log)

    def left(self) -> list[Path]:
        """What lies in the home, the temporary and the working folder."""
        folders = (self.home, self.temporary, self.elsewhere)
        return [path for folder in folders for path in folder.rglob("*")]


@pytest.fixture
def place(tmp_path: Path, root: Root) -> Place:
    """A place of its own for each test."""
    needs_strace()
    return Place(tmp_path, root)


def assert_quiet(place: Place, trace: Trace) -> None:
    """Nobody was addressed, and only the root, the data folder and, meanwhile, the temporary folder were written to;
    semaphores that have no name any more are memory."""
    assert [] == trace.addressed
    outside = trace.outside(place.root.path, data_dir(), place.temporary)
    assert set() == {path for path in outside if not str(path).startswith("/dev/shm/sem.")}
    assert [] == place.left()


@pytest.mark.parametrize(
    "arguments",
    [
        ["setup"],
        ["init", "{root}"],
        ["doctor", "--root", "{root}"],
        ["config", "--root", "{root}"],
        ["submit", PICTURE, "--root", "{root}"],
        ["status", "--root", "{root}"],
        ["jobs", "--root", "{root}"],
        ["gallery", "--root", "{root}"],
        ["preprocess", PICTURE, "-o", "{root}/a.npy"],
        ["predict", PICTURE],
        ["predict", PICTURE, "--engine", "onnxruntime"],
        ["model", "add", MODEL / "model.onnx", "--labels", "a,b", "--root", "{root}"],
        ["model", "check", "round-or-angular", "--root", "{root}"],
        ["model", "list", "--root", "{root}"],
        ["model", "compile", "round-or-angular", "-o", "{root}/a.graph"],
        pytest.param(["generate", PROMPT, "-o", "{root}/a.png"], marks=needs_generation),
        pytest.param(["doctor", "--deep", "--root", "{root}"], marks=needs_generation),
    ],
    ids=lambda arguments: " ".join(word for word in map(str, arguments) if word.isalpha()),
)
def test_commands(place: Place, arguments: Sequence[object]) -> None:
    """A command opens no connection, looks no host up, and leaves nothing outside the root and the data folder."""
    words = [str(word).format(root=place.root.path) for word in arguments]

    trace = place.run(*words)

    # 3 is status of what is not running.
    assert trace.code == (3 if arguments[0] == "status" else 0), trace.output
    assert_quiet(place, trace)


@needs_generation
@pytest.mark.parametrize("engine", [pytest.param("julia", marks=needs_julia), "onnxruntime"])
def test_run(place: Place, engine: str) -> None:
    """So does the daemon, with its worker and its generator."""
    shutil.copyfile(PICTURE, place.root.inbox / "a.png")
    (place.root.inbox / "b.txt").write_text(PROMPT)

    trace = place.run("run", "--once", "--root", place.root.path, engine=engine, settle_seconds=0.1)

    assert trace.code == 0, trace.output
    assert ({"a.json", "b.json"}, {}) == (set(results(place.root)), failures(place.root))
    assert_quiet(place, trace)


def test_traces(place: Place) -> None:
    """What is to be seen would be: a look-up of a host, and a file below the home."""
    script = (
        "import socket, pathlib; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)"
        ".sendto(b'', ('192.0.2.1', 53)); pathlib.Path.home().joinpath('a').touch()"
    )

    trace = place.python("-c", script)

    assert [place.home / "a"] == [*trace.outside(place.root.path)] == place.left()
    assert any("192.0.2.1" in one for one in trace.addressed) or trace.code


def test_one_importer() -> None:
    """onnxruntime is imported in one place alone, which comes after it was told to be quiet."""
    sources = [
        path
        for folder in ("daemon", "tests", "benchmarks", "examples")
        for path in (CHECKOUT / folder).rglob("*.py")
    ]

    importers = {path.relative_to(CHECKOUT) for path in sources if imports(path, "onnxruntime")}

    assert {Path("daemon/fluxdrop/telemetry.py")} == importers


def imports(path: Path, package: str) -> bool:
    """Whether the file *path* imports *package* or a module of it."""
    named: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            named += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            named.append(node.module)
    return any(name.partition(".")[0] == package for name in named)
