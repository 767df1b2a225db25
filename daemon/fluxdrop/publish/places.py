"""The folders of a root in which files get their names; somebody else may close those below the tops."""

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
"""In .fluxdrop/: inputs of failed jobs that outputs/, on another filesystem, cannot take."""

_MOST_OPEN = 64
_MOST_SOURCES = 8
_ALL = os.R_OK | os.W_OK | os.X_OK


class Places:
    """The open folders of *root*, all of them known by paths below the root. One thread has them."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._has_few = False
        self._folders = self._opened(_MOST_OPEN)

    def _opened(self, most: int) -> dict[str, Folders]:
        root = self._root
        return {
            root.outputs.name: root.open_outputs(most),
            root.generated.name: Folders(root.generated, most),
            root.preprocessed.name: Folders(root.preprocessed, most),
            root.state.name: Folders(root.state, 1, lambda folder: folder == KEPT),
        }

    def fd(self, path: str, *, make: bool = False) -> int:
        """The open folder *path*, until the next call. Raises as `Folders.fd`."""
        top, _, folder = path.partition("/")
        return self._folders[top].fd(folder, make=make)

    def close(self) -> None:
        """Keep no folder open for long: somebody may move it elsewhere."""
        for folders in self._folders.values():
            folders.close()

    def open_fewer(self) -> bool:
        """Keep one folder open at a time from now on, as this process may open too few files; False where that was
        so already."""
        self.close()
        had_few, self._has_few = self._has_few, True
        self._folders = self._opened(1)
        return not had_few

    def make(self, paths: Iterable[str]) -> None:
        """Make those of the folders *paths* that are missing. Raises as `Folders.fd`."""
        self.close()
        for path in sorted(paths):
            self.fd(path, make=True)

    def sync(self, paths: Iterable[str]) -> None:
        """Wait until the names in the folders *paths* are on the disk. Raises OSError."""
        for path in sorted(paths):
            # Who moved or closed it meanwhile has the files.
            with suppress(FileNotFoundError, NotADirectoryError):
                try:
                    durable.sync_open_folder(self.fd(path))
                except PermissionError:
                    self.check_tops()

    def sync_sources(self, sources: Iterable[str]) -> None:
        """Wait until it is on the disk that the files *sources*, paths below the inbox, are not there any more: after
        a power cut btrfs would show one there again whose result lies in outputs/. Raises OSError."""
        with closing(Folders(self._root.inbox, _MOST_SOURCES)) as inbox:
            for folder in sorted({source.rpartition("/")[0] for source in sources}):
                with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                    durable.sync_open_folder(inbox.fd(folder))

    def sweep(self, path: str) -> None:
        """Remove what a killed daemon left half copied in the folder *path*. Raises OSError."""
        with suppress(FileNotFoundError, NotADirectoryError):
            try:
                durable.sweep(self.fd(path))
            except PermissionError:
                self.check_tops()

    def is_blocked(self, path: str) -> bool:
        """Whether something else than a folder, or one that is closed to the daemon, has the *path*."""
        full = f"{self._root.path}/{path}"
        try:
            is_folder = stat.S_ISDIR(os.lstat(full).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except PermissionError:
            return True
        return not (is_folder and os.access(full, _ALL))

    def check_tops(self) -> None:
        """Raises PermissionError for one of the top folders that is closed to the daemon, which holds up all jobs
        until somebody mends it; a folder below them is the matter of the jobs that go there."""
        root = self._root
        for path in (root.outputs, root.generated, root.preprocessed, root.state, root.work):
            if not os.access(path, _ALL):
                os.close(os.open(path, os.O_RDONLY | os.O_DIRECTORY))
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    def clear_failed(self) -> None:
        """Move a folder of somebody else's that has the name of outputs/failed/ and is closed to the daemon aside,
        for the next one to be made. Raises OSError."""
        failed = self._root.failed
        path = f"{self._root.outputs.name}/{FAILED}"
        if self.is_blocked(path) and failed.lstat().st_uid != os.geteuid():
            self.close()
            aside = set_aside(FAILED, self.fd(self._root.outputs.name))
            log.warning(
                "moved aside", path=str(failed), to=aside, reason="it is closed to the daemon"
            )


def above(path: str) -> Iterator[str]:
    """The folders that *path* lies in, the nearest first."""
    while path := path.rpartition("/")[0]:
        yield path
