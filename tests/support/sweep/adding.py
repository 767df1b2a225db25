"""Add a folder by one command without an option, and compare its answers with its own library's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from fluxdrop.files.layout import Root
from support.daemons import environment
from support.sweep.made import LABELS
from support.sweep.random_weights import Reference

WITHIN = 1e-3
"""The largest difference of two probabilities that counts as equal."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one folder."""

    library: str
    name: str
    form: str
    problem: str | None = None
    """Why there is no comparison, or what is wrong beside it; None if nothing is."""
    difference: float | None = None
    """The largest difference of two probabilities from the library's."""
    same_first: int = 0
    pictures: int = 0
    parity: float | None = None
    """The difference of the engine from onnxruntime, as `model add` tells it."""
    rounding: float | None = None
    """How far the library's own answers are from those in float64."""
    firsts: int = 0
    """How many labels come first on some picture."""

    @property
    def passed(self) -> bool:
        """Whether the answers are those of the library."""
        return (
            self.problem is None
            and self.difference is not None
            and self.difference <= WITHIN
            and self.same_first == self.pictures
        )


def add(root: Root, folder: Path) -> dict[str, Any] | str:
    """What `fluxdrop model add FOLDER` answers, or why it does not."""
    ended = subprocess.run(
        [sys.executable, "-m", "fluxdrop", "model", "add", str(folder), "--json"],
        env=environment() | {"FLUXDROP_ROOT": str(root.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        return " ".join(ended.stderr.split())
    answer: dict[str, Any] = json.loads(ended.stdout)
    return answer


def compared(answer: dict[str, Any], reference: Reference) -> dict[str, Any]:
    """The fields of a `Result` that say how far *answer* is from *reference*."""
    wanted = reference.probabilities
    found = np.array(
        [[tried["probabilities"][label] for label in LABELS] for tried in answer["tried"]]
        if set(LABELS) == set(answer["labels"])
        else []
    )
    problems = list(answer["warnings"])
    if answer["labels"] != LABELS:
        problems.append(f"its labels are {answer['labels']}")
    measured: dict[str, Any] = {
        "parity": answer["difference"],
        "pictures": len(wanted),
        "firsts": len(set(wanted.argmax(axis=1))),
        "rounding": reference.rounding,
    }
    if found.shape == wanted.shape:
        measured["difference"] = float(np.abs(found - wanted).max())
        measured["same_first"] = int((found.argmax(axis=1) == wanted.argmax(axis=1)).sum())
    return measured | {"problem": "; ".join(problems) or None}
