"""The models beside the one in use, each with an engine and a thread of its own while it is needed.

A model per thread and process: so no batch mixes models, and one that is being opened, hangs, or cannot
be run holds up none of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.logs import get_logger
from fluxdrop.predict.engine import EngineInfo
from fluxdrop.processes.procfs import resident_bytes
from fluxdrop.service.items import Model, SwapModel, TensorItem
from fluxdrop.service.reporting.heartbeat import WarmModelStatus
from fluxdrop.service.shutdown import Stopping
from fluxdrop.service.stages.model_opening import warm_up_worker
from fluxdrop.service.stages.predicting import Predicting
from fluxdrop.service.stages.stage import Context, Stage

log = get_logger("fluxdrop.daemon")

_STOP_SECONDS = 10.0

OpenModel = Callable[[str, Settings, bool], Model]
"""Returns the model of a name, not opened yet; the bool is whether only an installed one is accepted."""
MakePredicting = Callable[[Model, Callable[[], Model], Callable[[], None]], Predicting]
"""Returns the handler for a model, given a function that opens it and one to call when it was closed."""

_uses = count()


@dataclass(slots=True, eq=False)
class _WarmModel:
    """A model with the stage that predicts by it."""

    name: str
    """The name or folder by which the settings or a replay named it."""
    model: Model
    used: int
    """When it was used last, as a number that grows."""
    weights_bytes: int
    """The size of its files."""
    is_closed: bool = False
    """Whether its engine has ended."""
    stage: Stage[TensorItem | SwapModel] = field(init=False)
    predicting: Predicting = field(init=False)

    @property
    def engine(self) -> EngineInfo | None:
        """What runs the model; None until it is open and warmed up."""
        info = self.model.engine.info
        return info if self.stage.ready.is_set() and info.engine else None

    @property
    def bytes(self) -> int:
        """The memory of its process; where it has none, about that of its weights."""
        pid = self.model.engine.info.pid
        return resident_bytes(pid) if pid is not None else self.weights_bytes


class WarmModels:
    """Keeps models warm up to a number and an amount of memory; the least recently used one ends first.

    Only the thread of `preprocess` may call the methods, except where they say otherwise.
    """

    def __init__(
        self,
        settings: Settings,
        context: Context,
        *,
        open_model: OpenModel,
        make_predicting: MakePredicting,
    ) -> None:
        """Begin with no model.

        Args:
            settings: The settings to begin with.
            context: What the stages of the models share with the others.
            open_model: See `OpenModel`.
            make_predicting: See `MakePredicting`.
        """
        self._settings = settings
        self._context = context
        self._open_model = open_model
        self._make_predicting = make_predicting
        # These are replaced and never changed, as other threads read them.
        self._warm: dict[str, _WarmModel] = {}
        self._ending: tuple[_WarmModel, ...] = ()
        self._problems: dict[str, str] = {}
        self._granted: set[str] = set()
        """The names of models that `has_room` promised a place."""
        self.recheck: Callable[[], None] = lambda: None
        """Called, on any thread, when `has_room` may say something else."""

    def apply(self, settings: Settings) -> None:
        """Use *settings* for the models that are opened from now on. Any thread may call this."""
        self._settings = settings

    def has_room(self, names: Collection[str]) -> bool:
        """Return whether pictures for the models *names*, together, can be taken now.

        If not, and only that is in the way, the least recently used model is told to end.
        """
        return all(
            warm.stage.has_room if (warm := self._warm.get(name)) else self._grant(name, names)
            for name in names
        )

    def model(self, name: str, *, is_installed: bool = False) -> Model:
        """Return the model *name*, which is being opened unless it is warm.

        Args:
            name: A model's name or, unless *is_installed*, its folder.
            is_installed: Whether only the name of an installed model is accepted.

        Raises:
            FluxdropError: There is no such model.
        """
        warm = self._warm.get(name)
        if warm is None:
            try:
                model = self._open_model(name, self._settings, is_installed)
            except FluxdropError as error:
                self._problems = {**self._problems, name: error.message}
                raise
            finally:
                self._granted.discard(name)
            self._problems = {key: why for key, why in self._problems.items() if key != name}
            warm = self._start(name, model)
        warm.used = next(_uses)
        return warm.model

    def put(self, item: TensorItem) -> bool:
        """Have *item* predicted by its model; return False if that is not one of these."""
        for warm in self._warm.values():
            if warm.model is item.model:
                warm.stage.put_now(item)
                return True
        return False

    def warm_up(self, names: Iterable[str], *, reopen_all: bool) -> None:
        """Close the models that changed or are not among *names*, then open *names* as far as there is room.

        *reopen_all* closes the others, too, as the settings of their engine changed.
        """
        wanted = [*names]
        self._problems = {key: why for key, why in self._problems.items() if key in wanted}
        for warm in [*self._warm.values()]:
            if reopen_all or warm.name not in wanted or self._has_changed(warm):
                self._end(warm)
        for name in wanted:
            if name not in self._warm and not self._is_full(name):
                try:
                    self.model(name)
                except FluxdropError as error:
                    log.error(
                        "a folder's model cannot be used",
                        model=name,
                        reason=error.message,
                        hint=error.hint,
                    )

    def end(self, is_needless: Callable[[str], bool]) -> None:
        """Have the models end for whose names *is_needless* returns True, after what they have to do."""
        for warm in [*self._warm.values()]:
            if is_needless(warm.name):
                self._end(warm)

    def trim(self) -> None:
        """Have the least recently used models end while all need too much memory, but for one."""
        while len(self._warm) > 1 and self._bytes > self._settings.warm_models_max_bytes:
            self._end(min(self._warm.values(), key=lambda warm: warm.used))

    def finish(self) -> None:
        """End all models. For the end of the daemon; another thread may call it, after the last `put`."""
        ending = [*self._warm.values(), *self._ending]
        for warm in ending:
            warm.stage.finish(0)
        for warm in ending:
            if not warm.stage.finish(_STOP_SECONDS):
                log.warning("did not stop in time", stage=warm.stage.name)

    @property
    def stages(self) -> list[Stage[TensorItem | SwapModel]]:
        """The stages of all models, also of those that are ending. Any thread may read it."""
        warm = (*self._warm.values(), *self._ending)
        return [one.stage for one in warm if not one.is_closed or one.stage.failure is not None]

    @property
    def reply_wait_seconds(self) -> float:
        """The longest time that an engine has owed a reply; 0 if none owes one. Any thread may read it."""
        warm = (*self._warm.values(), *self._ending)
        return max((one.predicting.reply_wait_seconds for one in warm), default=0.0)

    @property
    def problems(self) -> list[str]:
        """Why models cannot be used at the moment, one sentence each. Any thread may read it."""
        missing = [f"model {name}: {why}" for name, why in self._problems.items()]
        broken = [
            f"model {warm.name}: {outage}"
            for warm in self._warm.values()
            if not warm.stage.outage.ongoing and (outage := warm.model.engine.outage)
        ]
        return [*missing, *broken]

    def worker_pid(self, digest: str) -> int | None:
        """Return the worker's process id of the model with the SHA-256 *digest*. Any thread may ask."""
        found = (one.model for one in self._warm.values() if one.model.bundle.sha256 == digest)
        return next((model.engine.info.pid for model in found), None)

    def status(self, folders: Callable[[str], list[str]]) -> list[WarmModelStatus]:
        """Return what is said of each model in `status`. Any thread may ask.

        *folders* returns the folders that name a model.
        """
        return [
            WarmModelStatus(
                name=warm.name,
                model=warm.model.bundle.name,
                engine=warm.engine,
                folders=folders(warm.name),
                waiting=warm.stage.waiting,
                megabytes=warm.bytes >> 20,
            )
            for warm in self._warm.values()
        ]

    def _start(self, name: str, model: Model) -> _WarmModel:
        warm = _WarmModel(name, model, next(_uses), _file_bytes(model))

        def opened() -> Model:
            try:
                model.engine.prepare()
                warm_up_worker(model, self._settings.batch_size)
            except Stopping:
                raise
            except Exception as error:
                if self._context.is_transient(error):
                    raise
                # It fails the model's pictures, each with this reason, and not the daemon.
                log.error("a model cannot be opened", model=name, reason=str(error))
            return model

        def closed() -> None:
            warm.is_closed = True
            self.recheck()

        warm.predicting = self._make_predicting(model, opened, closed)
        warm.stage = Stage(warm.predicting, self._context, limit=2 * self._settings.batch_size)
        warm.stage.on_room = lambda: self.recheck()
        self._warm = {**self._warm, name: warm}
        warm.stage.start()
        return warm

    def _grant(self, name: str, beside: Collection[str]) -> bool:
        """Return whether the model *name* may be opened; if not, see to it that it may be later.

        The models *beside* are not closed for it. If there are no others, it may be opened in any case.
        """
        if name in self._granted:
            return True
        if self._is_full(name):
            if self._ending:
                return False
            others = [warm for key, warm in self._warm.items() if key not in beside]
            if others:
                self._end(min(others, key=lambda warm: warm.used))
                return False
        self._granted.add(name)
        return True

    def _is_full(self, name: str) -> bool:
        """Return whether one more model would be too much."""
        self._ending = tuple(warm for warm in self._ending if not warm.is_closed)
        number = len(self._warm) + len(self._ending) + len(self._granted - self._warm.keys())
        is_too_large = bool(number) and self._bytes >= self._settings.warm_models_max_bytes
        return number >= self._settings.warm_models or is_too_large

    @property
    def _bytes(self) -> int:
        return sum(warm.bytes for warm in (*self._warm.values(), *self._ending))

    def _has_changed(self, warm: _WarmModel) -> bool:
        with suppress(FluxdropError):
            return self._open_model(warm.name, self._settings, False).bundle != warm.model.bundle
        return True

    def _end(self, warm: _WarmModel) -> None:
        self._warm = {key: one for key, one in self._warm.items() if one is not warm}
        self._ending = (*self._ending, warm)
        warm.stage.finish(0)
        log.info("a model beside the one in use ends", model=warm.name)


def _file_bytes(model: Model) -> int:
    folder = model.bundle.folder
    with suppress(OSError):
        return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    return 0
