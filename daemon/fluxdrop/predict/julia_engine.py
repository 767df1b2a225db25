"""The engine ``julia``: a persistent Julia worker behind the pipe, restarted when it dies."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.predict.bundle import Bundle, native_digest, needs_flux, refuse_others_code
from fluxdrop.predict.compiler.graph_file import fixed_batch
from fluxdrop.predict.engine import EngineDown, EngineInfo, in_batches_of
from fluxdrop.predict.worker import Worker
from fluxdrop.processes.child import CallFailed, ChildDied
from fluxdrop.processes.wire import FrameKind, WireError, unpack_facts
from fluxdrop.provision import JuliaInstall

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 30.0
_PING_SECONDS = 15.0


@contextmanager
def run_graphs(
    settings: Settings, install: JuliaInstall
) -> Iterator[Callable[[bytes, NDArray[np.float32]], NDArray[np.float32]]]:
    """A function that runs any graph file on a batch, in one worker.

    It raises CallFailed for what the worker cannot build or run.
    """
    worker = Worker(settings, install)
    limit = settings.worker_start_seconds

    def run(graph: bytes, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        worker.call(FrameKind.LOAD, graph, expect=FrameKind.LOADED, timeout=limit)
        return worker.predict(batch, limit)

    try:
        yield run
    finally:
        worker.stop()


class JuliaEngine:
    """Runs a compiled model, or with no *graph* the bundle's native one, in a Julia process of its own.

    The worker is started, given the model and warmed up at construction. After it died, the next
    call starts another, the later the more often it died in a row.
    """

    def __init__(
        self,
        settings: Settings,
        install: JuliaInstall,
        bundle: Bundle,
        graph: bytes | None,
        *,
        wait_hook: Callable[[], None] | None = None,
    ) -> None:
        self._settings = settings
        self._install = install
        self._bundle = bundle
        self._graph = graph
        self._batch = fixed_batch(graph) if graph is not None else None
        self._wait_hook = wait_hook
        self._pause = 0.0
        self._not_before = 0.0
        self._trouble = ""
        self._worker: Worker | None = None
        self._info: EngineInfo | None = None
        self._ensure()

    @property
    def info(self) -> EngineInfo:
        """What runs, or ran until the worker died."""
        assert self._info is not None
        return self._info

    @property
    def trouble(self) -> str:
        """Why there is no worker at the moment; empty when there is one."""
        return self._trouble

    def prepare(self) -> None:
        """Nothing to prepare: it is open since it was made."""

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Engine.predict`."""
        worker = self._up()
        try:
            result = self._forward(worker, batch, self._settings.worker_call_seconds)
        except ChildDied as error:
            self._lost(error)
            raise
        self._pause = 0.0
        if worker.outgrown(self._settings.worker_max_bytes):
            self.close()
            self._trouble = "the worker needed too much memory and is replaced"
        return result

    def tend(self) -> None:
        """See `Engine.tend`: a worker that died, hangs or was stopped is replaced."""
        try:
            self._up().ping(min(_PING_SECONDS, self._settings.worker_call_seconds))
        except ChildDied as error:
            self._lost(error)
            self._up()

    def close(self) -> None:
        """End the worker; a later call starts another."""
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def _up(self) -> Worker:
        try:
            return self._ensure()
        except ChildDied as error:
            raise EngineDown(error.message, hint=error.hint, kind="worker") from error

    def _forward(
        self, worker: Worker, batch: NDArray[np.float32], timeout: float
    ) -> NDArray[np.float32]:
        def run(piece: NDArray[np.float32]) -> NDArray[np.float32]:
            result = worker.predict(piece, timeout)
            if result.shape[:1] != piece.shape[:1]:
                what = f"an answer of shape {result.shape} to a batch of {len(piece)}"
                raise worker.reject_reply(WireError(what))
            return result

        return in_batches_of(self._batch, run, batch)

    def _ensure(self) -> Worker:
        if self._worker is not None:
            if self._worker.alive():
                return self._worker
            self._lost(self._worker.reap())
        self._wait_for_turn()
        limit = self._settings.worker_start_seconds
        try:
            worker = Worker(self._settings, self._install, self._wait_hook)
            self._load(worker, limit)
        except ChildDied as error:
            self._lost(error)
            raise
        self._worker = worker
        self._trouble = ""
        return worker

    def _load(self, worker: Worker, limit: float) -> None:
        hello = worker.hello
        try:
            if self._graph is not None:
                given, kind, payload = self._graph, FrameKind.LOAD, self._graph
            else:
                given, kind, payload = self._native(worker)
            loaded = worker.call(kind, payload, expect=FrameKind.LOADED, timeout=limit)
            if unpack_facts(loaded.payload).get("digest") != hashlib.sha256(given).hexdigest():
                raise worker.reject_reply(WireError("another model was loaded than was given"))
            # The first forward pass compiles; better now than while somebody waits for a picture.
            shape = self._bundle.spec.input.shape
            self._forward(worker, np.zeros(shape, dtype=np.float32), limit)
            worker.outgrown(self._settings.worker_max_bytes)
        except CallFailed as error:
            worker.stop()
            raise FluxdropError(
                f"{self._bundle.file} cannot be run by Julia: {error.message}", kind="model"
            ) from error
        self._info = EngineInfo(
            engine="julia",
            backend=hello["backend"],
            version=hello["julia"],
            flux=hello.get("flux") or None,
            device=hello.get("device", "cpu"),
            pid=worker.pid,
            note=hello.get("note") or None,
        )

    def _native(self, worker: Worker) -> tuple[bytes, FrameKind, bytes]:
        """The code of the native model, and the request to load it."""
        bundle = self._bundle
        if worker.hello["backend"] != "flux":
            worker.stop()
            raise needs_flux(bundle, worker.hello.get("note", ""))
        try:
            # Long after the bundle was read, when the worker is another one.
            refuse_others_code(bundle.folder)
        except FluxdropError as error:
            worker.stop()
            raise EngineDown(error.message, hint=error.hint, kind=error.kind) from error
        if native_digest(bundle.folder) != bundle.sha256:
            worker.stop()
            raise EngineDown(
                f"{bundle.file} or its weights changed since they were first loaded",
                hint=f"Start anew, or run `fluxdrop model use {bundle.name}`.",
                kind="model",
            )
        return bundle.file.read_bytes(), FrameKind.LOAD_NATIVE, os.fsencode(bundle.file)

    def _wait_for_turn(self) -> None:
        while (left := self._not_before - time.monotonic()) > 0:
            if self._wait_hook is not None:
                self._wait_hook()
            time.sleep(min(left, 0.25))

    def _lost(self, error: ChildDied) -> None:
        self._worker = None
        self._trouble = f"the worker is restarted: {error.message}"
        self._pause = min(_LONGEST_PAUSE, self._pause * 2 or _FIRST_PAUSE)
        self._not_before = time.monotonic() + self._pause
