"""The layout of a root: its folders and files; find, create, check and lock a root."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import time
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.files.folders import STATE, Folders, opened
from fluxdrop.files.transient import AWAY, FULL, is_full, is_transient, remedy_of

FAILED = "failed"
"""The folder in outputs/ for failed jobs."""
BY_LABEL = "by-label"
"""The folder in outputs/ for pictures sorted by their labels."""
GALLERY = ".gallery"
"""The gallery's folder in outputs/. Hidden folders of the inbox are ignored, so no result gets its name."""
REQUEST_SUFFIX = ".request.json"
"""The end of a request's name in `Root.requests`; its id is the rest."""

_DATABASE = "jobs.sqlite3"
_FILES: tuple[str, ...] = (
    "lock",
    "plans.jsonl",
    "model",
    "daemon.json",
    "gallery.lock",
    "in-preprocess",
    "in-predict",
)
_FILES += (_DATABASE, *(f"{_DATABASE}-{kind}" for kind in ("wal", "shm", "journal")))
_LOCK_TRIES = 10
_LOCK_RETRY_SECONDS = 0.02


@dataclass(frozen=True)
class Root:
    """The folder that a daemon serves, and the paths below it. No property touches the disk."""

    path: Path

    @cached_property
    def inbox(self) -> Path:
        """Where people drop files."""
        return self.path / "inbox"

    @cached_property
    def generated(self) -> Path:
        """Every picture, generated or dropped."""
        return self.path / "generated_images"

    @cached_property
    def preprocessed(self) -> Path:
        """The tensors that the model got, and pictures of them."""
        return self.path / "preprocessed_images"

    @cached_property
    def outputs(self) -> Path:
        """The results, in the inbox's subfolders."""
        return self.path / "outputs"

    @cached_property
    def shared(self) -> tuple[Path, ...]:
        """The folders that people share. Everything else is the owner's."""
        return self.inbox, self.outputs, self.generated, self.preprocessed

    @cached_property
    def failed(self) -> Path:
        """The inputs of failed jobs, untouched, each with its error JSON."""
        return self.outputs / FAILED

    @cached_property
    def results_csv(self) -> Path:
        """The table of all results, where the setting ``results_csv`` asks for it."""
        return self.path / "results.csv"

    @cached_property
    def state(self) -> Path:
        """Fluxdrop's own files: index, claimed inputs, lock, logs."""
        return self.path / STATE

    @cached_property
    def work(self) -> Path:
        """Claimed inputs, one folder for each job."""
        return self.state / "work"

    @cached_property
    def plans(self) -> Path:
        """The names that were chosen for the results of jobs in work/."""
        return self.state / "plans.jsonl"

    @cached_property
    def spares(self) -> Path:
        """Emptied folders of ended jobs, to be used again (`fluxdrop.jobs.folder_pool`)."""
        return self.state / "spares"

    @cached_property
    def requests(self) -> Path:
        """Requests of commands to the daemon, one file each, moved in when complete."""
        return self.state / "requests"

    @cached_property
    def refused(self) -> Path:
        """Files from requests/ that are not requests, and folders of jobs whose input is not a file."""
        return self.state / "refused"

    @cached_property
    def logs(self) -> Path:
        """The daemon's own copy of its log."""
        return self.state / "logs"

    @cached_property
    def graphs(self) -> Path:
        """Compiled models, named by the digest of their source."""
        return self.state / "graphs"

    @cached_property
    def models(self) -> Path:
        """The model bundles that were added to this root."""
        return self.state / "models"

    @cached_property
    def model_in_use(self) -> Path:
        """The file with the name that ``fluxdrop model use`` chose."""
        return self.state / "model"

    @cached_property
    def answers(self) -> Path:
        """The daemon's answers to commands, one file each."""
        return self.state / "answers"

    @cached_property
    def database(self) -> Path:
        """The index of jobs."""
        return self.state / _DATABASE

    @cached_property
    def lock(self) -> Path:
        """The file that the daemon of this root locks with flock(2); it contains the daemon's pid."""
        return self.state / "lock"

    @cached_property
    def heartbeat(self) -> Path:
        """The state of the running daemon as JSON."""
        return self.state / "daemon.json"

    def create(self) -> None:
        """Create the folders that are missing. Raise FluxdropError if that is not possible."""
        folders = (
            self.path,
            self.state,
            self.inbox,
            self.generated,
            self.preprocessed,
            self.outputs,
            self.work,
            self.logs,
            self.graphs,
            self.models,
            self.answers,
        )
        try:
            self._refuse_links()
            for folder in folders:
                # With any umask, nobody else may write there: the daemon would refuse such a root.
                folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            # The owner decides whether others may leave requests (`fluxdrop init --group`).
            self.requests.mkdir(mode=0o700, exist_ok=True)
            with closing(self.open_outputs()) as below_outputs:
                below_outputs.fd(FAILED, make=True)
        except OSError as error:
            raise FluxdropError(
                f"{error.filename} cannot be made: {error.strerror}.",
                hint=remedy_of(error)
                if is_transient(error)
                else "Choose a folder that you may write to.",
                kind="root",
            ) from error

    def _refuse_links(self) -> None:
        """Raise FluxdropError if a file or folder in .fluxdrop/ is a symlink or of another type."""
        folders = [self.state, self.work, self.spares, self.requests, self.logs, self.graphs]
        folders += [self.models, self.answers, self.refused]
        files = [self.state / name for name in _FILES]
        files.append(self.logs / "fluxdrop.log")
        for path, is_right, what in (
            *((folder, stat.S_ISDIR, "folder") for folder in folders),
            *((file, stat.S_ISREG, "file") for file in files),
        ):
            with contextlib.suppress(FileNotFoundError):
                if not is_right(path.lstat().st_mode):
                    raise FluxdropError(
                        f"{path} has to be a {what} of fluxdrop's own, and is something else",
                        hint="Move it away; fluxdrop makes its own anew.",
                        kind="root",
                    )

    def open_outputs(self, max_open: int = 16) -> Folders:
        """Return a cache of at most *max_open* folders below outputs/, which follows no symlink.

        What has the name of failed/ or of the gallery's folders and is not the daemon's own is moved
        aside and logged.
        """
        return Folders(self.outputs, max_open, _is_ours, partial(_log_aside, self.outputs))

    def check(self) -> None:
        """Raise FluxdropError if no file can be renamed from inbox/ to work/, which a claim does."""
        # Device numbers do not tell: two mounts of one filesystem have the same, so this tries.
        try:
            with (
                opened(self.inbox) as inbox,
                opened(self.work) as work,
                durable.temporary(inbox) as (_file, name),
            ):
                os.rename(name, name, src_dir_fd=inbox, dst_dir_fd=work)
                os.unlink(name, dir_fd=work)
        except OSError as error:
            if error.errno in FULL | AWAY:
                where = self.inbox / str(error.filename or "")
                message = f"{where} cannot be written: {error.strerror}."
                raise FluxdropError(message, hint=remedy_of(error), kind="root") from error
            raise FluxdropError(
                f"A file dropped into {self.inbox} cannot be claimed by one rename to {self.work}:"
                f" {error.strerror}.",
                hint=f"The daemon has to be allowed to write to both, and the whole of {self.path}"
                " has to be one mounted filesystem; else choose another folder.",
                kind="root",
            ) from error

    def sweep(self) -> None:
        """Remove the temporary files that a killed daemon left in .fluxdrop/. Raise OSError."""
        for path in (self.state, self.answers):
            with opened(path) as folder:
                durable.sweep(folder)


