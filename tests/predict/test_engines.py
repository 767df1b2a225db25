"""The engines against each other, on the embedded model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache

import numpy as np
import psutil
import pytest

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.classify import label_probabilities
from fluxdrop.predict.engine import Engine
from fluxdrop.processes.child import ChildDied
from support.engines import BATCH, BUNDLE, ENGINES, TENSORS, opened
from support.needs import JULIA, needs_julia

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def engines() -> Iterator[Callable[[str], Engine]]:
    """One engine of each kind for all tests that do it no harm."""
    with ExitStack() as stack:
        yield cache(lambda name: stack.enter_context(opened(name)))


@needs_julia
def test_julia_agrees_with_onnxruntime(engines: Callable[[str], Engine]) -> None:
    """The 12 sample pictures have the same probabilities by Julia as by the reference."""
    by_julia, by_reference = (engines(name).predict(BATCH) for name in ("julia", "onnxruntime"))

    assert np.abs(by_julia - by_reference).max() < 1e-4


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("picture", TENSORS)
def test_samples_are_told_apart(engines: Callable[[str], Engine], name: str, picture: str) -> None:
    """Each sample is what its name says, by more than nine to one."""
    (raw,) = engines(name).predict(TENSORS[picture])

    assert label_probabilities(raw, BUNDLE)[picture.partition("_")[0]] > 0.9


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("size", [1, 3, 12])
def test_batches_agree(engines: Callable[[str], Engine], name: str, size: int) -> None:
    """A picture's probabilities do not depend on the pictures beside it."""
    engine = engines(name)
    whole = engine.predict(BATCH)

    parts = [engine.predict(BATCH[start : start + size]) for start in range(0, 12, size)]

    assert (12, 2) == whole.shape
    assert np.abs(whole - np.concatenate(parts)).max() < 1e-5


@pytest.mark.parametrize("name", ENGINES)
def test_info(engines: Callable[[str], Engine], name: str) -> None:
    """An engine tells what it is: versions, layers, and the process where there is one."""
    info = engines(name).info

    assert (name, "cpu") == (info.engine, info.device)
    if name == "julia":
        assert JULIA is not None
        assert (JULIA.version, True) == (info.version, psutil.pid_exists(info.pid or 0))
        assert (info.backend in ("flux", "fast")) == (info.flux is not None)
    else:
        assert ("onnxruntime", None) == (info.backend, info.pid)


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (1, 1, 32, 32), (1, 64)])
def test_tensor_of_another_shape(
    engines: Callable[[str], Engine], name: str, shape: tuple[int, ...]
) -> None:
    """A tensor that does not fit is refused, and the engine goes on, in the same process."""
    engine = engines(name)
    before = engine.info.pid

    with pytest.raises(FluxdropError) as caught:
        engine.predict(np.zeros(shape, np.float32))
    engine.predict(BATCH)

    assert not isinstance(caught.value, ChildDied)
    assert before == engine.info.pid
