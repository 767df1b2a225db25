"""Failpoints: named places in the code at which a test can kill the daemon.

With ``FLUXDROP_FAILPOINT=NAME`` in the environment, the process sends itself SIGKILL when it reaches the
failpoint NAME for the first time; with ``NAME:N``, for the N-th time. Without it a failpoint does nothing.
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
    "replay-made",
    "replay-renamed",
    "index-written",
    "index-committed",
    "job-in-index",
    "file-written",
    "file-in-place",
    "generation-divided",
    "generation-seeded",
    "generation-begun",
    "dispatched",
    "generation-whole",
    "answer-received",
    "fence-passed",
    "generation-in-place",
    "generation-recorded",
    "decoding-begun",
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
    "request-read",
    "request-taken",
    "model-swapped",
    "model-chosen",
    "request-answered",
    "stopping",
]
"""Every failpoint, in the order in which a job reaches them."""

POINTS: tuple[Point, ...] = get_args(Point)
"""The names of all failpoints."""

_name, _, _number = os.environ.get("FLUXDROP_FAILPOINT", "").partition(":")
_times_reached = itertools.count(1)


def _kill(name: Point) -> None:
    if name == _name and next(_times_reached) == int(_number or 1):
        os.kill(os.getpid(), signal.SIGKILL)


def _ignore(name: Point) -> None:
    pass


reach = _kill if _name else _ignore
"""Mark a place in the code as the failpoint *name*."""
