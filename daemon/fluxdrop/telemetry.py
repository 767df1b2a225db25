"""Switch off the telemetry of the libraries that fluxdrop uses, by environment variables.

The package imports this module before any other, so that the variables are set before a library is
imported; child processes inherit them. Without its variable, onnxruntime, once imported, would keep a
device id and a database below ~/.cache and resolve its maker's host. It reads the variable only once.
"""

from __future__ import annotations

import os
from typing import Any

os.environ.update(
    ORT_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    DO_NOT_TRACK="1",
)


def import_onnxruntime() -> Any:
    """Import onnxruntime and return the module.

    This is the only import of onnxruntime. Other code calls this function, so that the import always
    comes after the variable was set. The module is imported at the first call, as it loads slowly.
    """
    import onnxruntime

    return onnxruntime
