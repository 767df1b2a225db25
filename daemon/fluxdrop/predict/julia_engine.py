"""The engine ``julia``: a Julia worker process that stays between batches and is restarted when it dies."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.predict.bundle import Bundle, check_code_ownership, flux_required_error, native_digest
from fluxdrop.predict.compiler.graph_file import Graph, GraphFile, write_temporary
from fluxdrop.predict.engine import EngineDown, EngineInfo, label_rows, run_in_batches
from fluxdrop.predict.worker import Worker
from fluxdrop.processes.child import CallFailed, ChildDied
from fluxdrop.processes.wire import WireError
from fluxdrop.provision import JuliaInstall

_FIRST_BACKOFF_SECONDS = 0.2
_MAX_BACKOFF_SECONDS = 30.0
_PING_SECONDS = 15.0


@contextmanager
def run_graphs(
    settings: Settings, install: JuliaInstall
) -> Iterator[Callable[[Graph, NDArray[np.float32]], NDArray[np.float32]]]:
    """Start a worker, and yield a function that runs any graph on a batch in it.

    The function raises CallFailed when the worker cannot build or run the graph. The worker is
    stopped at the end of the context.
    """
    worker = Worker(settings, install)
    limit = settings.worker_start_seconds

    def run(graph: Graph, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        worker.load(write_temporary(graph), limit)
        return worker.predict(batch, limit)

    try:
        yield run
    finally:
        worker.stop()


class JuliaEngine:
    """Runs a model in a Julia process of its own.

    The constructor starts the worker, loads the model and warms it up. When the worker dies, the
    next call starts another, after a pause that doubles with each death in a row.

    Args:
        settings: The backend and device of the worker, its time limits and its memory limit.
        install: The Julia to run.
        bundle: The model.
        graph: Returns the compiled model for each worker; None to load the bundle's native Flux model.
        wait_hook: Called repeatedly while a worker starts; what it raises ends the wait.

    Raises:
        ChildDied: When the worker dies, or does not answer in time, during the start.
        FluxdropError: When Julia cannot run the model.
        EngineDown: When the code of a native Flux model changed or can be changed by others.
    """

    def __init__(
        self,
        settings: Settings,
        install: JuliaInstall,
        bundle: Bundle,
        graph: Callable[[], GraphFile] | None,
        *,
        wait_hook: Callable[[], None] | None = None,
    ) -> None:
        self._settings = settings
        self._install = install
        self._bundle = bundle
        self._graph = graph
        self._batch: int | None = None
        self._wait_hook = wait_hook
        self._backoff = 0.0
        self._retry_at = 0.0
        self._outage = ""
        self._worker: Worker | None = None
        self._info: EngineInfo | None = None
        self._ensure_worker()

    @property
    def info(self) -> EngineInfo:
        """What runs the model, or ran it until the worker died."""
        assert self._info is not None
        return self._info

    @property
    def outage(self) -> str:
        """Why there is no worker at the moment; empty when there is one."""
        return self._outage

    def prepare(self) -> None:
        """Do nothing: the constructor opened the model."""

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Engine.predict`."""
        worker = self._require_worker()
        try:
            result = self._forward(worker, batch, self._settings.worker_call_seconds)
        except ChildDied as error:
            self._record_death(error)
            raise
        self._backoff = 0.0
        if worker.exceeds_memory_limit(self._settings.worker_max_bytes):
            self.close()
            self._outage = "the worker needed too much memory and is replaced"
        return result

    def check_health(self) -> None:
        """Replace a worker that died, hangs or was stopped; see `Engine.check_health`."""
        try:
            self._require_worker().ping(min(_PING_SECONDS, self._settings.worker_call_seconds))
        except ChildDied as error:
            self._record_death(error)
            self._require_worker()

    def close(self) -> None:
        """Stop the worker; a later call starts another."""
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def _require_worker(self) -> Worker:
        """Return a live worker. Raises EngineDown when none can be started."""
        try:
            return self._ensure_worker()
        except ChildDied as error:
            raise EngineDown(error.message, hint=error.hint, kind="worker") from error

    def _forward(
        self, worker: Worker, batch: NDArray[np.float32], timeout: float
    ) -> NDArray[np.float32]:
        """Run *batch* on *worker*; end the worker if it returns another number of outputs."""

        def run(piece: NDArray[np.float32]) -> NDArray[np.float32]:
            result = label_rows(worker.predict(piece, timeout), len(piece))
            if result.shape[:1] != piece.shape[:1]:
                what = f"an answer of shape {result.shape} to a batch of {len(piece)}"
                raise worker.reject_reply(WireError(what))
            return result

        return run_in_batches(self._batch, run, batch)

    def _ensure_worker(self) -> Worker:
        """Return the live worker, or start another. Raises ChildDied when that one dies during its start."""
        if self._worker is not None:
            if self._worker.alive():
                return self._worker
            self._record_death(self._worker.reap())
        self._wait_for_backoff()
        graph = self._compiled()
        try:
            worker = Worker(self._settings, self._install, self._wait_hook)
            self._load(worker, graph, self._settings.worker_start_seconds)
        except ChildDied as error:
            self._record_death(error)
            raise
        self._worker = worker
        self._outage = ""
        return worker

    def _compiled(self) -> GraphFile | None:
        """Return the compiled model; None for a native one. Raises EngineDown if a later worker cannot have it."""
        if self._graph is None:
            return None
        try:
            return self._graph()
        except FluxdropError as error:
            if self._info is None:
                raise
            raise EngineDown(error.message, hint=error.hint, kind=error.kind) from error

    def _load(self, worker: Worker, graph: GraphFile | None, limit: float) -> None:
        """Load the model into *worker*, verify that it is the right one, and run it once."""
        hello = worker.hello
        try:
            if graph is not None:
                self._batch = graph.fixed_batch()
                given = graph.digest()
                loaded = worker.load(graph, limit)
            else:
                given = self._check_native(worker)
                loaded = worker.load_native(self._bundle.file, limit)
            if loaded.get("digest") != given:
                raise worker.reject_reply(WireError("another model was loaded than was given"))
            # The first forward pass compiles: run it now and not with the first picture.
            shape = self._bundle.spec.input.shape
            self._forward(worker, np.zeros(shape, dtype=np.float32), limit)
            # The first call records what the worker needs.
            worker.exceeds_memory_limit(self._settings.worker_max_bytes)
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

    def _check_native(self, worker: Worker) -> str:
        """Check that *worker* may run the native model; return the digest of its code."""
        bundle = self._bundle
        if not worker.hello["flux"]:
            worker.stop()
            raise flux_required_error(bundle, worker.hello.get("note", ""))
        try:
            # A worker may be restarted long after the bundle was read.
            check_code_ownership(bundle.folder)
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
        return hashlib.sha256(bundle.file.read_bytes()).hexdigest()

    def _wait_for_backoff(self) -> None:
        """Sleep until a worker may be started, calling the wait hook."""
        while (left := self._retry_at - time.monotonic()) > 0:
            if self._wait_hook is not None:
                self._wait_hook()
            time.sleep(min(left, 0.25))

    def _record_death(self, error: ChildDied) -> None:
        """Forget the worker that died, and set the earliest time to start the next."""
        self._worker = None
        self._outage = f"the worker is restarted: {error.message}"
        self._backoff = min(_MAX_BACKOFF_SECONDS, self._backoff * 2 or _FIRST_BACKOFF_SECONDS)
        self._retry_at = time.monotonic() + self._backoff
