"""An engine that is opened by its first batch."""

from __future__ import annotations

import numpy as np
import pytest

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.engine import EngineDown
from fluxdrop.predict.on_demand import OnDemandEngine
from fluxdrop.predict.onnxruntime_engine import OnnxruntimeEngine
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


@pytest.mark.parametrize(
    "error", [FluxdropError("no Julia", kind="julia"), EngineDown("no memory", kind="worker")]
)
def test_that_cannot_be_opened(error: FluxdropError) -> None:
    """An engine that cannot be opened fails each batch for that reason, and nothing waits for it."""
    caught = []

    def open_engine() -> OnnxruntimeEngine:
        raise error

    engine = OnDemandEngine(open_engine)
    for _ in range(2):
        with pytest.raises(FluxdropError, match=error.message) as info:
            engine.predict(BATCH)
        caught.append(isinstance(info.value, EngineDown))
    engine.close()

    assert [False, False] == caught
