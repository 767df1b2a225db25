"""The layers of docs/architecture.md, as pyproject.toml has them for import-linter."""

from __future__ import annotations

import subprocess
import sys
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
