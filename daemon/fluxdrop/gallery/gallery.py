"""The gallery of one root: added to as jobs end, or built again from the results."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path, PurePosixPath

from fluxdrop.files import durable
from fluxdrop.files.layout import GALLERY, Root
from fluxdrop.gallery.data_pages import PAGE_ENTRIES, GalleryDamaged, Pages, Summary
from fluxdrop.gallery.entry import Entry, entry_of
from fluxdrop.gallery.html_page import INDEX_NAME, write_page
from fluxdrop.gallery.thumbnail import prune_thumbnails, sweep_thumbnails, thumbnail_of
from fluxdrop.jobs.job_id import is_job_id
from fluxdrop.records.job_files import image_suffix
from fluxdrop.records.outputs import records, try_read_record
from fluxdrop.records.result import Record, Result


class Gallery:
    """The files outputs/index.html and outputs/.gallery/ of one root.

    A daemon and ``fluxdrop gallery`` may both write them. A lock lets only one of them write at a
    time, and a daemon that finds another's edition catches up with the index.
    """

    def __init__(self, root: Root) -> None:
        self._root = root
        self._title = root.path.name
        self._folders = root.open_outputs()
        self._pages = Pages(self._folders)
        self._edition = ""
        self._caught_up: set[str] = set()

    def add(self, ended: Sequence[tuple[Record, str]]) -> bool:
        """Show jobs that have ended; return False, with nothing done, if `catch_up` has to be called.

        That is so if the gallery's files are damaged, or are not as this object left them.

        Args:
            ended: Each job's record, and its JSON file's path relative to the root.
        """
        # Jobs that ended while it caught up may be reported once more.
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
        """Show those of the ended jobs that are not shown yet. A record that is gone is left out.

        Args:
            ended: Each job's id, and its record's path relative to the root.
            keep_going: Asked before each page; if it returns False, the rest is left out.

        Raises:
            FluxdropError: The file index.html is not the gallery's.
            OSError: The files cannot be written.
        """
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
                    record = try_read_record(self._folders, self._below_outputs(path))
                    # Leave out a record that another job's has replaced.
                    if record is not None and record.job_id == job_id:
                        entries.append(self._entry(record, path))
                summary = self._pages.extend(summary, entries)
                self._pages.commit(summary)
            self._edition = summary.edition
            self._caught_up = set(missing)

    def rebuild(self, progress: Callable[[int], None] = lambda _done: None) -> Summary:
        """Build the gallery again from outputs/, and return its summary.

        Args:
            progress: Called with the number of results read so far, after each.

        Raises:
            FluxdropError: The file index.html is not the gallery's.
            OSError: The files cannot be written.
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
            picture = str(PurePosixPath(below).with_suffix(image_suffix(record)))
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
                # Users cannot tell what a relative path, or none, refers to.
                if not Path(str(error.filename or "")).is_absolute():
                    error.filename = str(self._root.outputs / GALLERY)
                raise
            finally:
                self._folders.close()


def page_of(root: Root) -> Path:
    """Return the path of the gallery's page."""
    return root.outputs / INDEX_NAME
