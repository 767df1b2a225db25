"""An engine that is opened by its first batch, for a model that may never be needed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.engine import Engine, EngineDown, EngineInfo

_NOT_YET = EngineInfo(engine="", backend="", version="")


class OnDemandEngine:
    """What *open_engine* returns, opened by the first batch and by the thread that predicts.

    An engine that cannot be opened fails every batch for the same reason, and one that is down
    fails the batch at hand: nothing waits for it.
    """

    def __init__(self, open_engine: Callable[[], Engine]) -> None:
        self._open = open_engine
        self._engine: Engine | None = None
        self._failure: FluxdropError | None = None

    @property
    def info(self) -> EngineInfo:
        """What runs; all empty before the first batch."""
        return self._engine.info if self._engine is not None else _NOT_YET

    def prepare(self) -> None:
        """Open the engine if that was not tried yet. Raises what kept it from that, each time."""
        if self._failure is not None:
            raise self._failure
        if self._engine is not None:
            return
        try:
            self._engine = self._open()
        except FluxdropError as error:
            self._failure = _final(error)
            raise self._failure from error

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities of *batch*, as `Engine.predict`, but that it never raises EngineDown."""
        self.prepare()
        assert self._engine is not None
        try:
            return self._engine.predict(batch)
        except EngineDown as error:
            raise _final(error) from error

    @property
    def trouble(self) -> str:
        """None: nothing waits for it."""
        return ""

    def tend(self) -> None:
        """Nothing to look after: the next batch finds out."""

    def close(self) -> None:
        """End the engine, if there is one."""
        if self._engine is not None:
            self._engine.close()


def _final(error: FluxdropError) -> FluxdropError:
    """*error* as one that nothing waits for."""
    return FluxdropError(error.message, hint=error.hint, kind=error.kind)
