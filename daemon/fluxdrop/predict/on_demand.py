"""An engine that is opened at its first batch, for a model that may never be used."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.engine import Engine, EngineDown, EngineInfo

_NOT_OPENED = EngineInfo(engine="", backend="", version="")


class OnDemandEngine:
    """Opens an engine with *open_engine* at the first batch, on the thread that predicts.

    An engine that cannot be opened fails every batch for the same reason. One that is down fails
    the current batch: nothing waits for it.
    """

    def __init__(self, open_engine: Callable[[], Engine]) -> None:
        self._open = open_engine
        self._engine: Engine | None = None
        self._failure: FluxdropError | None = None

    @property
    def info(self) -> EngineInfo:
        """What runs the model; all fields are empty before the first batch."""
        return self._engine.info if self._engine is not None else _NOT_OPENED

    def prepare(self) -> None:
        """Open the engine if that was not tried yet.

        Raises:
            FluxdropError: When it cannot be opened, now or at an earlier call.
        """
        if self._failure is not None:
            raise self._failure
        if self._engine is not None:
            return
        try:
            self._engine = self._open()
        except FluxdropError as error:
            self._failure = _as_permanent(error)
            raise self._failure from error

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Engine.predict`; but raise a plain FluxdropError instead of EngineDown."""
        self.prepare()
        assert self._engine is not None
        try:
            return self._engine.predict(batch)
        except EngineDown as error:
            raise _as_permanent(error) from error

    @property
    def outage(self) -> str:
        """Always empty: nothing waits for this engine."""
        return ""

    def check_health(self) -> None:
        """Do nothing: the next batch finds out whether the engine works."""

    def close(self) -> None:
        """Close the engine, if it was opened."""
        if self._engine is not None:
            self._engine.close()


def _as_permanent(error: FluxdropError) -> FluxdropError:
    """Return *error* as a plain FluxdropError, which fails the batch instead of making it wait."""
    return FluxdropError(error.message, hint=error.hint, kind=error.kind)
