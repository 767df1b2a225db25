"""Changes of the settings and of the model in use, carried out one after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import msgspec

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError, internal
from fluxdrop.files.layout import Root
from fluxdrop.intake.intake import Intake
from fluxdrop.logs import configure, get_logger
from fluxdrop.predict.bundle import load_bundle
from fluxdrop.service.reporting.notify import Notifier
from fluxdrop.service.stages.stages import Stages

log = get_logger("fluxdrop.daemon")

# These only take effect at a restart: stages, gallery and metrics are made for them at the start.
_NEEDS_RESTART = (
    "batch_size",
    "generator_batch_size",
    "generator_idle_seconds",
    "gallery",
    "metrics_port",
    "metrics_file",
    "hooks",
    "results_csv",
)
_ENGINE_KEYS = {"engine", "julia_backend", "device", "predict_on", "cluster"}


@dataclass(frozen=True, slots=True)
class ChangePlan:
    """What a change will do."""

    settings: Settings
    """The settings to use."""
    opens_model: bool
    """Whether the model that the settings name has to be opened first."""


class Change(Protocol):
    """One change of the settings, made when its turn comes."""

    def begin(self) -> ChangePlan:
        """Return what to change, based on the settings in use now.

        Raises:
            FluxdropError: The change is not possible; it is concluded with this error.
            OSError: The disk is full or not available; this method is called again later.
        """

    def conclude(self, error: FluxdropError | None) -> None:
        """Report that the change was made, or refused because of *error*.

        Raises:
            OSError: The disk is full or not available; this method is called again later.
        """


class Changes:
    """Carries out changes in the order in which they were added.

    Only the main loop's thread may use it. While a change opens a model, pictures are still
    predicted by the old one; `model_opened` or `model_refused` ends such a change.
    """

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self._waiting: deque[Change] = deque()
        self._current: tuple[Change, Settings] | None = None
        """The change whose model is being opened, and its settings."""
        self._ended: deque[tuple[Change, FluxdropError | None]] = deque()
        """Changes that have ended and whose `conclude` has not succeeded yet."""

    @property
    def busy(self) -> bool:
        """Return whether a change is in progress or waits."""
        return bool(self._waiting or self._current or self._ended)

    def add(self, change: Change) -> None:
        """Queue a change; return at once."""
        self._waiting.append(change)

    def model_opened(self) -> None:
        """Apply the current change: its model is in use."""
        if self._current is not None:
            (change, settings), self._current = self._current, None
            self._stages.apply(settings)
            self._ended.append((change, None))

    def model_refused(self, error: FluxdropError) -> None:
        """End the current change: its model cannot be used."""
        if self._current is not None:
            (change, _settings), self._current = self._current, None
            self._ended.append((change, error))

    def step(self) -> None:
        """Conclude what has ended and begin what waits.

        Raises:
            OSError: The disk is full or not available; call again later.
        """
        self._conclude_ended()
        while self._waiting and self._current is None:
            self._begin(self._waiting[0])
            self._conclude_ended()

    def _conclude_ended(self) -> None:
        while self._ended:
            change, error = self._ended[0]
            change.conclude(error)
            self._ended.popleft()

    def _begin(self, change: Change) -> None:
        try:
            plan = change.begin()
        except Exception as error:
            self._refuse(change, error)
            return
        self._waiting.popleft()
        if plan.opens_model:
            self._current = change, plan.settings
            self._stages.open_model(plan.settings)
        else:
            self._stages.apply(plan.settings)
            self._ended.append((change, None))

    def _refuse(self, change: Change, error: Exception) -> None:
        if isinstance(error, FluxdropError):
            reason = error
        elif self._stages.context.is_transient(error):
            raise error
        else:
            self._stages.context.defects.record("settings", error)
            reason = internal(error, "the settings")
        self._waiting.popleft()
        self._ended.append((change, reason))


class UseModel:
    """Change to another installed model."""

    def __init__(
        self, stages: Stages, name: str, on_done: Callable[[FluxdropError | None], None]
    ) -> None:
        """Prepare the change.

        Args:
            stages: The stages that are to use the model.
            name: The name of an installed model.
            on_done: Called with None after the change, or with the error for which it was
                refused.
        """
        self._stages = stages
        self._name = name
        self._on_done = on_done

    def begin(self) -> ChangePlan:
        """See `Change.begin`."""
        return ChangePlan(msgspec.structs.replace(self._stages.settings, model=self._name), True)

    def conclude(self, error: FluxdropError | None) -> None:
        """See `Change.conclude`."""
        self._on_done(error)


class Reload:
    """Load the settings again, as SIGHUP asks for, and apply those that can change without a restart.

    All of them are applied, or, if the new ones are invalid, none. The service manager and the log
    are told the result.
    """

    def __init__(
        self,
        root: Root,
        load: Callable[[], Settings],
        stages: Stages,
        intake: Intake,
        notifier: Notifier,
    ) -> None:
        """Prepare the reload.

        Args:
            root: The root that the daemon serves.
            load: Reads the settings. Raises FluxdropError if they are invalid.
            stages: Gets the new settings, and the model if it changes.
            intake: Gets the new settings.
            notifier: Tells the service manager when the reload begins and ends.
        """
        self._root = root
        self._load = load
        self._stages = stages
        self._intake = intake
        self._notifier = notifier
        self._changed: list[str] = []
        self.done = False

    def begin(self) -> ChangePlan:
        """See `Change.begin`."""
        self._notifier.reloading()
        wanted = self._load()
        self._changed = _differences(self._stages.settings, wanted)
        kept = {key: getattr(self._stages.settings, key) for key in _NEEDS_RESTART}
        return ChangePlan(msgspec.structs.replace(wanted, **kept), self._is_other_model(wanted))

    def conclude(self, error: FluxdropError | None) -> None:
        """See `Change.conclude`."""
        if error is not None:
            log.error("reload refused", reason=error.message, hint=error.hint)
        else:
            self._apply()
        self._notifier.ready(self._stages.max_reply_seconds)
        self.done = True

    def _is_other_model(self, settings: Settings) -> bool:
        bundle = load_bundle(settings.model, self._root.models)
        return (
            any(map(_is_engine_key, self._changed))
            or self._stages.model is None
            or self._stages.model.bundle != bundle
        )

    def _apply(self) -> None:
        if "log_level" in self._changed:
            configure(self._stages.settings.log_level, self._root.logs)
        self._intake.apply(self._stages.settings)
        self._stages.warm_up(reopen_all=any(map(_is_engine_key, self._changed)))
        waiting = [key for key in self._changed if key in _NEEDS_RESTART]
        log.info(
            "reloaded",
            changed=[key for key in self._changed if key not in waiting],
            **({"after_a_restart": waiting} if waiting else {}),
        )


def _is_engine_key(key: str) -> bool:
    return key in _ENGINE_KEYS or key.startswith("worker_")


def _differences(before: Settings, after: Settings) -> list[str]:
    """Return the keys of the settings whose values differ."""
    return [
        key for key in Settings.__struct_fields__ if getattr(before, key) != getattr(after, key)
    ]
