"""A Julia that was found or provided."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class JuliaInstall:
    """A Julia that can start workers, and where it was found."""

    executable: Path
    project: Path | None
    env: dict[str, str] = field(default_factory=dict)
    version: str = ""
    source: str = ""
    flux: str = ""
    """The version of Flux that ``fluxdrop setup`` saw loading; empty where it saw none."""

    def exists(self) -> bool:
        """Whether executable and project are still on disk; costs two stats and no process."""
        return os.access(self.executable, os.X_OK) and (
            self.project is None or self.project.is_dir()
        )
