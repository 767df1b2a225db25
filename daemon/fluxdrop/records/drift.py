"""Compare a replay with the job that it repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.files.regular import open_in_root
from fluxdrop.records.job_files import files_of
from fluxdrop.records.result import Record, Result

TOLERANCE = 1e-4
"""The default tolerance for a probability: more than a different batch size changes it by."""

Verdict = Literal["same", "drifted", "unknown"]


class Drift(NamedTuple):
    """How two jobs differ.

    Each part is ``same`` or describes the difference. It is empty where it was not compared, because
    a job failed.
    """

    verdict: Verdict
    """``unknown`` if nothing differs but something could not be compared because it is gone."""
    image: str
    tensor: str
    probabilities: str
    outcome: str


def compare(
    root: Root, before: Record, before_path: str, after: Record, after_path: str, tolerance: float
) -> Drift:
    """Compare two jobs' records and tensors.

    Two failures are the same if they failed in the same stage for the same kind of reason.

    Args:
        root: The root.
        before: The record of the job.
        before_path: Its path below the root.
        after: The record of the replay.
        after_path: Its path below the root.
        tolerance: How much a probability may differ.
    """
    if not isinstance(before, Result) or not isinstance(after, Result):
        outcome = _outcome(before, after)
        return Drift("same" if outcome == "same" else "drifted", "", "", "", outcome)
    image = "same" if before.image.sha256 == after.image.sha256 else "other bytes"
    tensor = _tensors(
        root,
        files_of(root, before_path, before)["tensor"],
        files_of(root, after_path, after)["tensor"],
    )
    probabilities = _probabilities(before, after, tolerance)
    parts = (image, tensor, probabilities)
    verdict: Verdict = "same" if set(parts) == {"same"} else "drifted"
    if verdict == "drifted" and set(parts) <= {"same", "gone"}:
        verdict = "unknown"
    return Drift(verdict, image, tensor, probabilities, "same")


def _outcome(before: Record, after: Record) -> str:
    def said(record: Record) -> str:
        if isinstance(record, Result):
            return "done"
        return f"failed at {record.error.stage} ({record.error.kind})"

    return "same" if said(before) == said(after) else f"{said(before)}, now {said(after)}"


def _load(root: Root, path: Path) -> Any:
    import numpy as np

    with open_in_root(root.path, path, "tensor") as file:
        return np.load(file, allow_pickle=False)


def _tensors(root: Root, before: Path, after: Path) -> str:
    import numpy as np

    try:
        old, new = (_load(root, path) for path in (before, after))
    except FluxdropError as error:
        return "gone" if isinstance(error.__cause__, FileNotFoundError) else "unreadable"
    except (OSError, ValueError, MemoryError):
        return "unreadable"
    if old.shape != new.shape or old.dtype != new.dtype:
        return "other shape"
    if np.array_equal(old, new, equal_nan=True):
        return "same"
    return f"by {np.abs(old - new).max():.1e}"


def _probabilities(before: Result, after: Result, tolerance: float) -> str:
    if before.probabilities.keys() != after.probabilities.keys():
        return "other labels"
    worst = max(abs(p - after.probabilities[label]) for label, p in before.probabilities.items())
    return "same" if worst <= tolerance else f"by {worst:.1e}"
