"""What root may do whatever modes forbid, and tests have to forbid by other means."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from typing import Any

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


def forbid_links_to_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have linking an input fail as Linux has it for the files of others (fs.protected_hardlinks)."""
    real = os.link

    def link(source: Any, *arguments: Any, **options: Any) -> None:
        if "/input=" in str(source):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), source)
        real(source, *arguments, **options)

    monkeypatch.setattr(os, "link", link)
