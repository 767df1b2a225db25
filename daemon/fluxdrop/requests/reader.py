"""The daemon's side of .fluxdrop/requests/: whoever may write there can have jobs done again, cancel
them and choose among the installed models, and nothing else.

Only files of the right name, size and form are acted on; of a replay no file of the asker's enters
work/. The rest is set aside in .fluxdrop/refused/.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from fluxdrop import failpoints
from fluxdrop.config import choose_model
from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.files.layout import Root
from fluxdrop.files.regular import is_its_own
from fluxdrop.files.transient import is_full, is_transient
from fluxdrop.jobs.claim import NewJob
from fluxdrop.jobs.store import Store
from fluxdrop.logs import get_logger
from fluxdrop.predict.bundle import installed_folder
from fluxdrop.printable import printable
from fluxdrop.requests.messages import (
    SUFFIX,
    Answer,
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

_MOST = 4096
"""Of each user, and of all users' answers."""
_MOST_PUT_OFF = 65_536
# Of prompts and of pictures; made together, they wait for the disk once.
_MOST_MADE_AT_ONCE = {True: 4, False: 32}
_MOST_ANSWERS = 4096
_ANSWER_SECONDS = 600.0
_LOOK_SECONDS = 1.0
_MAKING = ".making-"

Told = Callable[[FluxdropError | None], None]
"""Told how it went."""


