"""An engine that is opened by its first batch."""

from __future__ import annotations

import numpy as np
import pytest

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.engine import EngineDown
from fluxdrop.predict.on_demand import PATIENCE_SECONDS, OnDemandEngine
from fluxdrop.predict.onnxruntime_engine import OnnxruntimeEngine
from fluxdrop.processes.child import ChildDied
from support import jobs

BATCH = np.zeros((1, 1, 64, 64), dtype=np.float32)


def test_opened_once() -> None:
    """It is opened by the first batch and kept for the others."""
    opened: list[OnnxruntimeEngine] = []

    def open_engine() -> OnnxruntimeEngine:
        opened.append(OnnxruntimeEngine(jobs.BUNDLE))
        return opened[-1]

    engine = OnDemandEngine(open_engine)
    before = len(opened), engine.info.engine
    answers = [engine.predict(BATCH).shape for _ in range(2)]
    engine.close()

    assert ((0, ""), [(1, 2), (1, 2)]) == (before, answers)
    assert (1, "onnxruntime") == (len(opened), engine.info.engine)


class Openings:
    """Opens a real engine, or raises *error* while it is set; *now* is the time."""

    def __init__(self, error: FluxdropError | None) -> None:
        self.error = error
        self.now = 0.0
        self.tried = 0

    def open(self) -> OnnxruntimeEngine:
        """Open it."""
        self.tried += 1
        if self.error is not None:
            raise self.error
        return OnnxruntimeEngine(jobs.BUNDLE)

    def error_of(self, engine: OnDemandEngine) -> FluxdropError | None:
        """The error of a batch."""
        try:
            engine.predict(BATCH)
        except FluxdropError as error:
            return error
        return None


def test_that_cannot_be_opened() -> None:
    """An engine that cannot be opened fails each batch for that reason, without another try for a minute; then it is
    tried again, and works if it can."""
    openings = Openings(FluxdropError("no Julia", kind="julia"))
    engine = OnDemandEngine(openings.open, lambda: openings.now)
    errors = [openings.error_of(engine) for _ in range(2)]
    tried, outage = openings.tried, engine.outage
    openings.error = None
    openings.now = PATIENCE_SECONDS

    assert (1, "no Julia.") == (tried, outage)
    assert ["no Julia."] * 2 == [error and error.message for error in errors]
    assert not any(isinstance(error, EngineDown) for error in errors)
    assert (None, "") == (openings.error_of(engine), engine.outage)
    engine.close()


@pytest.mark.parametrize(
    "error", [EngineDown("no memory", kind="worker"), ChildDied("the worker exited with code 1")]
)
def test_whose_process_does_not_start(error: FluxdropError) -> None:
    """The batches of an engine whose process does not start wait for a minute and then fail for that reason, so that
    those for other models, which wait behind them, have their turn."""
    openings = Openings(error)
    engine = OnDemandEngine(openings.open, lambda: openings.now)
    waited = [openings.error_of(engine) for _ in range(3)]
    openings.now = PATIENCE_SECONDS
    failed = [openings.error_of(engine) for _ in range(2)]

    assert all(isinstance(one, EngineDown) for one in waited)
    assert [error.message] * 2 == [one and one.message for one in failed]
    assert not any(isinstance(one, EngineDown) for one in failed)
    assert 4 == openings.tried


def test_health() -> None:
    """While no picture comes an engine is opened again when it is time, and then looked after."""
    openings = Openings(FluxdropError("no Julia", kind="julia"))
    engine = OnDemandEngine(openings.open, lambda: openings.now)
    for _ in range(2):
        with pytest.raises(FluxdropError, match="no Julia"):
            engine.check_health()
    openings.error = None
    openings.now = PATIENCE_SECONDS
    engine.check_health()

    assert ("onnxruntime", 2) == (engine.info.engine, openings.tried)
    engine.close()
