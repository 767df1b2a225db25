"""A backup made and restored as docs/operations.md says: all is there again, and goes on."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

import fluxdrop as package
from fluxdrop.files.layout import Root
from support.daemons import SAMPLES, fluxdrop, results, serving
from support.pages import DOCS

MODEL = Path(package.__file__).parent / "models" / "round-or-angular" / "model.onnx"
DOCUMENTED_ROOT = "/srv/fluxdrop"


def documented() -> list[list[str]]:
    """The commands of the section on backups, in order: at any time, while stopped, the restoring ones."""
    page = (DOCS / "operations.md").read_text()
    section = page.partition("## Backup and restore\n")[2].partition("\n## ")[0]
    return [shlex.split(line) for line in re.findall(r"(?m)^    (.*)$", section)]


AT_ANY_TIME, STOPPED, *RESTORE = documented()


def run(command: list[str], root: Root, folder: Path) -> None:
    """Run a documented *command* in *folder*, on *root*."""
    words = [word.replace(DOCUMENTED_ROOT, str(root.path)) for word in command]
    if words[0] == "fluxdrop":
        ended = fluxdrop(*words[1:], engine="onnxruntime")
    else:
        ended = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert 0 == ended.returncode, ended.stdout + ended.stderr


def restored(root: Root, folder: Path) -> Root:
    """What the documented commands make of the backup in *folder*, when *root* is gone."""
    shutil.rmtree(root.path)
    found = Root(folder / "restored")
    found.path.mkdir()
    for command in RESTORE:
        run(command, found, folder)
    return found


def prepare(root: Root) -> None:
    """Have *root* hold a result, a failure, settings, and an added model in use."""
    (root.path / "fluxdrop.toml").write_text("batch_size = 7\nincomplete_seconds = 0.3\n")
    for command in (
        ["model", "add", MODEL, "--name", "mine", "--labels", "up,down", "--root", root.path],
        ["model", "use", "mine", "--root", root.path],
    ):
        ended = fluxdrop(*command, engine="onnxruntime")
        assert 0 == ended.returncode, ended.stderr
    (root.inbox / "cats").mkdir()
    shutil.copyfile(SAMPLES / "round_circle_01.png", root.inbox / "cats" / "a.png")
    (root.inbox / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n")


def listed(root: Root, *flags: object) -> dict[str, str]:
    """The state of each job that `jobs` lists, by its source."""
    ended = fluxdrop("jobs", "--root", root.path, "--json", *flags)
    assert 0 == ended.returncode, ended.stderr
    return {row["source"]: row["state"] for row in json.loads(ended.stdout)}


def assert_goes_on(root: Root) -> None:
    """Old results are in the index and the gallery, their replay is verified, and a new picture is judged by the model
    that was added and in use, by the settings that were made."""
    with serving(root, engine="onnxruntime", settle_seconds=0.1) as daemon:
        assert {"cats/a.png": "done", "b.png": "failed"} == listed(root)
        replay = fluxdrop("replay", "cats/a", "--verify", "--root", root.path)
        assert 0 == replay.returncode, replay.stdout + replay.stderr
        shutil.copyfile(SAMPLES / "round_circle_01.png", root.inbox / "c.png")
        daemon.wait_until(lambda: "c.json" in results(root), "c.json")
        assert 0 == daemon.stop()
    assert "mine" == results(root)["c.json"]["model"]["bundle"]
    gallery = json.loads(fluxdrop("gallery", "--root", root.path, "--json").stdout)
    assert 4 == gallery["results"]
    settings = json.loads(fluxdrop("config", "--root", root.path, "--json").stdout)
    assert 7 == settings["batch_size"]["value"]
    assert root.model_in_use.read_text() == "mine\n"


def test_at_any_time(root: Root, tmp_path: Path) -> None:
    """A backup that was made while the daemon runs has all that is needed, the added model included, and nothing of the
    moment."""
    prepare(root)
    with serving(root, engine="onnxruntime", settle_seconds=0.1) as daemon:
        daemon.wait_for_ends(2)
        (root.inbox / ".unfinished.part").write_bytes(b"x")
        run(AT_ANY_TIME, root, tmp_path)
        assert 0 == daemon.stop()

    found = restored(root, tmp_path)

    assert [] == list(found.inbox.rglob("*.p*"))
    assert {"model", "models"} == {path.name for path in found.state.iterdir()}
    assert (found.outputs / "cats" / "a.png").samefile(found.generated / "cats" / "a.png")
    assert_goes_on(found)


@pytest.mark.parametrize("copy", ["tar", "cp"])
def test_stopped(root: Root, tmp_path: Path, copy: str) -> None:
    """A backup of all, made while nothing runs, has what waits, too."""
    prepare(root)
    flags = ("run", "--once", "--root", root.path)
    fluxdrop(*flags, engine="onnxruntime", settle_seconds=0.1)
    (root.inbox / "later.txt").write_text("a red circle")
    if copy == "tar":
        run(STOPPED, root, tmp_path)
        found = restored(root, tmp_path)
    else:
        found = Root(tmp_path / "restored")
        subprocess.run(["cp", "--archive", root.path, found.path], check=True)

    assert "a red circle" == (found.inbox / "later.txt").read_text()
    (found.inbox / "later.txt").unlink()
    assert_goes_on(found)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("command", [AT_ANY_TIME, STOPPED], ids=["at any time", "stopped"])
def test_owners(root: Root, tmp_path: Path, command: list[str]) -> None:
    """Root restores every file and folder, the root itself among them, with its owner and mode."""
    prepare(root)
    fluxdrop("run", "--once", "--root", root.path, engine="onnxruntime", settle_seconds=0.1)
    for path in (root.path, *root.path.rglob("*")):
        os.chown(path, 12345, 12346)
    for path in (root.path, root.outputs, root.state):
        path.chmod(0o2770)
    before = kept(root)
    run(command, root, tmp_path)
    shutil.rmtree(root.path)
    root.path.mkdir()

    run(RESTORE[0], root, tmp_path)

    after = kept(root)
    assert {".", ".fluxdrop", ".fluxdrop/model", "outputs", "inbox"} <= set(after)
    assert {name: before[name] for name in after} == after


def kept(root: Root) -> dict[str, tuple[int, int, int]]:
    """Owner, group and mode of all that is in *root*."""
    return {
        os.path.relpath(path, root.path): (status.st_uid, status.st_gid, status.st_mode)
        for path in (root.path, *root.path.rglob("*"))
        for status in (path.lstat(),)
    }
