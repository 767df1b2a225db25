"""The gallery of one root, kept in step with its results or made anew."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path, PurePosixPath

from fluxdrop.files import durable
from fluxdrop.files.layout import GALLERY, Root
from fluxdrop.gallery.entry import Entry, entry_of
from fluxdrop.gallery.page import INDEX_NAME, write_page
from fluxdrop.gallery.pages import PAGE_ENTRIES, GalleryDamaged, Pages, Summary
from fluxdrop.gallery.thumbnail import prune_thumbnails, sweep_thumbnails, thumbnail_of
from fluxdrop.jobs.job_id import is_job_id
from fluxdrop.records.outputs import read_record, records
from fluxdrop.records.result import Record, Result


class Gallery:
    """outputs/index.html and outputs/.gallery/ of *root*.

    A daemon and ``fluxdrop gallery`` may both write them: a lock lets one at a time do so, and an
    edition that another made is met by catching up.
    """

    def __init__(self, root: Root) -> None:
        self._root = root
        self._title = root.path.name
        self._folders = root.open_outputs()
        self._pages = Pages(self._folders)
        self._edition = ""
        self._caught_up: set[str] = set()

    def add(self, ended: Sequence[tuple[Record, str]]) -> bool:
        """Show each record, whose JSON lies at its path below the root; False, and nothing is done,
        when the gallery is not as this object left it, so that it has to catch up."""
        # What ended while it caught up may be told again.
        new = [item for item in ended if item[0].job_id not in self._caught_up]
        with self._locked():
            entries = [self._entry(record, path) for record, path in new]
            try:
                summary = self._pages.summary()
                if summary is None or summary.edition != self._edition:
                    return False
                self._pages.commit(self._pages.extend(summary, entries))
            except GalleryDamaged:
                return False
        return True

    def catch_up(
        self, ended: Iterable[tuple[str, str]], keep_going: Callable[[], bool] = lambda: True
    ) -> None:
        """Show what of *ended*, pairs of a job's id and its record's path below the root, is not
        shown yet, as long as it is told to *keep_going*. What is gone is passed over."""
        with self._locked():
            write_page(self._folders, self._title)
            summary, shown = self._shown()
            self._pages.sweep(summary.edition)
            sweep_thumbnails(self._folders)
            missing = {job_id: path for job_id, path in ended if job_id not in shown}
            self._pages.commit(summary)
            waiting = list(missing.items())
            for first in range(0, len(waiting), PAGE_ENTRIES):
                if not keep_going():
                    return
                entries = []
                for job_id, path in waiting[first : first + PAGE_ENTRIES]:
                    record = read_record(self._folders, self._below_outputs(path))
                    # Another job's has been put in its place.
                    if record is not None and record.job_id == job_id:
                        entries.append(self._entry(record, path))
                summary = self._pages.extend(summary, entries)
                self._pages.commit(summary)
            self._edition = summary.edition
            self._caught_up = set(missing)

    def rebuild(self, progress: Callable[[int], None] = lambda _done: None) -> Summary:
        """Make all of it anew from outputs/; *progress* is told how many results were read.

        Raises FluxdropError when index.html is somebody else's.
        """
        with self._locked():
            write_page(self._folders, self._title)
            entries = []
            for record, path in records(self._root):
                entries.append(self._entry(record, path))
                progress(len(entries))
            entries.sort(key=lambda entry: (entry.finished, entry.id))
            summary = self._pages.extend(self._pages.begin(self._title), entries)
            self._pages.commit(summary)
            prune_thumbnails(self._folders, {entry.id for entry in entries})
            return summary

    def _shown(self) -> tuple[Summary, set[str]]:
        try:
            summary = self._pages.summary()
            if summary is not None and summary.title == self._title:
                return summary, {entry.id for entry in self._pages.entries(summary)}
        except GalleryDamaged:
            pass
        return self._pages.begin(self._title), set()

    def _entry(self, record: Record, path: str) -> Entry:
        below = self._below_outputs(path)
        if isinstance(record, Result) and is_job_id(record.job_id):
            picture = str(PurePosixPath(below).with_suffix(".png"))
            return entry_of(record, below, thumbnail_of(record, picture, self._folders))
        return entry_of(record, below, "picture")

    def _below_outputs(self, path: str) -> str:
        return path.removeprefix(f"{self._root.outputs.name}/")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = durable.open_private(self._root.state / "gallery.lock")
        with FileIO(lock) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                self._folders.fd(GALLERY, make=True)
                yield
            except OSError as error:
                # What is named relative to a folder, or not at all, says nothing to people.
                if not Path(str(error.filename or "")).is_absolute():
                    error.filename = str(self._root.outputs / GALLERY)
                raise
            finally:
                self._folders.close()


def page_of(root: Root) -> Path:
    """Where the gallery of *root* is opened."""
    return root.outputs / INDEX_NAME
