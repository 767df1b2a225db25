"""An engine that is opened at its first use, and whose failure passes: for a model beside the one in use."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.engine import Engine, EngineDown, EngineInfo
from fluxdrop.processes.child import ChildDied

PATIENCE_SECONDS = 60.0
"""How long pictures wait for a process that cannot be started. After that, those that come fail as long."""
_NOT_OPENED = EngineInfo(engine="", backend="", version="")


class OnDemandEngine:
    """Opens an engine with *open_engine*, on the thread that predicts.

    An engine that cannot be opened fails every batch for the same reason, and is tried again after
    a minute. So does one whose process cannot be started, but at first its batches wait for a minute.

    Args:
        open_engine: Opens the engine.
        clock: Returns the time in seconds.
    """

    def __init__(
        self, open_engine: Callable[[], Engine], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._open = open_engine
        self._clock = clock
        self._engine: Engine | None = None
        self._failure: FluxdropError | None = None
        self._retry_at = 0.0
        self._down_since: float | None = None

    @property
    def info(self) -> EngineInfo:
        """What runs the model; all fields are empty before the first batch."""
        return self._engine.info if self._engine is not None else _NOT_OPENED

    def prepare(self) -> None:
        """Open the engine, unless it is open.

        Raises:
            EngineDown: Its process cannot be started at the moment.
            FluxdropError: It cannot be opened, now or at a call in the last minute.
        """
        if self._failure is not None and self._clock() < self._retry_at:
            raise _copy(self._failure)
        if self._engine is not None:
            return
        try:
            self._engine = self._open()
        except (EngineDown, ChildDied) as error:
            raise self._down(error) from error
        except FluxdropError as error:
            self._fail(error)
            raise
        self._works()

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Engine.predict`."""
        self.prepare()
        assert self._engine is not None
        try:
            outputs = self._engine.predict(batch)
        except EngineDown as error:
            raise self._down(error) from error
        self._works()
        return outputs

    @property
    def outage(self) -> str:
        """Why the engine cannot predict at the moment; empty when it can, or when that was not tried."""
        if self._failure is not None:
            return self._failure.message
        return self._engine.outage if self._engine is not None else ""

    def check_health(self) -> None:
        """See `Engine.check_health`; an engine that could not be opened is tried again when it is time.

        Raises:
            FluxdropError: As `prepare` does.
        """
        self.prepare()
        assert self._engine is not None
        try:
            self._engine.check_health()
        except EngineDown as error:
            raise self._down(error) from error
        self._works()

    def close(self) -> None:
        """Close the engine, if it was opened."""
        if self._engine is not None:
            self._engine.close()

    def _works(self) -> None:
        self._failure, self._down_since = None, None

    def _fail(self, error: FluxdropError) -> None:
        self._failure, self._retry_at = _copy(error), self._clock() + PATIENCE_SECONDS

    def _down(self, error: FluxdropError) -> FluxdropError:
        """Return the error for a process that cannot be started: EngineDown, or after a minute one that fails."""
        if self._down_since is None:
            self._down_since = self._clock()
        if self._clock() - self._down_since < PATIENCE_SECONDS:
            return EngineDown(error.message, hint=error.hint, kind=error.kind)
        self._down_since = None
        self._fail(error)
        return _copy(error)


def _copy(error: FluxdropError) -> FluxdropError:
    """Return *error* as a plain FluxdropError, which fails the batch instead of making it wait."""
    return FluxdropError(error.message, hint=error.hint, kind=error.kind)
