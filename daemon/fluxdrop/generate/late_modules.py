"""Modules that are imported when something in them is used, and not when another library imports them."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


def import_late(name: str) -> None:
    """Import the module *name*, a submodule, at the first use of something in it; nothing changes if it is there.

    `importlib.util.LazyLoader` would import it as soon as somebody looks at all modules, as `inspect` does.
    """
    sys.modules.setdefault(name, _LateModule(name))


class _LateModule(ModuleType):
    """Stands for a module until something in it is used."""

    def __getattr__(self, name: str) -> Any:
        # Its submodules are found by its path. What else has such a name, a module may lack.
        if name.startswith("__") and name != "__path__":
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)
