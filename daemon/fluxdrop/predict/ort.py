"""The only import of onnxruntime; other modules import ``ort`` from here.

onnxruntime sends telemetry unless `fluxdrop.telemetry` was imported first, which the package does.
"""

from __future__ import annotations

import onnxruntime as ort

__all__ = ["ort"]
