"""When a worker dies, hangs or does not start, and what takes over where there is no Julia."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.engine import Engine, EngineDown
from fluxdrop.processes.child import ChildDied
from support.engines import BATCH, opened
from support.misbehaving import julia_that
from support.needs import needs_julia

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def switch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A path; while there is something at it, the worker of `mortal` cannot be started."""
    return tmp_path_factory.mktemp("switch") / "off"


@pytest.fixture(scope="module")
def mortal(switch: Path) -> Iterator[Engine]:
    """An engine whose worker each test may kill, as long as it leaves another."""
    with pytest.MonkeyPatch.context() as patch:
        julia = julia_that(switch.parent, f"[ -e {switch} ] && exit 3")
        patch.setenv("FLUXDROP_JULIA", str(julia))
        with opened("julia", worker_call_seconds=5.0) as engine:
            yield engine


def worker(engine: Engine) -> int:
    """The process id of *engine*'s worker."""
    assert engine.info.pid is not None
    return engine.info.pid


def kill(engine: Engine) -> int:
    """Kill the worker of *engine*, and wait until it is dead; its process id."""
    pid = worker(engine)
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@needs_julia
def test_worker_killed_between_calls(mortal: Engine) -> None:
    """A worker that died between two calls is replaced by the next one, which succeeds; nothing is
    left of the dead one, neither process nor descriptors."""
    expected = mortal.predict(BATCH)
    before = descriptors()
    killed = kill(mortal)

    found = mortal.predict(BATCH)

    assert np.array_equal(expected, found)
    assert (False, before) == (psutil.pid_exists(killed), descriptors())


@needs_julia
def test_worker_killed_in_a_call(mortal: Engine) -> None:
    """A worker that dies over a batch is ChildDied, and the next call has another worker."""
    first = worker(mortal)
    os.kill(first, signal.SIGSTOP)
    killer = threading.Timer(0.3, os.kill, (first, signal.SIGKILL))
    killer.start()

    with pytest.raises(ChildDied, match="was ended by SIGKILL"):
        mortal.predict(BATCH)
    killer.join()
    again = mortal.predict(BATCH)

    assert ((12, 2), True) == (again.shape, first != worker(mortal))


@needs_julia
def test_worker_that_hangs(mortal: Engine) -> None:
    """A worker that does not answer in time is killed, reaped, and replaced."""
    first = worker(mortal)
    os.kill(first, signal.SIGSTOP)

    with pytest.raises(ChildDied, match="did not answer within 5 s"):
        mortal.predict(BATCH[:1])

    assert not psutil.pid_exists(first)
    assert (1, 2) == mortal.predict(BATCH[:1]).shape


@needs_julia
def test_worker_that_cannot_be_replaced(mortal: Engine, switch: Path) -> None:
    """Where no worker starts any more the engine is down, which is no fault of the picture; it is
    up again as soon as one does."""
    kill(mortal)
    switch.touch()

    with pytest.raises(EngineDown, match="exited with code 3"):
        mortal.predict(BATCH)
    switch.unlink()

    assert (12, 2) == mortal.predict(BATCH).shape


@needs_julia
def test_noise_on_stdout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker's libraries print, however much and of whatever bytes, disturbs nothing; a
    worker that is closed is gone."""
    noise = "head -c 3000000 /dev/urandom & head -c 3000000 /dev/zero >&2"
    monkeypatch.setenv("FLUXDROP_JULIA", str(julia_that(tmp_path, noise)))
    before = descriptors()

    with opened("julia") as engine:
        found = engine.predict(BATCH)
        pid = worker(engine)

    assert (12, 2) == found.shape
    assert (False, before) == (psutil.pid_exists(pid), descriptors())


@pytest.fixture
def no_julia(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without Julia."""
    for name in ("FLUXDROP_JULIA", "FLUXDROP_JULIA_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FLUXDROP_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", "")


@pytest.mark.usefixtures("no_julia")
def test_auto_without_julia() -> None:
    """Without Julia, auto takes onnxruntime and says why."""
    with opened("auto") as engine:
        info = engine.info

    assert "onnxruntime" == info.engine
    assert info.note == "Julia is not used: There is no Julia on this machine"


@pytest.mark.usefixtures("no_julia")
def test_julia_without_julia() -> None:
    """Without Julia, the engine julia is an error that says what to do."""
    with pytest.raises(FluxdropError, match="There is no Julia") as caught:
        opened("julia")

    assert ("julia", True) == (caught.value.kind, "fluxdrop setup" in caught.value.hint)


@pytest.mark.usefixtures("no_julia")
@pytest.mark.parametrize(
    ("does", "words"),
    [("echo no libraries >&2; exit 3", "no libraries"), ("sleep 60", "did not answer within 1 s")],
)
def test_julia_that_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, words: str
) -> None:
    """A Julia that does not come up is passed over by auto, and told with its last words."""
    monkeypatch.setenv("PATH", "/bin:/usr/bin")
    monkeypatch.setenv("FLUXDROP_JULIA", str(julia_that(tmp_path, f"exec sh -c '{does}'")))

    with opened("auto", worker_start_seconds=1.0) as engine:
        note = engine.info.note
    with pytest.raises(FluxdropError) as caught:
        opened("julia", worker_start_seconds=1.0)

    assert "onnxruntime" == engine.info.engine
    assert note is not None
    assert (True, True) == (words in note, words in caught.value.message)
