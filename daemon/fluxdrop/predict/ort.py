"""onnxruntime, for all who use it.

Nobody else imports it: it reports to its maker unless `fluxdrop.telemetry` was imported first, as it is by the package.
"""

from __future__ import annotations

import onnxruntime as ort

__all__ = ["ort"]
