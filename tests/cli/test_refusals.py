"""Commands on a root that is read-only, full or forbidden: one sentence that says what to do, and no traceback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import fluxdrop as package
from fluxdrop.files.layout import Root
from support.commands import known, loaded
from support.daemons import PATIENCE, SAMPLES, Daemon, environment, failures, fluxdrop, results
from support.disk_images import fill
from support.filesystems import tmpfs
from support.needs import needs_generation
from support.rights import without_rights

pytestmark = pytest.mark.slow

PICTURE = SAMPLES / "round_circle_01.png"
MODEL = Path(package.__file__).parent / "models" / "round-or-angular" / "model.onnx"

WRITING: dict[str, list[object]] = {
    "submit": [PICTURE],
    "submit --prompt": ["a red circle"],
    "submit --wait": [PICTURE],
    "replay": ["a"],
    "replay --all": [],
    "gallery": [],
    "model use": ["round-or-angular"],
    "model add": [MODEL, "--labels", "a,b"],
    "model compile": ["round-or-angular", "-o", "{root}/a.graph"],
    "preprocess": [PICTURE, "-o", "{root}/a.npy"],
    "export --long": ["-o", "{root}/a.csv"],
}
READING: dict[str, list[object]] = {
    "config": [],
    "jobs": [],
    "export": [],
    "show": ["a"],
    "cancel": ["a"],
    "status": [],
    "doctor": [],
    "predict": [PICTURE],
    "model list": [],
    "model show": [],
}


def mounted(*arguments: object) -> None:
    """Mount something, or skip the test."""
    done = subprocess.run(
        ["mount", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")


def command_on(root: Root, command: str, arguments: list[object]) -> list[str]:
    """The words of *command* with *arguments* on *root*."""
    words = [str(word).format(root=root.path) for word in arguments]
    name, _, option = command.partition(" --")
    options = [f"--{option}"] if option else []
    return [*name.split(), *options, *words, "--root", str(root.path)]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Root]:
    """A root on a filesystem of its own, 32 MB, with a result in it."""
    root = Root(tmp_path / "disk")
    root.path.mkdir()
    with tmpfs(root.path, "32m"):
        root.create()
        shutil.copyfile(PICTURE, root.inbox / "a.png")
        flags = ("run", "--once", "--root", root.path)
        assert 0 == fluxdrop(*flags, engine="onnxruntime", settle_seconds=0.1).returncode
        yield root


def read_only(root: Root) -> None:
    """Nothing of *root* can be written to any more."""
    subprocess.run(["mount", "-o", "remount,ro", root.path], check=True)


def full(root: Root) -> None:
    """There is no room in *root* any more."""
    fill(root)


def assert_refused(ended: subprocess.CompletedProcess[str], root: Root, remedy: str) -> None:
    """It ended by one sentence that names a file of *root*, and one that says what to do."""
    assert 2 == ended.returncode, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"fluxdrop: {root.path}/")
    assert line.endswith(remedy)


@pytest.mark.parametrize("command", WRITING)
@pytest.mark.parametrize(
    ("spoil", "remedy"),
    [
        (read_only, "a disk with errors is made read-only by the system."),
        (full, "Make room there."),
    ],
    ids=["read-only", "full"],
)
def test_writing(served: Root, spoil: Callable[[Root], None], remedy: str, command: str) -> None:
    """What cannot be written names the file, the reason and the remedy, and leaves nothing behind."""
    spoil(served)
    before = set(served.path.rglob("*"))

    ended = fluxdrop(*command_on(served, command, WRITING[command]), engine="onnxruntime")

    assert_refused(ended, served, remedy)
    # The gallery's unfinished pages are made over the next time; what SQLite keeps beside the index holds nothing.
    left = {
        path
        for path in set(served.path.rglob("*")) - before
        if ".gallery" not in path.parts and not path.name.startswith("jobs.sqlite3-")
    }
    assert set() == left


@pytest.mark.parametrize("command", READING)
@pytest.mark.parametrize("spoil", [read_only, full], ids=["read-only", "full"])
def test_reading(served: Root, spoil: Callable[[Root], None], command: str) -> None:
    """What only reads does so there, the index with it."""
    spoil(served)

    ended = fluxdrop(*command_on(served, command, READING[command]), engine="onnxruntime")

    assert "Traceback" not in ended.stderr
    # Of what is not running, of a problem that doctor finds, and of a job that has already ended.
    codes = {"status": 3, "doctor": 1, "cancel": 2}
    assert codes.get(command, 0) == ended.returncode, ended.stderr
    if command == "cancel":
        assert "a has already ended" in ended.stderr


@needs_generation
def test_generate(served: Root) -> None:
    """A picture that cannot be written is told as anything else is, and as JSON where that was asked for."""
    read_only(served)
    words = ["generate", "a red circle\nSteps: 1", "-o", served.path / "a.png", "--json"]

    ended = fluxdrop(*words)

    assert_refused(ended, served, "a disk with errors is made read-only by the system.")
    error = json.loads(ended.stdout)["error"]
    assert ("disk", True) == (error["kind"], "Read-only file system" in error["message"])


def test_init(served: Root) -> None:
    """A root that cannot be written to is not made one."""
    read_only(served)

    assert_refused(
        fluxdrop("init", served.path),
        served,
        "a disk with errors is made read-only by the system.",
    )


def test_model_remove(served: Root) -> None:
    """A model that cannot be removed stays whole."""
    folder = served.models / "mine"
    shutil.copytree(MODEL.parent, folder)
    read_only(served)

    ended = fluxdrop("model", "remove", "mine", "--root", served.path)

    assert_refused(ended, served, "a disk with errors is made read-only by the system.")
    assert {path.name for path in MODEL.parent.iterdir()} == {p.name for p in folder.iterdir()}


def test_all_commands() -> None:
    """Every command that has to do with a root is tried here; a new one has to be."""
    names = {name for name, command in known() if not hasattr(loaded(command), "commands")}
    tried = {name.partition(" --")[0] for name in (*WRITING, *READING)}
    apart = {"run", "generate", "init", "model remove"}
    # They write to no root, or are a check that does not read one.
    without_root = {"setup", "info", "model check", "model export"} | {
        name for name in names if name.startswith("service ")
    }

    assert names == tried | apart | without_root


@pytest.mark.parametrize(
    ("folder", "command"),
    [
        ("inbox", "submit"),
        (".fluxdrop", "status"),
        (".fluxdrop", "gallery"),
        (".fluxdrop", "model use"),
        (".fluxdrop/models", "model add"),
        (".fluxdrop/requests", "replay --all"),
        ("outputs", "gallery"),
    ],
)
def test_forbidden(served: Root, folder: str, command: str) -> None:
    """What this user has no right to is told, with whose right it takes."""
    prefix = without_rights()
    (served.path / folder).chmod(0)
    words = command_on(served, command, (WRITING | READING)[command])

    ended = subprocess.run(
        [*prefix, sys.executable, "-m", "fluxdrop", *words],
        env=environment(engine="onnxruntime"),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert_refused(ended, served, "run the command as a user who has it.")


@contextmanager
def waiting_daemon(root: Root, stderr: Path) -> Iterator[Daemon]:
    """`fluxdrop run` on a *root* that it cannot serve, its log in *stderr*."""
    with stderr.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "fluxdrop", "run", "--root", root.path],
            env=environment(engine="onnxruntime", settle_seconds=0.1),
            stderr=file,
        )
    try:
        yield Daemon(root, process)
    finally:
        process.kill()
        process.wait()


def wait_for_line(daemon: Daemon, stderr: Path, words: str) -> None:
    """Wait until *daemon* has logged *words*."""
    deadline = time.monotonic() + PATIENCE
    while words not in stderr.read_text():
        assert daemon.process.poll() is None, stderr.read_text()
        assert time.monotonic() < deadline, stderr.read_text()
        time.sleep(0.05)


def test_run_waits(tmp_path: Path) -> None:
    """A root that is read-only when the daemon starts is waited for, also while it is not even mounted, when nothing is
    made in its place; it is served as soon as it can be."""
    disk, stderr, root = Root(tmp_path / "disk"), tmp_path / "log", Root(tmp_path / "root")
    disk.create()
    shutil.copyfile(PICTURE, disk.inbox / "a.png")
    root.path.mkdir()
    mounted("--bind", disk.path, root.path)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", root.path], check=True)
        with waiting_daemon(root, stderr) as daemon:
            wait_for_line(daemon, stderr, "Read-only file system")
            subprocess.run(["umount", root.path], check=True)
            wait_for_line(daemon, stderr, "No such file or directory")
            made = list(root.path.iterdir())
            mounted("--bind", disk.path, root.path)
            daemon.wait_for_ends(1)
            assert 0 == daemon.stop()
    finally:
        subprocess.run(["umount", "--lazy", root.path], check=False)

    assert [] == made
    assert ({"a.json"}, {}) == (set(results(disk)), failures(disk))
    # The log's file has what could be written of it; what came before is on stderr.
    assert "done" in [
        json.loads(line)["event"] for line in (disk.logs / "fluxdrop.log").read_text().splitlines()
    ]


def with_defect(
    temporary: Path, setup: str, *arguments: object
) -> subprocess.CompletedProcess[str]:
    """The command with *arguments*, spoiled by *setup*, with a temporary folder of its own."""
    script = f"import fluxdrop.__main__ as entry\n{setup}\nentry.main()\n"
    temporary.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**environment(), "TMPDIR": str(temporary)},
        cwd=temporary,
        capture_output=True,
        text=True,
        check=False,
    )


DEFECT = "def app(): raise LookupError('no such thing')\nentry.app = app"


@pytest.mark.parametrize("given", ["--root {}", "--root={}", "--json --root {}"])
def test_defect_in_a_root(tmp_path: Path, root: Root, given: str) -> None:
    """The traceback of a defect lies in the root that the command works on and nowhere else, and few of them stay."""
    arguments = given.format(root.path).split()
    ended = [with_defect(tmp_path / "tmp", DEFECT, "status", *arguments)]
    kept = list(root.logs.iterdir())
    for number in range(30):
        (root.logs / f"20260101T000000-{number:08x}.traceback").touch()
    ended.append(with_defect(tmp_path / "tmp", DEFECT, "status", *arguments))

    assert [70, 70] == [each.returncode for each in ended]
    assert f" Report it and attach {kept[0]}.\n" in ended[0].stderr
    assert (1, True) == (len(kept), "Traceback" in kept[0].read_text())
    assert (20, []) == (len(list(root.logs.iterdir())), list((tmp_path / "tmp").iterdir()))


@pytest.mark.parametrize("spoil", ["symlink", "file", "gone"])
def test_defect_where_logs_are_none(tmp_path: Path, root: Root, spoil: str) -> None:
    """Where a root takes no traceback it lies in the temporary folder, and a symlink leads it nowhere."""
    root.logs.rmdir()
    (tmp_path / "elsewhere").mkdir()
    if spoil == "symlink":
        root.logs.symlink_to(tmp_path / "elsewhere")
    elif spoil == "file":
        root.logs.touch()
    ended = with_defect(tmp_path / "tmp", DEFECT, "status", "--root", root.path)

    (kept,) = (tmp_path / "tmp").iterdir()
    assert (70, True) == (ended.returncode, f"attach {kept}." in ended.stderr)
    assert [] == list((tmp_path / "elsewhere").iterdir())


def test_defect_of_a_daemon(tmp_path: Path, root: Root) -> None:
    """The traceback of a daemon that a defect ends is in its log alone."""
    setup = (
        "import fluxdrop.service.daemon as daemon\n"
        "def run(self): raise LookupError('no such thing')\n"
        "daemon.Daemon.run = run"
    )
    ended = with_defect(tmp_path / "tmp", setup, "run", "--once", "--root", root.path)

    log = root.logs / "fluxdrop.log"
    assert (70, True) == (ended.returncode, f"attach {log}." in ended.stderr)
    assert [log] == list(root.logs.iterdir())
    assert "LookupError: no such thing" in log.read_text()
    assert [] == list((tmp_path / "tmp").iterdir())


def test_defect(tmp_path: Path) -> None:
    """What nobody expected is told in one sentence, too, and its traceback is in the file that this names."""
    ended = with_defect(tmp_path, DEFECT)

    (kept,) = tmp_path.iterdir()
    assert (70, "") == (ended.returncode, ended.stdout)
    expected = (
        "fluxdrop: This is a defect of fluxdrop, not a mistake of yours: LookupError: no such thing."
        f" Report it and attach {kept}.\n"
    )
    assert expected == ended.stderr
    assert "Traceback" in kept.read_text()


def test_closed_pipe(tmp_path: Path) -> None:
    """A refusal as JSON into a pipe that nobody reads is one sentence on stderr, and no traceback."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "fluxdrop", "show", "nope", "--json", "--root", str(tmp_path)]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)

    assert (2, 1) == (done.returncode, len(done.stderr.splitlines())), done.stderr
