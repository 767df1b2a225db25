"""The folders of a root into which files are published.

Those below the top folders may belong to somebody else, who may close them to the daemon.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress

from fluxdrop.files import durable
from fluxdrop.files.folders import Folders, set_aside
from fluxdrop.files.layout import FAILED, Root
from fluxdrop.logs import get_logger

log = get_logger("fluxdrop.publish")

KEPT = "kept"
"""The folder in .fluxdrop/ for inputs of failed jobs that cannot be copied to outputs/ on another filesystem."""

_MAX_OPEN = 64
_MAX_OPEN_SOURCES = 8
_ACCESS = os.R_OK | os.W_OK | os.X_OK


class Places:
    """The open folders of *root*, each named by its path below the root. One thread owns them."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._is_limited = False
        self._folders = self._opened(_MAX_OPEN)

    def _opened(self, max_open: int) -> dict[str, Folders]:
        """Return the top folders by their names; below each, *max_open* folders stay open."""
        root = self._root
        return {
            root.outputs.name: root.open_outputs(max_open),
            root.generated.name: Folders(root.generated, max_open),
            root.preprocessed.name: Folders(root.preprocessed, max_open),
            root.state.name: Folders(root.state, 1, lambda folder: folder == KEPT),
        }

    def fd(self, path: str, *, make: bool = False) -> int:
        """Return the descriptor of the folder *path*, open until the next call. Raises what `Folders.fd` does."""
        top, _, folder = path.partition("/")
        return self._folders[top].fd(folder, make=make)

    def close(self) -> None:
        """Close all folders; they are opened again when they are needed.

        None stays open for long, as somebody may move it elsewhere.
        """
        for folders in self._folders.values():
            folders.close()

    def limit_open(self) -> bool:
        """Keep one folder open at a time from now on, as this process may open few files only.

        Returns:
            False if that was so already.
        """
        self.close()
        was_limited, self._is_limited = self._is_limited, True
        self._folders = self._opened(1)
        return not was_limited

    def make(self, paths: Iterable[str]) -> None:
        """Make those of the folders *paths* that are missing. Raises what `Folders.fd` does."""
        self.close()
        for path in sorted(paths):
            self.fd(path, make=True)

    def sync(self, paths: Iterable[str]) -> None:
        """Sync the folders *paths*, so that the names in them are on the disk. Raises OSError."""
        for path in sorted(paths):
            # Whoever moved or closed one meanwhile is responsible for the files in it.
            with suppress(FileNotFoundError, NotADirectoryError):
                try:
                    durable.sync_open_folder(self.fd(path))
                except PermissionError:
                    self.check_top_folders()

    def sync_sources(self, sources: Iterable[str]) -> None:
        """Sync the folders of the inbox from which *sources*, paths below it, were claimed. Raises OSError.

        Without this, btrfs can show a file there again after a power cut, although its result lies in outputs/.
        """
        with closing(Folders(self._root.inbox, _MAX_OPEN_SOURCES)) as inbox:
            for folder in sorted({source.rpartition("/")[0] for source in sources}):
                with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                    durable.sync_open_folder(inbox.fd(folder))

    def sweep(self, path: str) -> None:
        """Remove the temporary files that a killed daemon left in the folder *path*. Raises OSError."""
        with suppress(FileNotFoundError, NotADirectoryError):
            try:
                durable.sweep(self.fd(path))
            except PermissionError:
                self.check_top_folders()

    def is_blocked(self, path: str) -> bool:
        """Return whether *path* is something other than a folder, or a folder that is closed to the daemon."""
        full = f"{self._root.path}/{path}"
        try:
            is_folder = stat.S_ISDIR(os.lstat(full).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except PermissionError:
            return True
        return not (is_folder and os.access(full, _ACCESS))

    def check_top_folders(self) -> None:
        """Raise PermissionError if one of the top folders is closed to the daemon.

        That holds up all jobs until somebody opens it. A folder below them holds up only the jobs that go there.
        """
        root = self._root
        for path in (root.outputs, root.generated, root.preprocessed, root.state, root.work):
            if not os.access(path, _ACCESS):
                os.close(os.open(path, os.O_RDONLY | os.O_DIRECTORY))
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    def replace_closed_failed(self) -> None:
        """Move outputs/failed/ aside if it is somebody else's and closed to the daemon. Raises OSError.

        The next failure makes a new one.
        """
        failed = self._root.failed
        path = f"{self._root.outputs.name}/{FAILED}"
        if self.is_blocked(path) and failed.lstat().st_uid != os.geteuid():
            self.close()
            aside = set_aside(FAILED, self.fd(self._root.outputs.name))
            log.warning(
                "moved aside", path=str(failed), to=aside, reason="it is closed to the daemon"
            )


def above(path: str) -> Iterator[str]:
    """Yield the folders that *path* lies in, the nearest first."""
    while path := path.rpartition("/")[0]:
        yield path