def _is_ours(folder: str) -> bool:
    return folder == FAILED or folder.partition("/")[0] == GALLERY


def _log_aside(outputs: Path, old: str, new: str) -> None:
    # Imported here because it is slow, and most commands log nothing.
    import structlog

    log = structlog.stdlib.get_logger("fluxdrop.outputs")
    log.warning("moved aside, as it is not a folder of fluxdrop", path=str(outputs / old), to=new)


def find_root(given: Path | None, *, without_inbox: bool = False) -> Root:
    """Return the root of a command: *given*, else FLUXDROP_ROOT, else the working folder.

    Args:
        given: The folder of ``--root``.
        without_inbox: Accept a root whose inbox is missing.

    Raises:
        FluxdropError: The folder is not a root.
    """
    if given is None and os.environ.get("FLUXDROP_ROOT"):
        given = Path(os.environ["FLUXDROP_ROOT"])
    path = (given or Path.cwd()).absolute()
    root = Root(path)
    if not root.inbox.is_dir() and not (without_inbox and root.state.is_dir()):
        raise FluxdropError(
            f"{path} is not a fluxdrop root: it has no inbox/.",
            hint=f"Make one with: fluxdrop init {path}",
            kind="root",
        )
    return root


class RootLock:
    """The exclusive lock on a root, held until `close` or until the process ends in any way.

    Raises FluxdropError at construction: of kind ``locked`` if another daemon holds it, of kind
    ``root`` if the file cannot be locked.
    """

    def __init__(self, root: Root) -> None:
        self._path = root.lock
        try:
            self._file = os.fdopen(durable.open_private(root.lock), "r+")
        except OSError as error:
            raise _not_locked(root, error) from error
        try:
            self._lock()
            self._write_pid()
        except BlockingIOError as error:
            self._file.close()
            pid = holder(root) or "unknown"
            raise FluxdropError(
                f"{root.path} is already served by the daemon with pid {pid}.",
                hint="One daemon serves a root; stop that one first.",
                kind="locked",
            ) from error
        except OSError as error:
            self._file.close()
            raise _not_locked(root, error) from error

    def _write_pid(self) -> None:
        os.ftruncate(self._file.fileno(), 0)
        try:
            os.write(self._file.fileno(), f"{os.getpid()}\n".encode())
        except OSError as error:
            # On a full disk the lock works without the pid.
            if not is_full(error):
                raise

    def holds(self) -> bool:
        """Return whether the locked file is still at its path, neither gone nor replaced."""
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), os.lstat(self._path))
        except OSError:
            return False

    def close(self) -> None:
        """Release the lock."""
        self._file.close()

    def _lock(self) -> None:
        for _ in range(_LOCK_TRIES - 1):
            with contextlib.suppress(BlockingIOError):
                return fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # `holder` takes the lock for a moment, to see whether it is free.
            time.sleep(_LOCK_RETRY_SECONDS)
        return fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def holder(root: Root) -> int | None:
    """Return the pid of the daemon that serves *root*: None if there is none, 0 if the pid is unknown.

    A user who may not open the lock file gets the pid of the last heartbeat if such a process exists.
    """
    try:
        with os.fdopen(durable.open_own(root.lock, os.O_RDONLY)) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                text = file.read().strip()
                return int(text) if text.isdigit() else 0
    except PermissionError:
        return _pid_of_heartbeat(root)
    except OSError:
        pass
    return None


def _pid_of_heartbeat(root: Root) -> int | None:
    try:
        pid = int(json.loads(durable.read_own(root.heartbeat))["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        # The process exists and is another user's.
        pass
    return pid


def _not_locked(root: Root, error: OSError) -> FluxdropError:
    return FluxdropError(
        f"{root.lock} cannot be locked: {error.strerror}.", hint=remedy_of(error), kind="root"
    )
