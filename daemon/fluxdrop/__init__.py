"""fluxdrop: drop a prompt or a picture into a folder, get the picture and what a Flux model makes of it."""

from __future__ import annotations

from fluxdrop import telemetry as telemetry

__version__ = "0.1.0"
