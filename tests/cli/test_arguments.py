"""What a person may type, or a script make of an empty variable, by mistake."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fluxdrop.files.layout import Root
from support.daemons import fluxdrop

ODD = os.fsdecode(b"a\xffb")
LARGE = "99999999999999999999"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["show", ODD], "JOB is not UTF-8."),
        (["replay", ODD], "JOB is not UTF-8."),
        (["cancel", ODD], "JOB is not UTF-8."),
        (["jobs", "--name", ODD], "--name is not UTF-8."),
        (["submit", "--prompt", ODD], "--prompt is not UTF-8."),
        (["model", "use", ODD], "NAME is not UTF-8."),
        (["jobs", "--limit", LARGE], f"{LARGE} is not from 0 to 1000000000."),
        (["jobs", "--limit", "-1"], "-1 is not from 0 to 1000000000."),
        (["replay", "--all", "--verify", "--tolerance", "nan"], "nan is not from 0 to 1."),
        (["jobs", "--name", "a\nb", "--label", ODD], "--label is not UTF-8."),
    ],
)
def test_texts(root: Root, command: list[str], said: str) -> None:
    """What no command can take is refused in a sentence that says which argument it is."""
    ended = fluxdrop(*command, "--root", root.path)

    assert (2, True) == (ended.returncode, said in ended.stderr)
    assert "defect" not in ended.stderr


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["init", ""], "FOLDER is empty."),
        (["status", "--root", ""], "--root is empty."),
        (["run", "--once", "--root", ""], "--root is empty."),
        (["info", ""], "PNG is empty."),
    ],
)
def test_empty_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], said: str
) -> None:
    """An empty path is not taken for the working folder."""
    monkeypatch.chdir(tmp_path)

    ended = fluxdrop(*command)

    assert (2, f"fluxdrop: {said}\n") == (ended.returncode, ended.stderr)
    assert [] == list(tmp_path.iterdir())


def test_cancel_of_no_job(root: Root) -> None:
    """What names no unfinished job cannot be cancelled, which is said in a sentence."""
    ended = fluxdrop("cancel", "nothing", "--root", root.path)

    assert (2, True) == (ended.returncode, "There is no unfinished job nothing." in ended.stderr)


def test_file_names(tmp_path: Path) -> None:
    """The name of a root need not be UTF-8, and is printed as far as it can be."""
    folder = tmp_path / ODD

    made = fluxdrop("init", folder, "--json")
    seen = fluxdrop("status", "--root", folder, "--json")

    assert ("", "") == (made.stderr, seen.stderr)
    assert str(tmp_path / "a\ufffdb") == json.loads(made.stdout)["root"]
    assert str(tmp_path / "a\ufffdb") == json.loads(seen.stdout)["root"]


@pytest.mark.parametrize("command", ["info", "config", "status"])
def test_pipes(root: Root, command: str) -> None:
    """Nothing is waited for when a pipe stands where a file is expected."""
    pipe = root.path / "fluxdrop.toml"
    os.mkfifo(pipe)
    arguments = [pipe] if command == "info" else ["--root", root.path]

    ended = fluxdrop(command, *arguments)

    if command != "status":
        assert (2, 1) == (ended.returncode, len(ended.stderr.splitlines()))
        assert "fluxdrop.toml cannot be read: it is not a regular file" in ended.stderr
