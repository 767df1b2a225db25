"""The folders of a root, and how a root is found, made and checked."""

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
GALLERY = ".gallery"
"""Hidden, as results mirror the inbox's subfolders and no hidden one is ever taken from there."""

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
_LOCK_PAUSE_SECONDS = 0.02


@dataclass(frozen=True)
class Root:
    """One shared folder that a daemon serves; the paths below it, none of them opened."""

    path: Path

    @cached_property
    def inbox(self) -> Path:
        """What people drop."""
        return self.path / "inbox"

    @cached_property
    def generated(self) -> Path:
        """Every picture, generated or taken in."""
        return self.path / "generated_images"

    @cached_property
    def preprocessed(self) -> Path:
        """The tensors the model saw, and pictures of them."""
        return self.path / "preprocessed_images"

    @cached_property
    def outputs(self) -> Path:
        """The results, mirroring the inbox's subfolders."""
        return self.path / "outputs"

    @cached_property
    def shared(self) -> tuple[Path, ...]:
        """The folders that people share; all else is the owner's."""
        return self.inbox, self.outputs, self.generated, self.preprocessed

    @cached_property
    def failed(self) -> Path:
        """The untouched inputs that could not be done, each with its error JSON."""
        return self.outputs / FAILED

    @cached_property
    def state(self) -> Path:
        """What only fluxdrop reads: index, claimed inputs, lock, logs."""
        return self.path / STATE

    @cached_property
    def work(self) -> Path:
        """Claimed inputs, one folder a job."""
        return self.state / "work"

    @cached_property
    def plans(self) -> Path:
        """The names that were decided on for jobs in work/."""
        return self.state / "plans.jsonl"

    @cached_property
    def spares(self) -> Path:
        """What an older fluxdrop kept of folders of jobs that are done."""
        return self.state / "spares"

    @cached_property
    def requests(self) -> Path:
        """What commands ask of the daemon, one file each, moved in whole."""
        return self.state / "requests"

    @cached_property
    def refused(self) -> Path:
        """What lay in requests/ and is no request, and jobs' folders whose input is no file."""
        return self.state / "refused"

    @cached_property
    def logs(self) -> Path:
        """The daemon's own copy of its log."""
        return self.state / "logs"

    @cached_property
    def graphs(self) -> Path:
        """Compiled models, by the digest of their source."""
        return self.state / "graphs"

    @cached_property
    def models(self) -> Path:
        """The model bundles that were added to this root."""
        return self.state / "models"

    @cached_property
    def model_in_use(self) -> Path:
        """The name that ``fluxdrop model use`` chose."""
        return self.state / "model"

    @cached_property
    def answers(self) -> Path:
        """What the daemon answers to commands, one file each."""
        return self.state / "answers"

    @cached_property
    def database(self) -> Path:
        """The index of jobs."""
        return self.state / _DATABASE

    @cached_property
    def lock(self) -> Path:
        """Held with flock by the one daemon that serves this root; names its pid."""
        return self.state / "lock"

    @cached_property
    def heartbeat(self) -> Path:
        """What the running daemon says of itself."""
        return self.state / "daemon.json"

    def create(self) -> None:
        """Make the folders that are missing. Raises FluxdropError when that cannot be."""
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
                # Whatever the umask, nobody else may write there: else it would not be served.
                folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            # Whether anybody else may leave requests is the owner's to say (`fluxdrop init --group`).
            self.requests.mkdir(mode=0o700, exist_ok=True)
            with closing(self.open_outputs()) as below_outputs:
                below_outputs.fd(FAILED, make=True)
        except OSError as error:
            raise FluxdropError(
                f"{error.filename} cannot be made: {error.strerror}.",
                hint=remedy_of(error)
                if is_transient(error)
                else "Choose a folder you may write to with --root.",
                kind="root",
            ) from error

    def _refuse_links(self) -> None:
        """Nothing below .fluxdrop/ leads elsewhere. Raises FluxdropError."""
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

    def open_outputs(self, most: int = 16) -> Folders:
        """The folders below outputs/, to be opened without following a symlink; what is not ours and
        has the name of failed/ or of the gallery's folders is moved aside, which the log tells."""
        return Folders(self.outputs, most, _is_ours, partial(_log_aside, self.outputs))

    def check(self) -> None:
        """Refuse a root whose claims could not be one rename. Raises FluxdropError."""
        # Tried rather than told from device numbers: two mounts of one filesystem share theirs.
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
                " has to be one mounted filesystem; else choose another --root.",
                kind="root",
            ) from error

    def sweep(self) -> None:
        """Remove what a killed daemon left half written in .fluxdrop/. Raises OSError."""
        for path in (self.state, self.answers):
            with opened(path) as folder:
                durable.sweep(folder)


def _is_ours(folder: str) -> bool:
    return folder == FAILED or folder.partition("/")[0] == GALLERY


def _log_aside(outputs: Path, old: str, new: str) -> None:
    # Loading it takes long, for those who log nothing.
    import structlog

    log = structlog.stdlib.get_logger("fluxdrop.outputs")
    log.warning("moved aside, as it is no folder of ours", path=str(outputs / old), to=new)


def find_root(given: Path | None, *, without_inbox: bool = False) -> Root:
    """The root that a command means: *given*, else FLUXDROP_ROOT, else the working folder if it is
    a root. With *without_inbox*, one whose inbox is away is one still.

    Raises FluxdropError when there is none.
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
    """The right to serve a root; held until closed or until the process ends, however it ends."""

    def __init__(self, root: Root) -> None:
        self._path = root.lock
        try:
            self._file = os.fdopen(durable.open_private(root.lock), "r+")
        except OSError as error:
            raise _not_locked(root, error) from error
        try:
            self._lock()
            self._name_holder()
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

    def _name_holder(self) -> None:
        os.ftruncate(self._file.fileno(), 0)
        try:
            os.write(self._file.fileno(), f"{os.getpid()}\n".encode())
        except OSError as error:
            # The lock is as good on a full disk, where it cannot name its holder.
            if not is_full(error):
                raise

    def holds(self) -> bool:
        """Whether the lock file is still in its place, and not away or another daemon's."""
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), self._path.lstat())
        except OSError:
            return False

    def close(self) -> None:
        """Give the root up."""
        self._file.close()

    def _lock(self) -> None:
        for _ in range(_LOCK_TRIES - 1):
            with contextlib.suppress(BlockingIOError):
                return fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # `holder` takes the lock for an instant to see whether anybody has it.
            time.sleep(_LOCK_PAUSE_SECONDS)
        return fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def holder(root: Root) -> int | None:
    """The pid of the daemon that serves *root* now, or None; 0 where it cannot be told. Whoever may not open the
    lock goes by the daemon's last word, and by whether there is such a process.
    """
    try:
        with os.fdopen(durable.open_own(root.lock, os.O_RDONLY)) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                text = file.read().strip()
                return int(text) if text.isdigit() else 0
    except PermissionError:
        return _told_holder(root)
    except OSError:
        pass
    return None


def _told_holder(root: Root) -> int | None:
    try:
        pid = int(json.loads(durable.read_own(root.heartbeat))["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        # There is such a process, of another user's.
        pass
    return pid


def _not_locked(root: Root, error: OSError) -> FluxdropError:
    return FluxdropError(f"{root.lock} cannot be locked: {error.strerror}.", kind="root")
