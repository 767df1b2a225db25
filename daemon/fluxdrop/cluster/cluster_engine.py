"""The engine of ``predict_on = "cluster"``: a model that the cluster's hosts run, divided among them.

This module does not import Ray: the `fluxdrop.cluster.predict_broker` does, one process for all models.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from fluxdrop.cluster.predict_broker import (
    DIED,
    OPENING,
    OUTAGE,
    CloseModel,
    ModelState,
    OpenModel,
    unpack_prediction,
)
from fluxdrop.config import HooksTable, Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.logs import get_logger
from fluxdrop.predict.bundle import Bundle
from fluxdrop.predict.engine import EngineDown, EngineInfo
from fluxdrop.processes.child import CallFailed, Child, ChildDied
from fluxdrop.processes.wire import Frame, FrameKind, WireError, pack_tensor

log = get_logger("fluxdrop.engine")

_JOIN_SECONDS = 60.0
_MARGIN_SECONDS = 30.0
_PAUSE_SECONDS = 0.02
_NOT_OPENED = EngineInfo(engine="cluster", backend="cluster", version="")


class PredictBrokerProcess:
    """The broker, which is started when it is first needed, and again when it died. Any thread may call the methods.

    Args:
        address: The setting ``cluster``.
        wait_hook: Called while an answer is awaited; what it raises ends the wait and the broker.
    """

    def __init__(self, address: str, wait_hook: Callable[[], None] | None = None) -> None:
        self.address = address
        self._wait_hook = wait_hook
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._engines = 0
        self.generation = 0
        """How often it was started: a later one knows nothing of what an earlier one opened."""

    @property
    def pid(self) -> int | None:
        """Its process id; None while there is none."""
        child = self._child
        return child.pid if child is not None else None

    def call(
        self,
        kind: FrameKind,
        *parts: bytes | memoryview,
        expect: FrameKind,
        timeout: float,
        generation: int | None = None,
    ) -> Frame | None:
        """Send a request and return its answer; None if the broker is not the one of *generation* any more.

        Raises:
            EngineDown: There is no broker, or no host.
            ChildDied: An engine's process died on a host.
            CallFailed: Whatever else the broker answers with.
        """
        with self._lock:
            try:
                child = self._started()
                if generation not in (None, self.generation):
                    return None
                return child.call(kind, *parts, expect=expect, timeout=timeout)
            except ChildDied as error:
                raise _down(
                    f"the broker of the cluster is started anew: {error.message}"
                ) from error
            except CallFailed as error:
                if error.kind == OUTAGE or (error.kind == OPENING and kind is FrameKind.PREDICT):
                    raise _down(error.message, error.hint) from error
                if error.kind == DIED:
                    raise ChildDied(error.message, hint=error.hint) from error
                raise

    def take(self) -> None:
        """Count another engine that uses the broker."""
        with self._lock:
            self._engines += 1

    def release(self) -> None:
        """Count one engine less, and end the broker with the last one."""
        with self._lock:
            self._engines -= 1
            if not self._engines and self._child is not None:
                self._child.stop()
                self._child = None

    def _started(self) -> Child:
        if self._child is not None and self._child.alive():
            return self._child
        if self._child is not None:
            self._child.reap()
            self._child = None
        # -P keeps the working folder, into which anyone may drop a ray.py, off the import path.
        child = Child(
            "predict-broker",
            [sys.executable, "-P", "-m", "fluxdrop.cluster.predict_broker"],
            env=os.environ,
            start_timeout=_JOIN_SECONDS,
            wait_hook=self._wait_hook,
        )
        try:
            address = self.address.encode()
            child.call(FrameKind.JOIN, address, expect=FrameKind.LOADED, timeout=_JOIN_SECONDS)
        except CallFailed:
            child.stop()
            raise
        self._child = child
        self.generation += 1
        return child


class ClusterEngine:
    """Runs a model on the hosts of the cluster.

    The constructor waits until a host has the model open, unless none can at the moment. Then, and whenever that
    happens later, pictures wait, and `outage` says why.

    Args:
        broker: The broker.
        settings: The station's: the engine, and the limits of time and memory.
        bundle: The model; a native Flux model is refused, as it is code.

    Raises:
        FluxdropError: The hosts cannot run the model.
    """

    def __init__(self, broker: PredictBrokerProcess, settings: Settings, bundle: Bundle) -> None:
        if bundle.kind == "flux":
            raise FluxdropError(
                f"The model {bundle.name} is a native Flux model: that is code, which is not sent to other hosts",
                hint='Set predict_on = "station".',
                kind="model",
            )
        self._broker = broker
        self._settings = settings
        self._bundle = bundle
        self._state: ModelState | None = None
        self._generation = 0
        self._outage = ""
        broker.take()
        try:
            self._open()
        except EngineDown:
            pass
        except BaseException:
            broker.release()
            raise

    @property
    def info(self) -> EngineInfo:
        """What runs the model on the hosts; engine ``cluster`` before one has opened it."""
        info = self._state.info if self._state else _NOT_OPENED
        # With a process of its own, no picture can end the daemon.
        return msgspec.structs.replace(info, pid=self._broker.pid)

    @property
    def hosts(self) -> list[str]:
        """The names of the hosts that had the model open when that was last looked at."""
        return self._state.hosts if self._state else []

    @property
    def outage(self) -> str:
        """Why no host can predict at the moment; empty when one can."""
        return self._outage

    def prepare(self) -> None:
        """Do nothing: the constructor opened the model."""

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Engine.predict`."""
        frame = None
        while frame is None:
            state = self._opened()
            frame = self._call(
                FrameKind.PREDICT,
                state.digest.encode(),
                *pack_tensor(batch),
                expect=FrameKind.PREDICTION,
                generation=self._generation,
            )
        info, outputs = _unpacked(frame)
        if len(outputs) != len(batch):
            raise _down("the broker of the cluster gave another number of outputs")
        self._state = msgspec.structs.replace(state, info=info)
        return outputs

    def check_health(self) -> None:
        """Have lost hosts replaced and new ones used; see `Engine.check_health`."""
        self._open()

    def close(self) -> None:
        """Close the model on the hosts, and end the broker with the last model."""
        try:
            if self._state is not None and self._broker.pid is not None:
                order = msgspec.json.encode(CloseModel(self._state.digest))
                self._call(
                    FrameKind.LOAD, order, expect=FrameKind.LOADED, generation=self._generation
                )
        except FluxdropError:
            # The hosts close it when the broker ends.
            pass
        finally:
            self._broker.release()

    def _opened(self) -> ModelState:
        """Return the state of the model in the broker that there is now, which opens it if it is another one."""
        if self._state is not None and self._generation == self._broker.generation:
            return self._state
        return self._open()

    def _open(self) -> ModelState:
        # Tables are of no use there, and some are private.
        settings = msgspec.structs.replace(
            self._settings, pipelines={}, folders={}, hooks=HooksTable()
        )
        order = msgspec.json.encode(OpenModel(str(self._bundle.folder), settings))
        deadline = time.monotonic() + self._settings.worker_start_seconds
        frame = None
        while frame is None:
            # Each call is short, so that other models can be run meanwhile.
            try:
                frame = self._call(FrameKind.LOAD, order, expect=FrameKind.LOADED)
            except CallFailed as error:
                if error.kind != OPENING:
                    raise
                if time.monotonic() > deadline:
                    raise _down(error.message) from error
                time.sleep(_PAUSE_SECONDS)
        self._generation = self._broker.generation
        before = self.hosts
        self._state = msgspec.json.decode(frame.payload, type=ModelState)
        if self.hosts != before:
            log.info("a model is open on hosts", model=self._bundle.name, hosts=self.hosts)
        return self._state

    def _call(
        self,
        kind: FrameKind,
        *parts: bytes | memoryview,
        expect: FrameKind,
        generation: int | None = None,
    ) -> Frame | None:
        settings = self._settings
        seconds = settings.worker_start_seconds + settings.worker_call_seconds + _MARGIN_SECONDS
        try:
            frame = self._broker.call(
                kind, *parts, expect=expect, timeout=seconds, generation=generation
            )
        except EngineDown as error:
            self._outage = error.message
            # The broker may be another one, which has to open the model first.
            self._generation = 0
            raise
        self._outage = ""
        return frame


def _unpacked(frame: Frame) -> tuple[EngineInfo, NDArray[np.float32]]:
    try:
        return unpack_prediction(frame.payload)
    except WireError as error:
        raise _down(f"the broker of the cluster broke the protocol: {error}") from error


def _down(message: str, hint: str = "") -> EngineDown:
    return EngineDown(message, hint=hint, kind="cluster")
