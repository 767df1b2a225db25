"""Compare a replay with the job that it repeated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.files.regular import open_in_root
from fluxdrop.records.job_files import files_of
from fluxdrop.records.result import PredictionFacts, Record, Result

TOLERANCE = 1e-4
"""The default tolerance for a probability: more than a different batch size changes it by."""

Verdict = Literal["same", "drifted", "unknown"]
Answer = Result | PredictionFacts
"""One model's answer."""


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
    """How the answers differ, also of the kinds without probabilities."""
    outcome: str
    other_class: bool = False
    """Whether hosts of two classes generated the two pictures, whose bits may differ for that reason alone."""
    other_scale: bool = False
    """Whether the tensors were made of a JPEG that was decoded at two sizes (``fast_jpeg``)."""


def host_class_of(record: Record) -> str | None:
    """Return the class of the host that generated the picture of *record*; None if no host of a cluster did."""
    made = record.generator if isinstance(record, Result) else None
    return made.host_class if made else None


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
        tolerance: How much a probability may differ; for a value or an embedding, relative to the largest number.
    """
    if not isinstance(before, Result) or not isinstance(after, Result):
        outcome = _outcome(before, after)
        return Drift("same" if outcome == "same" else "drifted", "", "", "", outcome)
    image = "same" if _has_same_picture(before, after) else "other bytes"
    old, new = files_of(root, before_path, before), files_of(root, after_path, after)
    tensor = _arrays(root, old["tensor"], new["tensor"])
    answer = _answer(root, before, after, old.get("embedding"), new.get("embedding"), tolerance)
    if answer == "same":
        answer = _other_answers(root, before, after, old, new, tolerance)
    parts = (image, tensor, answer)
    verdict: Verdict = "same" if set(parts) == {"same"} else "drifted"
    if verdict == "drifted" and set(parts) <= {"same", "gone"}:
        verdict = "unknown"
    generated_both = before.generator is not None and after.generator is not None
    other_class = generated_both and host_class_of(before) != host_class_of(after)
    other_scale = before.preprocessed.jpeg_scale != after.preprocessed.jpeg_scale
    return Drift(verdict, image, tensor, answer, "same", other_class, other_scale)


def failed_unread(record: Record) -> bool:
    """Return whether the job failed before its input was read, as it was of an unknown kind or not whole.

    A replay takes its input as it is, so it cannot come to the same.
    """
    if isinstance(record, Result):
        return False
    return record.error.stage == "intake" or record.error.kind in ("unknown", "incomplete")


def _has_same_picture(before: Result, after: Result) -> bool:
    """Return whether both have the same picture.

    An earlier fluxdrop converted what was dropped to PNG; then the dropped file is compared.
    """
    if before.image.sha256 == after.image.sha256:
        return True
    source = before.source
    return source.kind == "picture" and source.sha256 == after.image.sha256


def _answer(
    root: Root,
    before: Answer,
    after: Answer,
    old: Path | None,
    new: Path | None,
    tolerance: float,
) -> str:
    """Compare two answers, whose embeddings are in the files *old* and *new*."""
    if before.kind != after.kind:
        return f"{before.kind}, now {after.kind}"
    if before.kind == "embedding":
        return _arrays(root, old, new, tolerance) if old and new else "gone"
    if before.kind == "regression":
        return _values(before, after, tolerance)
    return _probabilities(before, after, tolerance)


def _other_answers(
    root: Root,
    before: Result,
    after: Result,
    old: Mapping[str, Path],
    new: Mapping[str, Path],
    tolerance: float,
) -> str:
    """Compare the answers of the models after the first one."""
    pairs = [
        [(entry.model.bundle, entry) for entry in record.predictions[1:]]
        for record in (before, after)
    ]
    if [name for name, _ in pairs[0]] != [name for name, _ in pairs[1]]:
        return "other models"
    for number, ((name, one), (_, other)) in enumerate(zip(*pairs, strict=True), 2):
        key = f"embedding-{number}"
        answer = _answer(root, one, other, old.get(key), new.get(key), tolerance)
        if answer != "same":
            return f"{name}: {answer}"
    return "same"


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


def _arrays(root: Root, before: Path, after: Path, tolerance: float = 0.0) -> str:
    """Compare two NumPy files; *tolerance* is relative to the largest number of *before*."""
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
    worst = np.abs(old - new).max()
    return "same" if worst <= tolerance * np.abs(old).max() else f"by {worst:.1e}"


def _probabilities(before: Answer, after: Answer, tolerance: float) -> str:
    old, new = before.probabilities, after.probabilities
    counts = _label_count(before), _label_count(after)
    # Of many labels, a record may have only the most probable ones.
    is_other = (len(old) == counts[0] and not new.keys() <= old.keys()) or (
        len(new) == counts[1] and not old.keys() <= new.keys()
    )
    if counts[0] != counts[1] or is_other or not old or not new:
        return "other labels"
    least_old, least_new = min(old.values()), min(new.values())
    # A label that a record lacks is at most as probable as the last one that it has.
    worst = max(
        abs(old[label] - new[label])
        if label in old and label in new
        else max(0.0, old.get(label, 0.0) - least_new, new.get(label, 0.0) - least_old)
        for label in old.keys() | new.keys()
    )
    if worst > tolerance:
        return f"by {worst:.1e}"
    common = before.thresholds.keys() & after.thresholds.keys()
    is_same = all(before.thresholds[label] == after.thresholds[label] for label in common)
    return "same" if is_same else "other thresholds"


def _label_count(record: Answer) -> int:
    """Return how many labels the model of *record* has; version 1 lists all of them."""
    return record.label_count or len(record.probabilities)


def _values(before: Answer, after: Answer, tolerance: float) -> str:
    old, new = ([(item.name, item.unit) for item in record.values] for record in (before, after))
    if old != new:
        return "other names or units"
    pairs = [(one.value, two.value) for one, two in zip(before.values, after.values, strict=True)]
    worst = max((abs(one - two) for one, two in pairs), default=0.0)
    largest = max((abs(one) for one, _ in pairs), default=0.0)
    return "same" if worst <= tolerance * largest else f"by {worst:.1e}"
