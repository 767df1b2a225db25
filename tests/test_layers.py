"""The layers of docs/architecture.md, as pyproject.toml has them for import-linter."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def test_layers() -> None:
    """No module imports from a layer above its own, and each package has a layer."""
    done = subprocess.run(
        [sys.executable, "-c", LINT], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )

    assert 0 == done.returncode, done.stdout
    assert "2 kept, 0 broken" in done.stdout


def test_documented_layers() -> None:
    """docs/architecture.md tells all layers, in the order in which they are held."""
    held = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = [set(layer.split(" | ")) for layer in held["contracts"][0]["layers"]]
    table = (CHECKOUT / "docs" / "architecture.md").read_text().partition("| owns |")[2]
    rows = [re.findall(r"`(\w+)(?:/|\.py)`", row.split(" | ")[0]) for row in table.splitlines()]
    told = [name for row in rows[2:] for name in row][: sum(map(len, layers))]

    start = 0
    for layer in layers:
        assert layer == set(told[start : start + len(layer)])
        start += len(layer)
