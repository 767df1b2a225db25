"""SIGHUP: the configuration and the model are read again, and what can change does, or nothing does."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.intake.intake import Intake
from fluxdrop.layout import Root
from fluxdrop.logs import configure, get_logger
from fluxdrop.predict.bundle import load_bundle
from fluxdrop.service.line import Line
from fluxdrop.service.notify import Notifier

log = get_logger("fluxdrop.daemon")

# Stages, gallery and metrics are made for these at the start.
_AFTER_RESTART = (
    "batch_size",
    "generator_batch_size",
    "generator_idle_seconds",
    "gallery",
    "metrics_port",
    "metrics_file",
)
_OF_THE_ENGINE = {"engine", "julia_backend", "device"}


class Reload:
    """Brings what *load* gives to the parts of a running daemon.

    `begin` belongs to the daemon's thread. A new model is loaded meanwhile beside the one in use;
    when it answers, or cannot be loaded, *notifier* and the log are told how it went.
    """

    def __init__(
        self,
        root: Root,
        load: Callable[[], Settings],
        line: Line,
        intake: Intake,
        notifier: Notifier,
    ) -> None:
        self._root = root
        self._load = load
        self._line = line
        self._intake = intake
        self._notifier = notifier
        self.busy = False
        """Whether a reload waits for its model."""

    def begin(self) -> None:
        """Read everything again, and change over."""
        self._notifier.reloading()
        self.busy = True
        try:
            wanted = self._load()
            changed = _differences(self._line.settings, wanted)
            is_other_model = self._is_other_model(wanted, changed)
        except FluxdropError as error:
            self._refuse(error)
            return
        kept = {key: getattr(self._line.settings, key) for key in _AFTER_RESTART}
        settings = msgspec.structs.replace(wanted, **kept)

        def conclude(error: FluxdropError | None) -> None:
            if error is not None:
                self._refuse(error)
            else:
                self._apply(settings, changed)

        if is_other_model:
            self._line.change(settings, conclude)
        else:
            conclude(None)

    def _is_other_model(self, settings: Settings, changed: list[str]) -> bool:
        bundle = load_bundle(settings.model, self._root.models)
        return (
            any(key in _OF_THE_ENGINE or key.startswith("worker_") for key in changed)
            or self._line.model is None
            or self._line.model.bundle != bundle
        )

    def _refuse(self, error: FluxdropError) -> None:
        log.error("reload refused", reason=error.message, hint=error.hint)
        self._end()

    def _apply(self, settings: Settings, changed: list[str]) -> None:
        if "log_level" in changed:
            configure(settings.log_level, self._root.logs)
        self._line.apply(settings)
        self._intake.apply(settings)
        waiting = [key for key in changed if key in _AFTER_RESTART]
        log.info(
            "reloaded",
            changed=[key for key in changed if key not in waiting],
            **({"after_a_restart": waiting} if waiting else {}),
        )
        self._end()

    def _end(self) -> None:
        self.busy = False
        self._notifier.ready(self._line.longest_answer)


def _differences(before: Settings, after: Settings) -> list[str]:
    """The keys whose values differ."""
    return [
        key for key in Settings.__struct_fields__ if getattr(before, key) != getattr(after, key)
    ]
