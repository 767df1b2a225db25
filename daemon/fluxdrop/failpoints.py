"""Named moments at which a test can end the daemon from outside, as a power cut would.

``FLUXDROP_FAULT=NAME`` in the environment is SIGKILL to the own process at the first passing of the fail
point NAME, ``NAME:N`` at the N-th. Without the variable a fail point does nothing.
"""

from __future__ import annotations

import itertools
import os
import signal
from typing import Literal, get_args

Point = Literal[
    "root-locked",
    "root-checked",
    "claim-folder-made",
    "claim-renamed",
    "request-made",
    "request-renamed",
    "index-written",
    "index-committed",
    "job-in-index",
    "file-written",
    "file-in-place",
    "generation-divided",
    "generation-begun",
    "generation-whole",
    "generation-in-place",
    "generation-recorded",
    "decoding-begun",
    "picture-converted",
    "tensor-written",
    "preview-written",
    "decoding-ended",
    "prediction-begun",
    "prediction-ended",
    "record-written",
    "files-synced",
    "plan-written",
    "plans-synced",
    "copy-written",
    "name-given",
    "names-taken-back",
    "plan-void",
    "folders-synced",
    "index-told",
    "job-emptied",
    "job-discarded",
    "order-read",
    "order-taken",
    "model-swapped",
    "model-chosen",
    "order-answered",
    "stopping",
]
"""Every fail point, in the order in which a job passes them."""

POINTS: tuple[Point, ...] = get_args(Point)

_name, _, _number = os.environ.get("FLUXDROP_FAULT", "").partition(":")
_passings = itertools.count(1)


def _kill(name: Point) -> None:
    if name == _name and next(_passings) == int(_number or 1):
        os.kill(os.getpid(), signal.SIGKILL)


def _pass(name: Point) -> None:
    pass


reach = _kill if _name else _pass
"""Mark the moment *name*."""