class Requests:
    """Takes what lies in requests/ and answers it; new jobs go to *accept*, as many as
    *room* allows, each of a file of at most *most_bytes*; *use* changes the model, *cancel* ends jobs.
    *use* tells later how it went; where that raises OSError, it tells again.

    Owned by the main loop.
    """

    def __init__(
        self,
        root: Root,
        store: Store,
        *,
        accept: Callable[[NewJob], None],
        room: Callable[[bool], bool],
        most_bytes: Callable[[], int],
        use: Callable[[str, Told], None],
        cancel: Callable[[list[str]], None],
    ) -> None:
        self._root = root
        self._store = store
        self._accept = accept
        self._room = room
        self._most_bytes = most_bytes
        self._use = use
        self._cancel = cancel
        # As in the inbox, prompts and pictures queue apart.
        self._replays: dict[bool, deque[tuple[str, ReplayRequest]]] = {
            True: deque(),
            False: deque(),
        }
        self._wanted: tuple[str, list[str]] | None = None
        """The model that was asked for last, and the ids of the requests for it."""
        self._changing = False
        """Whether *use* has not told yet how it went: one change of the model at a time."""
        self._known: set[str] = set()
        """The ids of all that waits."""
        self._users: dict[str, int] = {}
        """Who asked for each replay that waits."""
        self._waiting: Counter[int] = Counter()
        """How many replays of each user wait."""
        self._put_off: dict[str, int] = {}
        """The ids of replays for which their users have no room, with the users."""
        self._unread = 0
        self._files = RequestFiles(root.requests)
        self._refused = Refused(root.refused)
        self._stuck: set[str] = set()
        """The names of what can neither be acted on nor moved away."""
        self._answered: deque[tuple[float, str]] = deque()
        self._unwritten: deque[tuple[str, FluxdropError | None]] = deque(maxlen=_MOST)
        """Answers that a full disk did not take."""
        self._next_look = 0.0
        for path in root.work.glob(f"{_MAKING}*"):
            durable.remove_tree(path)
        # Who asked an earlier daemon knows that it ended.
        durable.empty_tree(root.answers)

    def __len__(self) -> int:
        return len(self._known) + len(self._put_off) + self._unread

    def step(self) -> None:
        """Do what there is to do and room for. Raises OSError where a disk is in the way; a later step does
        the rest.
        """
        held_up: list[Exception] = []
        parts: list[Callable[[], None]] = [
            self._write_answers,
            self._look_when_due,
            self._change_model,
            *(partial(self._make_jobs, *each) for each in self._replays.items()),
            self._forget_answers,
        ]
        for work in parts:
            try:
                work()
            except Exception as error:
                # What is in the way of one part is not always in that of the next.
                held_up.append(error)
        if held_up:
            raise held_up[0]

    def _look_when_due(self) -> None:
        now = time.monotonic()
        if now >= self._next_look or self._unread or not self._known:
            self._next_look = now + _LOOK_SECONDS
            self._look()

    def _look(self) -> None:
        """Take up what is new, and after that set aside what is odd."""
        self._put_off = {
            name: user for name, user in self._put_off.items() if self._waiting[user] > _MOST // 2
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
            for name in found.odd:
                self._set_aside(name, "its name is not that of a request")
        finally:
            self._refused.forget_old()
        if held_up:
            raise held_up[0]

    def _take_up(self, request_id: str, user: int) -> None:
        try:
            request = read_request(self._root, request_id)
        except FluxdropError as error:
            if self._set_aside(f"{request_id}{SUFFIX}", error.message):
                self._answer(request_id, error)
            return
        match request:
            case CancelRequest(job_ids):
                self._cancel(job_ids)
                self._answer(request_id, None)
                self._forget(request_id)
            case ModelRequest(name):
                self._take_up_model(request_id, name)
            case ReplayRequest():
                self._take_up_replay(request_id, user, request)

    def _refuse_defect(self, request_id: str, error: Exception) -> None:
        """*error*, which nobody foresaw, is the end of this request alone."""
        log.error("defect", where="requests", request=request_id, reason=str(error), exc_info=error)
        refused = FluxdropError(
            f"fluxdrop failed over this request: {type(error).__name__}",
            hint="This is a defect of fluxdrop; the log has the traceback.",
            kind="internal",
        )
        self._answer(request_id, refused)
        self._forget(request_id)

    def _take_up_model(self, request_id: str, name: str) -> None:
        """The model that is asked for last is used; whoever asked for another one before is told."""
        try:
            installed_folder(name, self._root.models)
        except FluxdropError as error:
            log.error("the model stays as it was", wanted=printable(name), reason=error.message)
            self._answer(request_id, error)
            self._forget(request_id)
            return
        if self._wanted is None or self._wanted[0] != name or len(self._wanted[1]) >= _MOST:
            before = self._wanted[1] if self._wanted is not None else []
            self._wanted = (name, [])
            later = FluxdropError(f"A later request asked for the model {name}", kind="superseded")
            for earlier in before:
                self._answer(earlier, later)
                self._forget(earlier)
        self._wanted[1].append(request_id)
        self._known.add(request_id)

    def _take_up_replay(self, request_id: str, user: int, request: ReplayRequest) -> None:
        if self._store.get(request_id) is not None or (self._root.work / request_id).exists():
            # An earlier run made the job, or has done it, and a kill or a power cut left the request.
            durable.sync_folder(self._root.work)
            self._forget(request_id)
            return
        if self._waiting[user] >= _MOST:
            if len(self._put_off) < _MOST_PUT_OFF:
                self._put_off[request_id] = user
            return
        row = self._store.get(request.job_id)
        is_prompt = row is not None and row.kind == "prompt" and request.start == "generate"
        self._known.add(request_id)
        self._users[request_id] = user
        self._waiting[user] += 1
        self._replays[is_prompt].append((request_id, request))

    def _change_model(self) -> None:
        if self._wanted is None or self._changing:
            return
        name, asked = self._wanted
        failpoints.reach("order-read")
        self._changing = True
        self._use(name, partial(self._model_changed, asked, name))
        self._wanted = None
        for request_id in asked:
            self._forget(request_id)
        failpoints.reach("order-taken")

    def _model_changed(self, asked: list[str], name: str, error: FluxdropError | None) -> None:
        if error is None:
            choose_model(self._root, name)
            failpoints.reach("model-chosen")
        for request_id in asked:
            self._write_answer(request_id, error)
        if error is None:
            log.info("model changed", model=name)
        else:
            log.error("the model stays as it was", wanted=name, reason=error.message)
        self._changing = False

    def _make_jobs(self, is_prompt: bool, waiting: deque[tuple[str, ReplayRequest]]) -> None:
        """Make the jobs of those that *waiting* has room for: whole under a name that is no job's, then
        by one rename; after a kill or an error anywhere, doing it again ends in the same jobs.
        """
        batch: list[tuple[str, ReplayRequest]] = []
        while waiting and len(batch) < _MOST_MADE_AT_ONCE[is_prompt] and self._room(is_prompt):
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
                # It may be this one's alone.
                held_up.append(error)
                batch.remove((key, request))
                waiting.append((key, request))
        try:
            files = [path for files in made.values() for path in files]
            durable.sync_all(files, [self._making(request_id) for request_id in made])
            for request_id in made:
                failpoints.reach("request-made")
                self._making(request_id).rename(self._root.work / request_id)
                failpoints.reach("request-renamed")
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
        """Make the job's folder under a name that is no job's; the files in it, none of them synced.
        Nothing where the job is there already, or is refused.
        """
        if (self._root.work / request_id).exists():
            return []
        making = self._making(request_id)
        durable.remove_tree(making)
        try:
            row = self._store.get(request.job_id)
            if row is None:
                raise FluxdropError(f"There is no job {request.job_id}", kind="unknown-job")
            if request.model is not None:
                installed_folder(request.model, self._root.models)
            replay = plan_replay(self._root, row, start=request.start, model=request.model)
            return build_replay(self._root, replay, making, self._most_bytes())
        except FluxdropError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and is_transient(cause) and not is_its_own(cause):
                raise cause from error
            refused = error
        except OSError as error:
            if is_transient(error) and not is_its_own(error):
                raise
            reason = f"{error.filename} cannot be written: {error.strerror}"
            refused = FluxdropError(reason, kind="replay")
        except Exception as error:
            self._refuse_defect(request_id, error)
            durable.remove_tree(making)
            return []
        durable.remove_tree(making)
        log.warning("request refused", request=request_id, reason=refused.message)
        self._answer(request_id, refused)
        return []

    def _making(self, request_id: str) -> Path:
        return self._root.work / f"{_MAKING}{request_id}"

    def _forget(self, request_id: str) -> None:
        self._known.discard(request_id)
        user = self._users.pop(request_id, None)
        if user is not None:
            self._waiting[user] -= 1
        try:
            forget_request(self._root, request_id)
        except OSError as error:
            self._leave(f"{request_id}{SUFFIX}", f"it cannot be removed: {error.strerror}")

    def _set_aside(self, name: str, reason: str) -> bool:
        """Move *name* out of requests/ and say why; False when it is gone."""
        try:
            kept = self._refused.take(self._root.requests / name)
        except FileNotFoundError:
            return False
        except OSError as error:
            if is_full(error):
                raise
            # Nobody moves a folder whose own .. may not be changed; if it is empty, it can go.
            try:
                (self._root.requests / name).rmdir()
            except OSError:
                self._leave(name, f"{reason} It cannot be moved away: {error.strerror}")
                return True
        log.warning("request set aside", file=printable(name), to=kept, reason=reason)
        return True

    def _leave(self, name: str, reason: str) -> None:
        if len(self._stuck) < _MOST:
            self._stuck.add(name)
            log.warning("request left alone", file=printable(name), reason=reason)

    def _answer(self, request_id: str, error: FluxdropError | None) -> None:
        try:
            self._write_answer(request_id, error)
        except OSError:
            self._unwritten.append((request_id, error))

    def _write_answers(self) -> None:
        while self._unwritten:
            self._write_answer(*self._unwritten[0])
            self._unwritten.popleft()

    def _write_answer(self, request_id: str, error: FluxdropError | None) -> None:
        # A path in it may have a name that is no UTF-8.
        told = (error.kind, printable(error.message), printable(error.hint)) if error else ()
        path = self._root.answers / f"{request_id}.json"
        durable.write(path, msgspec.json.encode(Answer(*told)), sync=False)
        self._answered.append((time.monotonic(), request_id))
        failpoints.reach("order-answered")

    def _forget_answers(self) -> None:
        old = time.monotonic() - _ANSWER_SECONDS
        while self._answered and (
            self._answered[0][0] < old or len(self._answered) > _MOST_ANSWERS
        ):
            _, request_id = self._answered.popleft()
            (self._root.answers / f"{request_id}.json").unlink(missing_ok=True)
