"""A Julia installation."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class JuliaInstall:
    """A Julia that can run workers."""

    executable: Path
    project: Path | None
    """The project that has Flux; None for Julia's default one."""
    env: dict[str, str] = field(default_factory=dict)
    """Variables to add to the environment."""
    version: str = ""
    source: str = ""
    """Where it was found."""
    flux: str = ""
    """The version of Flux that loaded in ``fluxdrop setup``; empty if none did."""

    def exists(self) -> bool:
        """Return whether executable and project still exist. This starts no process."""
        return os.access(self.executable, os.X_OK) and (
            self.project is None or self.project.is_dir()
        )
