"""The interface of all engines, which turn a batch of tensors into a batch of the model's outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from fluxdrop.errors import Outage


class EngineDown(Outage):
    """The engine's process cannot be started at the moment; the pictures are not the cause."""


class EngineInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """Which engine runs the model, as results and ``status`` report it."""

    engine: str
    """``julia``, ``juliacall`` or ``onnxruntime``."""
    backend: str
    """``flux``, ``plain`` or ``onnxruntime``."""
    version: str
    """The version of Julia, or of onnxruntime."""
    flux: str | None = None
    """The version of Flux, where it is used."""
    device: str = "cpu"
    """``cpu``, or the GPU's kind: ``cuda``, ``amdgpu``, ``metal``."""
    pid: int | None = None
    """The process id of the worker, where there is one."""
    note: str | None = None
    """Why the preferred engine or backend is not used; None where it is."""


class Engine(Protocol):
    """A loaded model. Only one thread may call its methods; others may read `info` and `outage`."""

    @property
    def info(self) -> EngineInfo:
        """What runs the model now. It changes when a worker is restarted."""

    def prepare(self) -> None:
        """Open the model where the constructor left that to the first batch; else do nothing.

        Raises:
            FluxdropError: When it cannot be opened.
        """

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the model's float32 outputs [N, K] for the tensors [N, ...] in *batch*.

        Raises:
            ChildDied: When the engine's process ended during this batch. The next call starts
                another.
            EngineDown: When no other process can be started at the moment.
            FluxdropError: For any failure that would happen again.
        """

    @property
    def outage(self) -> str:
        """Why the engine cannot predict at the moment; empty when it can."""

    def check_health(self) -> None:
        """Check the engine's process and replace a broken one; called regularly while no pictures come.

        Raises:
            EngineDown: When no process can be started at the moment.
        """

    def close(self) -> None:
        """Free the model and end the engine's process."""


def label_rows(output: NDArray[np.float32], pictures: int) -> NDArray[np.float32]:
    """Return the *output* of a model for so many *pictures* with one row a picture.

    Classic networks give [N, K, 1, 1] instead of [N, K], and models that squeeze their output give [K]
    for one picture or [N] for one label. Any other output is returned as it is.
    """
    if output.ndim > 2 and set(output.shape[2:]) == {1}:
        return output.reshape(output.shape[:2])
    if output.ndim < 2:
        return output.reshape(1, -1) if pictures == 1 else output.reshape(-1, 1)
    return output


def run_in_batches(
    size: int | None,
    run: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    batch: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Run *batch* in pieces of *size*, for a model that was exported for that batch size only.

    Args:
        size: The batch size of the model; None when it takes any.
        run: Computes the outputs of one piece.
        batch: Tensors [N, ...].

    Returns:
        The N outputs. The last piece is padded with zeros, whose outputs are dropped.
    """
    if size is None or size == len(batch):
        return run(batch)
    padding = -len(batch) % size
    padded = np.concatenate([batch, np.zeros((padding, *batch.shape[1:]), dtype=batch.dtype)])
    pieces = [run(padded[start : start + size]) for start in range(0, len(padded), size)]
    return np.concatenate(pieces)[: len(batch)]
