"""The container's files say what is so, as far as that can be seen without a builder of images."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTAINERFILE = ROOT / "Containerfile"
PAGE = (ROOT / "docs/container.md").read_text()


def test_context() -> None:
    """The build gets each file and folder that the wheel is made of, though all others are ignored."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    needed = {"pyproject.toml", "constraints.txt", project["project"]["readme"]}
    needed |= {Path(path).parts[0] for path in wheel} | {*project["project"]["license-files"]}
    ignored = (ROOT / ".containerignore").read_text().splitlines()

    assert "*" in ignored
    assert needed == {line.removeprefix("!") for line in ignored if line.startswith("!")}


def test_arguments() -> None:
    """docs/container.md has the build arguments of the Containerfile, and no other."""
    arguments = re.findall(r"(?m)^ARG (\w+)", CONTAINERFILE.read_text())

    assert arguments == re.findall(r"(?m)^\| `(\w+)` \|", PAGE)


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed")
def test_lint() -> None:
    """hadolint finds nothing wrong with the Containerfile."""
    ended = subprocess.run(["hadolint", CONTAINERFILE], capture_output=True, text=True, check=False)

    assert (0, "") == (ended.returncode, ended.stdout)
