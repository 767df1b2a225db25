"""The documentation says what is so: generated pages are up to date, and its commands run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from fluxdrop.cli import app
from fluxdrop.doctor import contents, folders, machine
from support import pages
from support.commands import loaded
from support.daemons import PATIENCE, SAMPLES, environment
from support.needs import needs_generation

DOCS = pages.DOCS
WITH_COMMANDS = [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))]


@pytest.mark.parametrize("page", pages.PAGES)
def test_generated(page: str) -> None:
    """A page that is generated from the code is up to date; `python -m support.pages` writes it."""
    assert pages.PAGES[page]() == (DOCS / page).read_text()


def blocks(page: Path) -> list[str]:
    """The commands of *page* that are to be run, in order."""
    found = re.findall(r"<!-- run -->\n\n((?:    .*\n|\n)+)", page.read_text())
    return ["\n".join(line.removeprefix("    ") for line in block.splitlines()) for block in found]


@needs_generation
@pytest.mark.parametrize(
    "page", [page for page in WITH_COMMANDS if blocks(page)], ids=lambda page: page.name
)
def test_commands(page: Path, tmp_path: Path) -> None:
    """The commands of a page do what it says, one after the other, from an empty folder on."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "fluxdrop").write_text(f'#!/bin/sh\nexec {sys.executable} -m fluxdrop "$@"\n')
    (programs / "fluxdrop").chmod(0o755)
    (tmp_path / "examples").symlink_to(SAMPLES)
    # A daemon that was begun in the background is waited for as a person does, and ended in any case.
    script = "\n".join(
        [
            "set -eum",
            "trap 'jobs -p | xargs --no-run-if-empty kill || true; wait' EXIT",
            *blocks(page),
        ]
    ).replace(" &\n", " &\nuntil fluxdrop status --root shared; do sleep 0.2; done\n")

    ended = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={
            **environment(engine="onnxruntime", settle_seconds=0.1),
            "PATH": f"{programs}:{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
        check=False,
    )

    assert 0 == ended.returncode, ended.stdout + ended.stderr


def named_commands(page: Path) -> list[list[str]]:
    """The `fluxdrop` commands that *page* names, in words."""
    text = page.read_text()
    lines = re.findall(r"(?m)^    (fluxdrop .*?)(?:\s+#.*| &| \|\|.*)?$", text)
    lines += re.findall(r"`(fluxdrop [^`]*)`", text)
    return [shlex.split(line)[1:] for line in lines]


def problem(words: list[str]) -> str:
    """What is wrong with the command line *words*, as far as its names go."""
    command: Any = typer.main.get_command(app)
    for word in words:
        subcommands = getattr(command, "commands", None)
        if subcommands is not None:
            if word not in subcommands:
                return f"no command {word}"
            command = loaded(subcommands[word])
        elif word.startswith("-"):
            options = {name for parameter in command.params for name in parameter.opts}
            if word.partition("=")[0] not in {*options, "--help"}:
                return f"{command.name} has no {word}"
    return ""


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: page.name)
def test_named_commands(page: Path) -> None:
    """Every command and option that a page names is there."""
    problems = {shlex.join(words): problem(words) for words in named_commands(page)}

    assert {} == {words: wrong for words, wrong in problems.items() if wrong}


def test_every_check_of_doctor_is_explained() -> None:
    """docs/troubleshooting.md has each line that doctor prints and that can be other than fine."""
    checks = {
        name
        for module in (machine, folders, contents)
        for name in re.findall(r'Finding\(\s*"([a-z ]+)"', Path(str(module.__file__)).read_text())
    }
    page = (DOCS / "troubleshooting.md").read_text().partition("## What doctor says")[2]

    assert {"fluxdrop", "packages", "service"} == checks - set(re.findall(r"`([a-z ]+)`", page))
