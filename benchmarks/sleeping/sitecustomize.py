"""Puts the pipeline beside this file in the place of fluxdrop's: Python imports this module at its start, where
PYTHONPATH names the folder. So generator processes on a busy machine, or on several hosts of one machine, take the time
that a benchmark wants and compute nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

_PIPELINE = Path(__file__).with_name("pipeline.py")


class _Finder:
    """Finds `pipeline.py` for the name of fluxdrop's own module."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder.find_spec`."""
        del path, target
        if name == "fluxdrop.generate.pipeline":
            return spec_from_file_location(name, _PIPELINE)
        return None


sys.meta_path.insert(0, _Finder())
