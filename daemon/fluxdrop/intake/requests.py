"""The daemon's side of .fluxdrop/requests/: whoever may write there can have jobs done again, cancel
them and choose among the installed models, and nothing else.

Only files of the right name, size and form are acted on; of a replay no file of the asker's enters
work/. The rest is set aside in .fluxdrop/refused/.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from fluxdrop import durable, faults
from fluxdrop.config import choose_model
from fluxdrop.errors import FluxdropError
from fluxdrop.intake.claim import new_job_id
from fluxdrop.jobs.job import printable
from fluxdrop.jobs.regular import is_its_own
from fluxdrop.jobs.replay import build_replay, plan_replay
from fluxdrop.jobs.requests import (
    SUFFIX,
    Answer,
    CancelRequest,
    ModelRequest,
    ReplayRequest,
    forget_request,
    id_of,
    read_request,
)
from fluxdrop.jobs.store import Store
from fluxdrop.layout import Root
from fluxdrop.logs import get_logger
from fluxdrop.passing import is_full, is_passing
from fluxdrop.predict.bundle import installed_folder

log = get_logger("fluxdrop.daemon")

_MOST = 4096
_MOST_REFUSED_AT_ONCE = 64
# Of prompts and of pictures; made together, they wait for the disk once.
_MOST_MADE_AT_ONCE = {True: 4, False: 32}
_MOST_KEPT = 100
_MOST_ANSWERS = 4096
_ANSWER_SECONDS = 600.0
_LOOK_SECONDS = 1.0
_UNFINISHED_SECONDS = 3600.0
_MAKING = ".making-"

Told = Callable[[FluxdropError | None], None]
"""Told how it went."""


class Requests:
    """Takes what lies in requests/ and answers it; the folders of new jobs go to *accept*, as many as
    *room* allows, each of a file of at most *most_bytes*; *use* changes the model, *cancel* ends jobs.
    *use* tells later how it went; where that raises OSError, it tells again.

    Owned by the main loop.
    """

    def __init__(
        self,
        root: Root,
        store: Store,
        *,
        accept: Callable[[Path], None],
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
        self._models: deque[tuple[str, ModelRequest]] = deque()
        self._changing = False
        """Whether *use* has not told yet how it went: one change of the model at a time."""
        self._known: set[str] = set()
        """The ids of all that waits."""
        self._stuck: set[str] = set()
        """The names of what can neither be acted on nor moved away."""
        self._answered: deque[tuple[float, str]] = deque()
        self._unwritten: deque[tuple[str, FluxdropError | None]] = deque(maxlen=_MOST)
        """Answers that a full disk did not take."""
        self._next_look = 0.0
        for path in root.work.glob(f"{_MAKING}*"):
            durable.remove_tree(path)
        # Who asked an earlier daemon knows that it ended.
        for path in root.answers.iterdir():
            path.unlink()

    def __len__(self) -> int:
        return len(self._known)

    def step(self) -> None:
        """Do what there is to do and room for. Raises OSError where a disk is in the way; a later step does
        the rest.
        """
        while self._unwritten:
            self._write_answer(*self._unwritten[0])
            self._unwritten.popleft()
        now = time.monotonic()
        if now >= self._next_look or not self._known:
            self._next_look = now + _LOOK_SECONDS
            self._look()
        self._change_model()
        for is_prompt, waiting in self._replays.items():
            self._make_jobs(is_prompt, waiting)
        self._forget_answers()

    def _look(self) -> None:
        """Take up what is new."""
        new: list[str] = []
        odd: list[str] = []
        # The names are bytes: not all of them are UTF-8.
        with os.scandir(self._root.requests) as entries:
            for entry in entries:
                request_id = id_of(entry.name)
                if request_id is None:
                    is_new = entry.name not in self._stuck and not _is_in_the_making(entry)
                    if is_new and len(odd) < _MOST_REFUSED_AT_ONCE:
                        odd.append(entry.name)
                elif (
                    request_id not in self._known
                    and entry.name not in self._stuck
                    and len(self._known) + len(new) < _MOST
                ):
                    new.append(request_id)
        for name in odd:
            self._set_aside(name, "its name is not that of a request")
        for request_id in sorted(new):
            self._take_up(request_id)

    def _take_up(self, request_id: str) -> None:
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
            case ModelRequest():
                self._known.add(request_id)
                self._models.append((request_id, request))
            case ReplayRequest():
                self._take_up_replay(request_id, request)

    def _take_up_replay(self, request_id: str, request: ReplayRequest) -> None:
        if self._store.get(request_id) is not None or (self._root.work / request_id).exists():
            # An earlier run made the job, or has done it, and a kill or a power cut left the request.
            durable.sync_folder(self._root.work)
            self._forget(request_id)
            return
        row = self._store.get(request.job_id)
        is_prompt = row is not None and row.kind == "prompt" and request.start == "generate"
        self._known.add(request_id)
        self._replays[is_prompt].append((request_id, request))

    def _change_model(self) -> None:
        while self._models and not self._changing:
            request_id, request = self._models[0]
            faults.point("order-read")
            told = partial(self._model_changed, request_id, request.name)
            try:
                installed_folder(request.name, self._root.models)
            except FluxdropError as error:
                told(error)
            else:
                self._changing = True
                self._use(request.name, told)
            self._models.popleft()
            self._forget(request_id)
            faults.point("order-taken")

    def _model_changed(self, request_id: str, name: str, error: FluxdropError | None) -> None:
        if error is None:
            choose_model(self._root, name)
            faults.point("model-chosen")
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
        try:
            made = {key: files for key, request in batch if (files := self._make(key, request))}
            files = [path for files in made.values() for path in files]
            work = self._root.work
            folders = {
                parent for path in files for parent in path.parents if work in parent.parents
            }
            durable.sync_all(files, sorted(folders))
            for request_id in made:
                faults.point("request-made")
                self._making(request_id).rename(self._root.work / request_id)
                faults.point("request-renamed")
            durable.sync_folder(self._root.work)
        except OSError:
            waiting.extendleft(reversed(batch))
            raise
        for request_id, _ in batch:
            if (self._root.work / request_id).is_dir():
                self._accept(self._root.work / request_id)
            self._forget(request_id)

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
            if isinstance(cause, OSError) and is_passing(cause) and not is_its_own(cause):
                raise cause from error
            refused = error
        except OSError as error:
            if is_passing(error):
                raise
            reason = f"{error.filename} cannot be written: {error.strerror}"
            refused = FluxdropError(reason, kind="replay")
        durable.remove_tree(making)
        log.warning("request refused", request=request_id, reason=refused.message)
        self._answer(request_id, refused)
        return []

    def _making(self, request_id: str) -> Path:
        return self._root.work / f"{_MAKING}{request_id}"

    def _forget(self, request_id: str) -> None:
        self._known.discard(request_id)
        try:
            forget_request(self._root, request_id)
        except OSError as error:
            self._leave(f"{request_id}{SUFFIX}", f"it cannot be removed: {error.strerror}")

    def _set_aside(self, name: str, reason: str) -> bool:
        """Move *name* out of requests/ and say why; False when it is gone."""
        kept = self._root.refused / new_job_id()
        self._root.refused.mkdir(mode=0o700, exist_ok=True)
        self._forget_refused()
        try:
            (self._root.requests / name).rename(kept)
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
        log.warning("request set aside", file=printable(name), to=kept.name, reason=reason)
        return True

    def _forget_refused(self) -> None:
        """Make room for one more. What others put there is removed by descriptors alone: they may still
        have a hand in it.
        """
        for old in sorted(self._root.refused.iterdir())[: 1 - _MOST_KEPT]:
            if old.is_dir() and not old.is_symlink():
                shutil.rmtree(old, ignore_errors=True)
            else:
                old.unlink()

    def _leave(self, name: str, reason: str) -> None:
        if len(self._stuck) < _MOST:
            self._stuck.add(name)
            log.warning("request left alone", file=printable(name), reason=reason)

    def _answer(self, request_id: str, error: FluxdropError | None) -> None:
        try:
            self._write_answer(request_id, error)
        except OSError:
            self._unwritten.append((request_id, error))

    def _write_answer(self, request_id: str, error: FluxdropError | None) -> None:
        answer = Answer(error.kind, error.message, error.hint) if error else Answer()
        path = self._root.answers / f"{request_id}.json"
        durable.write(path, msgspec.json.encode(answer), sync=False)
        self._answered.append((time.monotonic(), request_id))
        faults.point("order-answered")

    def _forget_answers(self) -> None:
        old = time.monotonic() - _ANSWER_SECONDS
        while self._answered and (
            self._answered[0][0] < old or len(self._answered) > _MOST_ANSWERS
        ):
            _, request_id = self._answered.popleft()
            (self._root.answers / f"{request_id}.json").unlink(missing_ok=True)


def _is_in_the_making(entry: os.DirEntry[str]) -> bool:
    """Whether *entry* may still become a request; what a command that was killed left does not."""
    if not entry.name.startswith("."):
        return False
    try:
        return time.time() - entry.stat(follow_symlinks=False).st_mtime < _UNFINISHED_SECONDS
    except FileNotFoundError:
        return True
