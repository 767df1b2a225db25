"""The gallery's data: pages of entries and a summary, as scripts that index.html loads.

A page that a browser opened from a folder may load scripts from beside it, but no JSON. So each
file is one function call with JSON in it. The summary is written after the pages, so that it never
counts an entry that is missing. All pages of one *edition* are in a folder of that name. A rebuild
writes another edition, which takes effect as a whole when the summary changes to it.

Nothing here is synced: damage by a power cut is found when a file is read, and the file is made
again.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress
from io import FileIO
from typing import Any, TypeVar

import msgspec

from fluxdrop.files import durable
from fluxdrop.files.folders import Folders
from fluxdrop.files.layout import GALLERY
from fluxdrop.gallery.entry import Entry, labels_shown
from fluxdrop.records.result import UNDECODABLE

T = TypeVar("T")

PAGE_ENTRIES = 240
"""Entries on a page: a number that fills whole rows of two, three, four, five, six or eight columns."""

_SUMMARY = "summary.js"
_MAX_BYTES = 1 << 26


class GalleryDamaged(Exception):
    """A file of the gallery is missing or damaged."""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The counts that the page shows. Its size depends only on the number of labels, models and folders."""

    edition: str
    title: str
    page: int = PAGE_ENTRIES
    """How many entries a page has."""
    total: int = 0
    states: dict[str, int] = {}
    labels: dict[str, int] = {}
    models: dict[str, int] = {}
    folders: dict[str, int] = {}


class Pages:
    """The data files of one gallery. Only one thread and process may write them at a time."""

    def __init__(self, folders: Folders) -> None:
        """Use the gallery in *folders*, the folders below outputs/."""
        self._folders = folders

    def begin(self, title: str) -> Summary:
        """Begin a new, empty edition, which is not shown before `commit`; return its summary."""
        edition = secrets.token_hex(4)
        self._folders.fd(_folder(edition), make=True)
        return Summary(edition=edition, title=title)

    def summary(self) -> Summary | None:
        """Return the summary that the page shows; None if there is none yet.

        Raises:
            GalleryDamaged: It cannot be read.
        """
        try:
            return self._read(GALLERY, _SUMMARY, "fluxdrop.summary(", Summary)
        except FileNotFoundError:
            return None

    def entries(self, summary: Summary) -> Iterator[Entry]:
        """Yield all entries that *summary* counts, oldest first.

        Raises:
            GalleryDamaged: Some of them are missing.
        """
        for number in range(-(-summary.total // PAGE_ENTRIES)):
            yield from self._page(summary, number)

    def extend(self, summary: Summary, entries: Sequence[Entry]) -> Summary:
        """Write *entries* behind those that *summary* counts; return the summary to `commit`.

        Raises:
            GalleryDamaged: The last page is missing or damaged.
        """
        number = summary.total // PAGE_ENTRIES
        behind = self._page(summary, number) if summary.total % PAGE_ENTRIES else []
        behind += entries
        for first in range(0, len(behind), PAGE_ENTRIES):
            self._write_page(
                summary.edition,
                number + first // PAGE_ENTRIES,
                behind[first : first + PAGE_ENTRIES],
            )
        return msgspec.structs.replace(
            summary,
            total=summary.total + len(entries),
            states=_add_counts(summary.states, [entry.state for entry in entries]),
            labels=_add_counts(
                summary.labels, [label for entry in entries for label in labels_shown(entry)]
            ),
            models=_add_counts(summary.models, [entry.model for entry in entries if entry.model]),
            folders=_add_counts(
                summary.folders, [entry.folder for entry in entries if entry.folder]
            ),
        )

    def commit(self, summary: Summary) -> None:
        """Make the page show what *summary* counts, and remove all other editions."""
        folder = self._folders.fd(GALLERY)
        durable.write_in(folder, _SUMMARY, _script("fluxdrop.summary(", summary), sync=False)
        for name in os.listdir(folder):  # noqa: PTH208 - a descriptor
            if _is_edition(name) and name != summary.edition:
                self._remove(name)
        self._folders.forget()

    def sweep(self, edition: str) -> None:
        """Remove the files that a killed process left half written."""
        for folder in (GALLERY, _folder(edition)):
            with suppress(FileNotFoundError, NotADirectoryError):
                durable.sweep(self._folders.fd(folder))

    def _remove(self, edition: str) -> None:
        """Remove an edition and its pages. If other files are in its folder, they and the folder stay."""
        with suppress(OSError):
            folder = self._folders.fd(_folder(edition))
            for name in os.listdir(folder):  # noqa: PTH208 - a descriptor
                os.unlink(name, dir_fd=folder)
            os.rmdir(edition, dir_fd=self._folders.fd(GALLERY))

    def _page(self, summary: Summary, number: int) -> list[Entry]:
        path = f"{_folder(summary.edition)}/{_name(number)}"
        expected = min(PAGE_ENTRIES, summary.total - number * PAGE_ENTRIES)
        try:
            call = _page_call(summary.edition, number)
            entries = self._read(_folder(summary.edition), _name(number), call, list[Entry])
        except FileNotFoundError:
            raise GalleryDamaged(f"{path} is missing") from None
        # A kill between the writing of a page and of the summary leaves entries that do not count.
        if len(entries) < expected:
            raise GalleryDamaged(f"{path} has {len(entries)} entries, not {expected}")
        return entries[:expected]

    def _write_page(self, edition: str, number: int, entries: Sequence[Entry]) -> None:
        data = _script(_page_call(edition, number), entries)
        folder = self._folders.fd(_folder(edition), make=True)
        durable.write_in(folder, _name(number), data, sync=False)

    def _read(self, folder: str, name: str, call: str, kind: type[T]) -> T:
        path = f"{folder}/{name}"
        try:
            fd = durable.open_regular_fd(name, os.O_RDONLY, self._folders.fd(folder))
            with FileIO(fd) as file:
                data = durable.read_at_most(file, _MAX_BYTES)
        except FileNotFoundError:
            raise
        except OSError as error:
            # Other users may write to this folder, too.
            raise GalleryDamaged(f"{path} cannot be read: {error.strerror}") from error
        start, end = call.encode(), b");\n"
        if not data.startswith(start) or not data.endswith(end):
            raise GalleryDamaged(f"{path} is not whole")
        try:
            return msgspec.json.decode(data[len(start) : -len(end)], type=kind)
        except UNDECODABLE as error:
            raise GalleryDamaged(f"{path} cannot be read: {error}") from error


def _folder(edition: str) -> str:
    return f"{GALLERY}/{edition}"


def _name(number: int) -> str:
    return f"{number:05}.js"


def _page_call(edition: str, number: int) -> str:
    return f'fluxdrop.page("{edition}", {number}, '


def _is_edition(name: str) -> bool:
    return len(name) == 8 and set(name) <= set("0123456789abcdef")


def _add_counts(counts: dict[str, int], names: Sequence[str]) -> dict[str, int]:
    counts = dict(counts)
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts


def _script(call: str, value: Any) -> bytes:
    # In ASCII, a script is the same in every encoding, and no U+2028 ends a line. Without "<", it
    # cannot end a script element into which somebody may paste it.
    text = json.dumps(msgspec.to_builtins(value), separators=(",", ":")).replace("<", "\\u003c")
    return f"{call}{text});\n".encode("ascii")
