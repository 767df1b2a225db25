"""No library that fluxdrop uses reports to anybody: set before the first of them is imported.

The package imports this before any of its modules, and children inherit it. onnxruntime, from its import on, would keep
a device id and a database below ~/.cache and look up its maker's host; the variable that ends that is read once.
"""

from __future__ import annotations

import os

os.environ.update(
    ORT_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    DO_NOT_TRACK="1",
)
