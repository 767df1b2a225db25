"""The gallery of one root, kept in step with its results or made anew."""

from __future__ import annotations

import fcntl
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fluxdrop.gallery.entry import Entry, entry_of
from fluxdrop.gallery.page import write_page
from fluxdrop.gallery.pages import PAGE, Broken, Pages, Summary
from fluxdrop.gallery.thumbnail import keep_thumbnails, thumbnail_of
from fluxdrop.layout import Root
from fluxdrop.publish.outputs import read_record, records
from fluxdrop.publish.result import Record, Result

FOLDER = ".gallery"
"""Hidden, as results mirror the inbox's subfolders and no hidden one is ever taken from there."""

_JOB_ID = re.compile(r"[0-9A-Za-z-]{1,64}")


class Gallery:
    """outputs/index.html and outputs/.gallery/ of *root*.

    A daemon and ``fluxdrop gallery`` may both write them: a lock lets one at a time do so, and an
    edition that another made is met by catching up.
    """

    def __init__(self, root: Root) -> None:
        self._root = root
        self._title = root.path.name
        self._folder = root.outputs / FOLDER
        self._thumbnails = self._folder / "thumbnails"
        self._pages = Pages(self._folder)
        self._edition = ""
        self._caught_up: set[str] = set()

    def add(self, ended: Sequence[tuple[Record, str]]) -> bool:
        """Show each record, whose JSON lies at its path below the root; False, and nothing is done,
        when the gallery is not as this object left it, so that it has to catch up."""
        # What ended while it caught up may be told again.
        new = [item for item in ended if item[0].job_id not in self._caught_up]
        entries = [self._entry(record, path) for record, path in new]
        with self._locked():
            try:
                summary = self._pages.summary()
                if summary is None or summary.edition != self._edition:
                    return False
                self._pages.commit(self._pages.extend(summary, entries))
            except Broken:
                return False
        return True

    def catch_up(
        self, ended: Iterable[tuple[str, str]], keep_going: Callable[[], bool] = lambda: True
    ) -> None:
        """Show what of *ended*, pairs of a job's id and its record's path below the root, is not
        shown yet, as long as it is told to *keep_going*. What is gone is passed over."""
        with self._locked():
            write_page(self._root.outputs / "index.html", self._title)
            summary, shown = self._shown()
            missing = {job_id: path for job_id, path in ended if job_id not in shown}
            self._pages.commit(summary)
            paths = list(missing.values())
            for first in range(0, len(paths), PAGE):
                if not keep_going():
                    return
                some = paths[first : first + PAGE]
                found = [(read_record(self._root.path / path), path) for path in some]
                entries = [self._entry(record, path) for record, path in found if record]
                summary = self._pages.extend(summary, entries)
                self._pages.commit(summary)
            self._edition = summary.edition
            self._caught_up = set(missing)

    def rebuild(self, progress: Callable[[int], None] = lambda _done: None) -> Summary:
        """Make all of it anew from outputs/; *progress* is told how many results were read.

        Raises FluxdropError when index.html is somebody else's.
        """
        with self._locked():
            write_page(self._root.outputs / "index.html", self._title)
            entries = []
            for record, path in records(self._root):
                # Whoever may write to outputs/ may have put a JSON of their own there.
                if _JOB_ID.fullmatch(record.job_id):
                    entries.append(self._entry(record, path))
                    progress(len(entries))
            entries.sort(key=lambda entry: (entry.finished, entry.id))
            summary = self._pages.extend(self._pages.begin(self._title), entries)
            self._pages.commit(summary)
            keep_thumbnails(self._thumbnails, {entry.id for entry in entries})
            return summary

    def _shown(self) -> tuple[Summary, set[str]]:
        try:
            summary = self._pages.summary()
            if summary is not None and summary.title == self._title:
                return summary, {entry.id for entry in self._pages.entries(summary)}
        except Broken:
            pass
        return self._pages.begin(self._title), set()

    def _entry(self, record: Record, path: str) -> Entry:
        below = str(Path(path).relative_to(self._root.outputs.relative_to(self._root.path)))
        picture = (self._root.path / path).with_suffix(".png")
        if isinstance(record, Result):
            thumbnail = thumbnail_of(record, picture, self._thumbnails)
            return entry_of(record, below, thumbnail)
        return entry_of(record, below, "picture")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(exist_ok=True)
        with (self._root.state / "gallery.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def page_of(root: Root) -> Path:
    """Where the gallery of *root* is opened."""
    return root.outputs / "index.html"
