"""The Julia worker: a child process that runs whatever model it is given."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fluxdrop.config import Settings
from fluxdrop.processes.child import Child
from fluxdrop.processes.shared_memory import SharedMemory
from fluxdrop.processes.wire import FrameKind, WireError, pack_head, pack_tensor, unpack_tensor
from fluxdrop.provision import JuliaInstall, julia_command
from fluxdrop.resources import julia_folder

# What takes less is as fast through the pipe.
_SHARED_BYTES = 1 << 16


class Worker(Child):
    """A worker without a model; LOAD or LOAD_NATIVE gives it one. It ends with the thread that starts it.

    Large tensors go to it through memory that both processes have, where the system can do that;
    the pipe takes them elsewhere.
    """

    def __init__(
        self,
        settings: Settings,
        install: JuliaInstall,
        wait_hook: Callable[[], None] | None = None,
    ) -> None:
        command, environment = julia_command(install)
        arguments = ["--backend", settings.julia_backend, "--device", settings.device]
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
            self._let_go()
            raise

    def predict(self, batch: NDArray[np.float32], timeout: float) -> NDArray[np.float32]:
        """What the model makes of *batch*: any shape, batch first.

        Raises CallFailed where the model refuses it, ChildDied as `Child.call` does.
        """
        frame = self.call(*self._request(batch), expect=FrameKind.PREDICTION, timeout=timeout)
        try:
            return unpack_tensor(frame.payload)
        except WireError as error:
            raise self.reject_reply(error) from error

    def stop(self, grace: float = 2.0) -> None:
        """See `Child.stop`."""
        super().stop(grace)
        self._let_go()

    def kill(self) -> None:
        """See `Child.kill`."""
        super().kill()
        self._let_go()

    def _request(
        self, batch: NDArray[np.float32]
    ) -> tuple[FrameKind, *tuple[bytes | memoryview, ...]]:
        if self._memory is not None and batch.nbytes >= _SHARED_BYTES:
            with contextlib.suppress(OSError):
                self._memory.put(batch)
                return FrameKind.PREDICT_SHARED, pack_head(batch)
        return FrameKind.PREDICT, *pack_tensor(batch)

    def _let_go(self) -> None:
        if self._memory is not None:
            self._memory.close()
