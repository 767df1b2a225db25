"""The Julia worker: a child process that loads a model and runs it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fluxdrop.config import Settings
from fluxdrop.predict.compiled_models import compiled_models_folder
from fluxdrop.predict.compiler.graph_file import GraphFile
from fluxdrop.processes.child import Child
from fluxdrop.processes.shared_memory import SharedMemory
from fluxdrop.processes.wire import (
    FrameKind,
    WireError,
    pack_head,
    pack_tensor,
    unpack_facts,
    unpack_tensor,
)
from fluxdrop.provision import JuliaInstall, julia_command
from fluxdrop.resources import julia_folder

# Smaller tensors are as fast through the pipe.
_MIN_SHARED_BYTES = 1 << 16


class Worker(Child):
    """A worker process. It has no model until a LOAD or LOAD_NATIVE frame gives it one.

    The thread that starts it must outlive it: on Linux the worker ends with that thread. Large
    tensors go to the worker through shared memory, or through the pipe where the system has none.

    Args:
        settings: The backend, the device and the time limit for the start.
        install: The Julia to run.
        wait_hook: Called repeatedly while an answer is awaited; what it raises ends the wait.

    Raises:
        ChildDied: When the process ends, or says nothing in time, during its start.
    """

    def __init__(
        self,
        settings: Settings,
        install: JuliaInstall,
        wait_hook: Callable[[], None] | None = None,
    ) -> None:
        command, environment = julia_command(install)
        arguments = ["--backend", settings.julia_backend, "--device", settings.device]
        arguments += ["--compiled", str(compiled_models_folder())]
        self._memory: SharedMemory | None = None
        with contextlib.suppress(OSError):
            self._memory = SharedMemory()
        lent = () if self._memory is None else (self._memory.descriptor,)
        if lent:
            arguments += ["--shared", str(lent[0])]
        try:
            super().__init__(
                "worker",
                [*command, str(julia_folder() / "worker.jl"), *arguments],
                env=environment,
                start_timeout=settings.worker_start_seconds,
                wait_hook=wait_hook,
                lent=lent,
            )
        except BaseException:
            self._close_memory()
            raise

    def load(self, graph: GraphFile, timeout: float) -> dict[str, str]:
        """Load the model *graph*, and return what the worker says of it.

        Raises:
            CallFailed: When the worker cannot read the file, or cannot build the model.
            ChildDied: When the worker ends, or does not answer within *timeout* seconds.
        """
        return self._loaded(FrameKind.LOAD, graph.path, timeout)

    def load_native(self, code: Path, timeout: float) -> dict[str, str]:
        """Load the native Flux model whose flux_model.jl is *code*; otherwise as `load`."""
        return self._loaded(FrameKind.LOAD_NATIVE, code, timeout)

    def _loaded(self, kind: FrameKind, path: Path, timeout: float) -> dict[str, str]:
        frame = self.call(kind, os.fsencode(path), expect=FrameKind.LOADED, timeout=timeout)
        return unpack_facts(frame.payload)

    def predict(self, batch: NDArray[np.float32], timeout: float) -> NDArray[np.float32]:
        """Return the model's output for *batch*, both batch first and of any other dimensions.

        Raises:
            CallFailed: When the worker cannot run the model on *batch*.
            ChildDied: When the worker ends, or does not answer within *timeout* seconds.
        """
        frame = self.call(*self._frame(batch), expect=FrameKind.PREDICTION, timeout=timeout)
        try:
            return unpack_tensor(frame.payload)
        except WireError as error:
            raise self.reject_reply(error) from error

    def stop(self, grace: float = 2.0) -> None:
        """See `Child.stop`."""
        super().stop(grace)
        self._close_memory()

    def kill(self) -> None:
        """See `Child.kill`."""
        super().kill()
        self._close_memory()

    def _frame(
        self, batch: NDArray[np.float32]
    ) -> tuple[FrameKind, *tuple[bytes | memoryview, ...]]:
        """Return the frame's kind and payload for *batch*, whose numbers are put into shared memory if possible."""
        if self._memory is not None and batch.nbytes >= _MIN_SHARED_BYTES:
            with contextlib.suppress(OSError):
                self._memory.put(batch)
                return FrameKind.PREDICT_SHARED, pack_head(batch)
        return FrameKind.PREDICT, *pack_tensor(batch)

    def _close_memory(self) -> None:
        if self._memory is not None:
            self._memory.close()
