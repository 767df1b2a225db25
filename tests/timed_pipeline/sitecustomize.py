"""Has the generator process load `timed_pipeline` in place of the pipelines of diffusers: pictures take the time that
their prompt says, and no torch. Python imports this where its folder is on PYTHONPATH."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

_REPLACED = "fluxdrop.generate.pipeline"


VERSION = "TIMED_PIPELINE_VERSION"
"""The environment's variable for another version of fluxdrop than there is."""


class _Finder:
    """Finds the one module that is replaced."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        del path, target
        if name != _REPLACED:
            return None
        return importlib.util.spec_from_file_location(
            name, Path(__file__).with_name("timed_pipeline.py")
        )


sys.meta_path.insert(0, _Finder())

if VERSION in os.environ:
    import fluxdrop

    fluxdrop.__version__ = os.environ[VERSION]
