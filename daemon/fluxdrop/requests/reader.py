"""The daemon's side of .fluxdrop/requests/: read requests, act on them and answer.

Whoever may write there can have jobs done again, cancel them and choose among the installed models, and nothing else.
Only files of the right name, size and form are acted on, and no file of the requester's enters work/. Everything else
is moved to .fluxdrop/refused/.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

from fluxdrop import failpoints
from fluxdrop.config import choose_model
from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.files.layout import REQUEST_SUFFIX, Root
from fluxdrop.files.regular import is_file_error
from fluxdrop.files.transient import is_full, is_transient
from fluxdrop.jobs.claim import NewJob
from fluxdrop.jobs.store import Store
from fluxdrop.logs import get_logger
from fluxdrop.predict.bundle import installed_folder
from fluxdrop.printable import printable
from fluxdrop.requests.answers import Answers
from fluxdrop.requests.messages import (
    CancelRequest,
    ModelRequest,
    ReplayRequest,
    forget_request,
    read_request,
)
from fluxdrop.requests.refused import Refused
from fluxdrop.requests.replay import build_replay, plan_replay
from fluxdrop.requests.request_files import RequestFiles

log = get_logger("fluxdrop.daemon")

_MAX_WAITING = 4096
"""The most replays of one user that wait, requests that wait for one model, and files that are ignored."""
_MAX_PUT_OFF = 65_536
# By whether they are prompts. The jobs of a batch wait for the disk together.
_MAX_BATCH = {True: 4, False: 32}
_POLL_SECONDS = 1.0
_UNFINISHED = ".making-"

OnDone = Callable[[FluxdropError | None], None]
"""Called with the error when something was done, or None."""


class Requests:
    """Acts on the requests in .fluxdrop/requests/ and answers them. Owned by the main loop."""

    def __init__(
        self,
        root: Root,
        store: Store,
        *,
        accept: Callable[[NewJob], None],
        room: Callable[[bool], bool],
        max_bytes: Callable[[], int],
        use: Callable[[str, OnDone], None],
        cancel: Callable[[list[str]], None],
    ) -> None:
        """Remove what an earlier daemon left: unfinished folders and its answers. Raises OSError.

        Args:
            root: The root.
            store: Its index.
            accept: Takes each new job.
            room: Returns whether one more job may be made, for a prompt (True) or a picture (False).
            max_bytes: Returns the largest input that is copied.
            use: Changes the model to one of this name and calls back when that is done; where the callback raises
                OSError, it calls it again later.
            cancel: Cancels the jobs of these ids.
        """
        self._root = root
        self._store = store
        self._accept = accept
        self._room = room
        self._max_bytes = max_bytes
        self._use = use
        self._cancel = cancel
        # Prompts (True) and pictures (False) queue apart, as in the inbox.
        self._replays: dict[bool, deque[tuple[str, ReplayRequest]]] = {
            True: deque(),
            False: deque(),
        }
        self._wanted: tuple[str, list[str]] | None = None
        """The model of the latest request for one, and the ids of the requests for it."""
        self._changing = False
        """Whether *use* has not called back yet: the model is changed once at a time."""
        self._known: set[str] = set()
        """The ids of all requests that wait."""
        self._users: dict[str, int] = {}
        """The user of each replay that waits, by its id."""
        self._waiting: Counter[int] = Counter()
        """How many replays of each user wait."""
        self._put_off: dict[str, int] = {}
        """The users of replays that are read again when fewer of that user wait, by their ids."""
        self._unread = 0
        self._files = RequestFiles(root.requests)
        self._refused = Refused(root.refused)
        self._stuck: set[str] = set()
        """The names of files that can neither be acted on nor moved away."""
        self._answers = Answers(root.answers)
        self._next_look = 0.0
        for path in root.work.glob(f"{_UNFINISHED}*"):
            durable.remove_tree(path)

    def __len__(self) -> int:
        """Return how many requests wait."""
        return len(self._known) + len(self._put_off) + self._unread

    def step(self) -> None:
        """Do what there is to do and room for.

        Raises:
            OSError: A disk is full or not available; the next call does the rest.
        """
        held_up: list[Exception] = []
        parts: list[Callable[[], None]] = [
            self._answers.write_pending,
            self._look_when_due,
            self._change_model,
            *(partial(self._make_jobs, *each) for each in self._replays.items()),
            self._answers.forget_old,
        ]
        for work in parts:
            try:
                work()
            except Exception as error:
                # What holds up one part need not hold up the next.
                held_up.append(error)
        if held_up:
            raise held_up[0]

    def _look_when_due(self) -> None:
        """Call `_look` once a second; at once if more requests are there, or if none waits. Raises OSError."""
        now = time.monotonic()
        if now >= self._next_look or self._unread or not self._known:
            self._next_look = now + _POLL_SECONDS
            self._look()

    def _look(self) -> None:
        """Read the new requests, then set aside the files that are not requests. Raises OSError."""
        self._put_off = {
            name: user
            for name, user in self._put_off.items()
            if self._waiting[user] > _MAX_WAITING // 2
        }
        found = self._files.look(
            lambda name: name in self._known or name in self._put_off, self._stuck.__contains__
        )
        self._unread = found.more
        held_up: list[OSError] = []
        for request_id, user in found.new:
            try:
                self._take_up(request_id, user)
            except OSError as error:
                held_up.append(error)
            except Exception as error:
                self._refuse_defect(request_id, error)
        try:
            for name in found.unexpected:
                self._set_aside(name, "its name is not that of a request")
        finally:
            self._refused.forget_old()
        if held_up:
            raise held_up[0]

    def _take_up(self, request_id: str, user: int) -> None:
        """Read the request *request_id* of the *user*, and act on it or queue it. Raises OSError."""
        try:
            request = read_request(self._root, request_id)
        except FluxdropError as error:
            if self._set_aside(f"{request_id}{REQUEST_SUFFIX}", error.message):
                self._answers.write_or_keep(request_id, error)
            return
        match request:
            case CancelRequest(job_ids):
                self._cancel(job_ids)
                self._answers.write_or_keep(request_id, None)
                self._forget(request_id)
            case ModelRequest(name):
                self._take_up_model(request_id, name)
            case ReplayRequest():
                self._take_up_replay(request_id, user, request)

    def _refuse_defect(self, request_id: str, error: Exception) -> None:
        """Refuse the request because of *error*, an unexpected one, which is to hold up no other request."""
        log.error("defect", where="requests", request=request_id, reason=str(error), exc_info=error)
        refused = FluxdropError(
            f"fluxdrop failed on this request: {type(error).__name__}",
            hint="This is a defect of fluxdrop; the log has the traceback.",
            kind="internal",
        )
        self._answers.write_or_keep(request_id, refused)
        self._forget(request_id)

    def _take_up_model(self, request_id: str, name: str) -> None:
        """Queue a request for the model *name*; refuse those for another one that still wait."""
        try:
            installed_folder(name, self._root.models)
        except FluxdropError as error:
            log.error("the model stays as it was", wanted=printable(name), reason=error.message)
            self._answers.write_or_keep(request_id, error)
            self._forget(request_id)
            return
        if self._wanted is None or self._wanted[0] != name or len(self._wanted[1]) >= _MAX_WAITING:
            before = self._wanted[1] if self._wanted is not None else []
            self._wanted = (name, [])
            later = FluxdropError(f"A later request asked for the model {name}", kind="superseded")
            for earlier in before:
                self._answers.write_or_keep(earlier, later)
                self._forget(earlier)
        self._wanted[1].append(request_id)
        self._known.add(request_id)

    def _take_up_replay(self, request_id: str, user: int, request: ReplayRequest) -> None:
        """Queue a replay, or put it off where too many of the *user* wait. Raises OSError."""
        if self._store.get(request_id) is not None or (self._root.work / request_id).exists():
            # An earlier daemon made the job and may have done it; a kill or a power cut left the request.
            durable.sync_folder(self._root.work)
            self._forget(request_id)
            return
        if self._waiting[user] >= _MAX_WAITING:
            if len(self._put_off) < _MAX_PUT_OFF:
                self._put_off[request_id] = user
            return
        row = self._store.get(request.job_id)
        is_prompt = row is not None and row.kind == "prompt" and request.start == "generate"
        self._known.add(request_id)
        self._users[request_id] = user
        self._waiting[user] += 1
        self._replays[is_prompt].append((request_id, request))

    def _change_model(self) -> None:
        """Begin to change to the model that was asked for last, if none is being changed to."""
        if self._wanted is None or self._changing:
            return
        name, asked = self._wanted
        failpoints.reach("request-read")
        self._changing = True
        self._use(name, partial(self._model_changed, asked, name))
        self._wanted = None
        for request_id in asked:
            self._forget(request_id)
        failpoints.reach("request-taken")

    def _model_changed(self, asked: list[str], name: str, error: FluxdropError | None) -> None:
        """Answer the requests *asked* for the model *name*, which is in use unless there is an *error*.

        Raises:
            OSError: The disk is full or not available; it may be called again.
        """
        if error is None:
            choose_model(self._root, name)
            failpoints.reach("model-chosen")
        for request_id in asked:
            self._answers.write(request_id, error)
        if error is None:
            log.info("model changed", model=name)
        else:
            log.error("the model stays as it was", wanted=name, reason=error.message)
        self._changing = False

    def _make_jobs(self, is_prompt: bool, waiting: deque[tuple[str, ReplayRequest]]) -> None:
        """Make the jobs of those in *waiting* for which there is room.

        Each is made whole under a name that no job has, then renamed once. After a kill or an error anywhere, doing it
        again ends in the same jobs. Raises OSError.
        """
        batch: list[tuple[str, ReplayRequest]] = []
        while waiting and len(batch) < _MAX_BATCH[is_prompt] and self._room(is_prompt):
            batch.append(waiting.popleft())
        if not batch:
            return
        held_up: list[OSError] = []
        made: dict[str, list[Path]] = {}
        for key, request in [*batch]:
            try:
                if files := self._make(key, request):
                    made[key] = files
            except OSError as error:
                # The error may concern this one alone.
                held_up.append(error)
                batch.remove((key, request))
                waiting.append((key, request))
        try:
            files = [path for files in made.values() for path in files]
            durable.sync_all(files, [self._unfinished(request_id) for request_id in made])
            for request_id in made:
                failpoints.reach("replay-made")
                self._unfinished(request_id).rename(self._root.work / request_id)
                failpoints.reach("replay-renamed")
            durable.sync_folder(self._root.work)
        except OSError:
            waiting.extendleft(reversed(batch))
            raise
        for request_id, _ in batch:
            if (self._root.work / request_id).is_dir():
                self._accept(NewJob(self._root.work / request_id))
            self._forget(request_id)
        if held_up:
            raise held_up[0]

    def _make(self, request_id: str, request: ReplayRequest) -> list[Path]:
        """Make the job's folder under a name that no job has.

        Returns:
            The files in it, none of them synced; none where the job exists already, or the request was refused.

        Raises:
            OSError: The disk is full or not available, for other requests as well.
        """
        if (self._root.work / request_id).exists():
            return []
        unfinished = self._unfinished(request_id)
        durable.remove_tree(unfinished)
        try:
            row = self._store.get(request.job_id)
            if row is None:
                raise FluxdropError(f"There is no job {request.job_id}", kind="no-job")
            if request.model is not None:
                installed_folder(request.model, self._root.models)
            replay = plan_replay(self._root, row, start=request.start, model=request.model)
            return build_replay(self._root, replay, unfinished, self._max_bytes())
        except FluxdropError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and is_transient(cause) and not is_file_error(cause):
                raise cause from error
            refused = error
        except OSError as error:
            if is_transient(error) and not is_file_error(error):
                raise
            reason = f"{error.filename} cannot be written: {error.strerror}"
            refused = FluxdropError(reason, kind="replay")
        except Exception as error:
            self._refuse_defect(request_id, error)
            durable.remove_tree(unfinished)
            return []
        durable.remove_tree(unfinished)
        log.warning("request refused", request=request_id, reason=refused.message)
        self._answers.write_or_keep(request_id, refused)
        return []

    def _unfinished(self, request_id: str) -> Path:
        """Return the folder of a job while it is being made."""
        return self._root.work / f"{_UNFINISHED}{request_id}"

    def _forget(self, request_id: str) -> None:
        """Remove the request, which was acted on or refused; ignore its file from now on if it cannot be removed."""
        self._known.discard(request_id)
        user = self._users.pop(request_id, None)
        if user is not None:
            self._waiting[user] -= 1
        try:
            forget_request(self._root, request_id)
        except OSError as error:
            self._ignore(f"{request_id}{REQUEST_SUFFIX}", f"it cannot be removed: {error.strerror}")

    def _set_aside(self, name: str, reason: str) -> bool:
        """Move *name* to refused/ and log the *reason*.

        Returns:
            False if it is gone.

        Raises:
            OSError: The disk is full.
        """
        try:
            kept = self._refused.take(self._root.requests / name)
        except FileNotFoundError:
            return False
        except OSError as error:
            if is_full(error):
                raise
            # A folder that may not be written cannot be moved, as its .. would change; if it is empty, remove it.
            try:
                (self._root.requests / name).rmdir()
            except OSError:
                self._ignore(name, f"{reason} It cannot be moved away: {error.strerror}")
                return True
        log.warning("request set aside", file=printable(name), to=kept, reason=reason)
        return True

    def _ignore(self, name: str, reason: str) -> None:
        """Leave *name* in requests/, ignore it from now on and log the *reason*."""
        if len(self._stuck) < _MAX_WAITING:
            self._stuck.add(name)
            log.warning("request left alone", file=printable(name), reason=reason)
