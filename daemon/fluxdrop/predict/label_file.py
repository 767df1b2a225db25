"""Labels as people have them: in a file of any usual form, with a name that occurs twice."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fluxdrop.errors import FluxdropError
from fluxdrop.files.regular import open_given
from fluxdrop.predict.label_formats import (
    Named,
    UnclearLabelsError,
    from_json,
    from_lines,
    from_table,
    is_table,
)
from fluxdrop.printable import printable

_MAX_BYTES = 16 << 20
_LINE_END = re.compile(r"\r\n|\r|\n")
_FILE_NAME = re.compile(r"[^,]*(/[^,]*|\.[A-Za-z][A-Za-z0-9]{1,6})")


class LabelList(NamedTuple):
    """Labels in the model's order, each name once, and what was done so that it is so."""

    labels: list[str]
    warnings: list[str]
    """Sentences without a full stop."""


def labels_of(text: str) -> LabelList:
    """Return the labels that *text* has: the name of a file, or names with commas between.

    Raises:
        FluxdropError: *text* names a file that does not exist, or that is no list of labels.
    """
    path = Path(text).expanduser()
    if path.is_file():
        return read_labels(path)
    if _FILE_NAME.fullmatch(text.strip()):
        raise FluxdropError(
            f"There is no file {text}",
            hint="Give a file with the labels, or the labels themselves with commas between.",
        )
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise FluxdropError("--labels names no label", hint="Such as --labels cat,dog,bird.")
    return distinct([Named(name, f"label {number}") for number, name in enumerate(names, 1)])


def read_labels(path: Path) -> LabelList:
    """Read a file of labels: lines, a table (CSV), or JSON; in UTF-8 or UTF-16.

    Raises:
        FluxdropError: It cannot be read, or it is not clear which label is which.
    """
    try:
        text = _decode(path)
        found = _parse(text, path.suffix.lower())
        if not found:
            raise UnclearLabelsError("it has none")
    except (OSError, UnclearLabelsError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise FluxdropError(
            f"{path} cannot be read as a list of labels: {reason}",
            hint="Write one label a line, in the model's order, as UTF-8.",
        ) from error
    return distinct(found, f" of {path.name}")


def distinct(found: Sequence[Named], where: str = "") -> LabelList:
    """Give each label a name of its own: the second ``crane`` becomes ``crane (517)``, its number in the model.

    Characters that no terminal should get are replaced.

    Args:
        found: The labels in the model's order.
        where: What the places are in, for the warnings, such as `` of labels.txt``.
    """
    found = [Named(printable(name), place) for name, place in found]
    taken = {name for name, _ in found}
    first: dict[str, str] = {}
    labels: list[str] = []
    warnings: list[str] = []
    for number, (name, place) in enumerate(found):
        label = name
        if name in first:
            while label in taken:
                label = f"{label} ({number})"
            taken.add(label)
            warnings.append(
                f"{first[name]} and {place}{where} are both {name}; the second is called {label}"
            )
        else:
            first[name] = place
        labels.append(label)
    return LabelList(labels, warnings)


def _parse(text: str, suffix: str) -> list[Named]:
    if text.lstrip()[:1] in ("[", "{"):
        return from_json(text)
    lines = _LINE_END.split(text)
    if not text.strip():
        return []
    return from_table(lines) if suffix in (".csv", ".tsv") or is_table(lines) else from_lines(lines)


def _decode(path: Path) -> str:
    """Return the text of the file: UTF-8 or UTF-16, with or without a byte order mark."""
    with open_given(path) as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise UnclearLabelsError(f"it has more than {_MAX_BYTES >> 20} MiB")
    try:
        text = data.decode(_encoding(data))
    except UnicodeDecodeError:
        raise UnclearLabelsError("it is neither UTF-8 nor UTF-16") from None
    if "\0" in text:
        raise UnclearLabelsError("it is not text")
    return text


def _encoding(data: bytes) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    # Without a mark, every second byte of the first characters is zero if they are Latin.
    if len(data) > 1 and data[1] == 0 != data[0]:
        return "utf-16-le"
    if len(data) > 1 and data[0] == 0 != data[1]:
        return "utf-16-be"
    return "utf-8-sig"
