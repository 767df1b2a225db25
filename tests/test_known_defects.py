"""The defects of libraries that fluxdrop works around are still there."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[1] / "docs/known-defects.md"


def run(mark: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What becomes of the script that stands under *mark* in docs/known-defects.md."""
    (script,) = re.findall(rf"<!-- {mark} -->\n\n((?:    .*\n|\n)+)", PAGE.read_text())
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={"TMPDIR": str(folder), "HOME": str(folder), "ORT_DISABLE_TELEMETRY": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_msgspec(tmp_path: Path) -> None:
    """msgspec crashes when a thread decodes a class with which another has not finished."""
    assert -signal.SIGSEGV == run("ends with SIGSEGV", tmp_path).returncode


def test_watchdog(tmp_path: Path) -> None:
    """watchdog's thread ends with a KeyError when a folder that left and one that took its name go."""
    done = run("says KeyError", tmp_path)

    assert "in _remove_watch_internally" in done.stderr
    assert re.search(r"^KeyError: b'.*watched/a'$", done.stderr, re.MULTILINE)


def test_onnxruntime(tmp_path: Path) -> None:
    """onnxruntime's optimiser changes the largest of four zeros and negative numbers."""
    done = run("says 0 and -1", tmp_path)

    assert ["0.0", "-1.0"] == done.stdout.split(), done.stderr
