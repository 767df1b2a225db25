"""What every engine is: something that turns a batch of tensors into a batch of probabilities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from fluxdrop.errors import Outage


class EngineDown(Outage):
    """The engine's process cannot be started at the moment, whatever the pictures are."""


class EngineInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """Which engine runs the model, as results and ``status`` tell it."""

    engine: str
    """``julia``, ``juliacall`` or ``onnxruntime``."""
    backend: str
    """``flux``, ``plain`` or ``onnxruntime``."""
    version: str
    """Of Julia, or of onnxruntime."""
    flux: str | None = None
    device: str = "cpu"
    """``cpu``, or the GPU's kind: ``cuda``, ``amdgpu``, ``metal``."""
    pid: int | None = None
    """Of the worker process, where there is one."""
    note: str | None = None
    """Why this engine or backend runs and not the one before it in the order of preference."""


class Engine(Protocol):
    """A loaded model. One thread owns an engine."""

    @property
    def info(self) -> EngineInfo:
        """What runs now; it changes when a worker is restarted."""

    def prepare(self) -> None:
        """See that an engine is there before the first batch, as far as that is left to the batch. Raises
        what opening one raises."""

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities [N, K] of the tensors [N, ...] in *batch*, float32.

        Raises ChildDied when the engine's process ended over this batch, which the next call
        mends; EngineDown when it cannot be mended at the moment; FluxdropError for anything that
        would happen again.
        """

    @property
    def trouble(self) -> str:
        """Why it cannot predict at the moment; empty when it can."""

    def tend(self) -> None:
        """Called now and then while no pictures come: see that the next one finds an engine that
        works. Raises EngineDown."""

    def close(self) -> None:
        """End the engine and its process."""


def in_batches_of(
    size: int | None,
    run: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    batch: NDArray[np.float32],
) -> NDArray[np.float32]:
    """`run` of *batch* [N, ...] for a model that was exported for batches of *size* only.

    The last piece is filled up with zeros, whose results are dropped. None: any size will do.
    """
    if size is None or size == len(batch):
        return run(batch)
    missing = -len(batch) % size
    filled = np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), dtype=batch.dtype)])
    pieces = [run(filled[start : start + size]) for start in range(0, len(filled), size)]
    return np.concatenate(pieces)[: len(batch)]
