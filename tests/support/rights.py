"""A user without root's rights: root may read and write whatever modes forbid."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest


def without_rights() -> list[str]:
    """What has a command that follows it obey the modes of files, as its user; skips the test where that cannot be."""
    if os.geteuid() != 0:
        return []
    command = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search,-fowner"]
    if not shutil.which("setpriv"):
        pytest.skip("root cannot give up its rights here: there is no setpriv")
    tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"root cannot give up its rights here: {tried.stderr.strip()}")
    return command
