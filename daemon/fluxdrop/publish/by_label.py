"""Each picture once more below outputs/by-label/LABEL/, as the setting ``sort_by_label`` asks."""

from __future__ import annotations

import hashlib
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from fluxdrop.config.tables import SortByLabel
from fluxdrop.files.layout import BY_LABEL
from fluxdrop.predict.answer import Answer
from fluxdrop.printable import printable
from fluxdrop.publish.names import is_windows_device
from fluxdrop.publish.outcome import Finished, Target

SORTED = f"outputs/{BY_LABEL}"

_MAX_LABELS = 100
_MAX_BYTES = 100
# https://learn.microsoft.com/en-us/windows/win32/fileio/naming-a-file
_NOT_ON_WINDOWS = re.compile(r'[<>:"/\\|?*\N{REPLACEMENT CHARACTER}]')
_DIGEST_LENGTH = 6


def sort_by_label(finished: Finished, picture: Path, answer: Answer, how: SortByLabel) -> Finished:
    """Return *finished*, which succeeded, with *picture* also below the folder of each label of *answer*.

    That is the most probable class, or each label that was found, up to a hundred; other answers have none.

    Args:
        finished: The job.
        picture: One of its files, which is published in outputs/.
        answer: What the model says.
        how: Whether the names are links to the picture, or each is of a copy, which is made in the job's folder.

    Raises:
        OSError: A copy cannot be made.
    """
    labels = answer.found if answer.kind == "multi-label" else [x for x, _ in answer.ranked[:1]]
    if how == "none" or not labels:
        return finished
    if len(labels) > _MAX_LABELS:
        finished.job.warnings.append(
            f"It is in {SORTED}/ below the {_MAX_LABELS} most probable of its {len(labels)} labels."
        )
    suffix = next(
        target.suffix
        for path, target in finished.files
        if path == picture and target.folder == "outputs"
    )
    clashing = _clashing(tuple(answer.probabilities))
    files = list(finished.files)
    for number, label in enumerate(labels[:_MAX_LABELS]):
        file = picture
        if how == "copy":
            file = finished.job.folder / f"sorted-{number}{suffix}"
            shutil.copyfile(picture, file, follow_symlinks=False)
        folder = label_folder(label, is_clashing=label in clashing)
        files.append((file, Target(f"{SORTED}/{folder}", suffix)))
    return finished._replace(files=files)


def without_sorted(finished: Finished) -> Finished:
    """Return *finished* without its names below outputs/by-label/, which it warns of; the same if it has none."""
    files = [
        (path, target) for path, target in finished.files if not target.folder.startswith(SORTED)
    ]
    if len(files) == len(finished.files):
        return finished
    finished.job.warnings.append(f"It could not be put into {SORTED}/.")
    return finished._replace(files=files)


def label_folder(label: str, *, is_clashing: bool = False) -> str:
    """Return the name of the folder for *label*, which every filesystem takes.

    A name that differs from the label, or with *is_clashing*, ends with digits of the label's digest, so that each
    label has its own.
    """
    name = printable(unicodedata.normalize("NFC", label))
    name = _NOT_ON_WINDOWS.sub("_", name).strip(" ").rstrip(". ")
    name = re.sub(r"^\.", "_", name)
    name = name.encode()[:_MAX_BYTES].decode("utf-8", "ignore").rstrip(". ") or "_"
    if is_windows_device(name):
        name = f"_{name}"
    if name == label and not is_clashing:
        return name
    return f"{name}~{hashlib.sha256(label.encode()).hexdigest()[:_DIGEST_LENGTH]}"


@lru_cache(maxsize=8)
def _clashing(labels: Iterable[str]) -> frozenset[str]:
    """Return those of *labels* that others of them equal on Windows and macOS, which tell no case apart."""
    folded = {label: unicodedata.normalize("NFC", label).casefold() for label in labels}
    counts = Counter(folded.values())
    return frozenset(label for label, name in folded.items() if counts[name] > 1)
