"""The process that has models run on the cluster: ``python -m fluxdrop.cluster.predict_broker --in FD --out FD``.

It is a driver of Ray, which would end the daemon with itself when it loses the head. It answers one request at a
time, errors with FAILURE, and ends on STOP and at end of file.

=========  =======================================  ===================================================
frame      payload                                  answer
=========  =======================================  ===================================================
JOIN       the address of the cluster               LOADED, empty
LOAD       `OpenModel` or `CloseModel`              LOADED, a `ModelState`, or empty
PREDICT    the digest, 64 characters; a tensor      PREDICTION, of `pack_prediction`
PING                                                PONG
=========  =======================================  ===================================================
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError, Outage
from fluxdrop.predict.engine import EngineInfo
from fluxdrop.processes import wire
from fluxdrop.processes.child import ChildDied
from fluxdrop.processes.headed import pack_head, unpack_head
from fluxdrop.processes.parent import open_pipe
from fluxdrop.processes.wire import Frame, FrameKind, Pipe, WireError

if TYPE_CHECKING:
    from fluxdrop.cluster.predict_pool import PredictPool

OUTAGE, OPENING, DIED = "outage", "opening", "died"
"""The kinds of a FAILURE: no host can, no host has opened the model yet, an engine's process died."""
_DIGEST_BYTES = 64


class OpenModel(msgspec.Struct, frozen=True, tag="open"):
    """Have the hosts open the bundle in *folder*. It is answered soon, perhaps by a FAILURE of the kind OPENING."""

    folder: str
    settings: Settings


class CloseModel(msgspec.Struct, frozen=True, tag="close"):
    """Close a model."""

    digest: str


class ModelState(msgspec.Struct, frozen=True):
    """A model that hosts have open: the *digest* by which PREDICT names it, what runs it, and the hosts' names."""

    digest: str
    info: EngineInfo
    hosts: list[str]


def pack_prediction(
    info: EngineInfo, outputs: NDArray[np.float32]
) -> tuple[bytes | memoryview, ...]:
    """Return the payload of a PREDICTION: what made the *outputs*, with its length before it, and these."""
    return pack_head(info), *wire.pack_tensor(outputs)


def unpack_prediction(payload: bytes | bytearray) -> tuple[EngineInfo, NDArray[np.float32]]:
    """Return what `pack_prediction` packed. Raise WireError for a malformed payload."""
    info, end = unpack_head(payload, EngineInfo, "a prediction")
    return info, wire.unpack_tensor(payload[end:])


class PredictBroker:
    """Answers the frames of *pipe*."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._pool: PredictPool | None = None

    def run(self) -> None:
        """Serve until a STOP frame.

        Raises:
            PipeClosed: At end of file.
            WireError: When a frame is malformed or of an unknown kind.
        """
        facts = {"protocol": wire.PROTOCOL_VERSION, "pid": os.getpid()}
        self._pipe.send(FrameKind.HELLO, 0, wire.pack_facts(facts))
        while (frame := self._pipe.receive()).kind is not FrameKind.STOP:
            kind: FrameKind
            parts: tuple[bytes | memoryview, ...]
            try:
                kind, *parts_list = self._answer(frame)
                parts = tuple(parts_list)
            except WireError:
                raise
            except Exception as error:
                kind, parts = FrameKind.FAILURE, (wire.pack_facts(_facts(error)),)
            self._pipe.send(kind, frame.request, *parts)

    def _answer(self, frame: Frame) -> tuple[FrameKind, *tuple[bytes | memoryview, ...]]:
        match frame.kind:
            case FrameKind.PING:
                return FrameKind.PONG, b""
            case FrameKind.JOIN:
                from fluxdrop.cluster import ray_cluster
                from fluxdrop.cluster.predict_pool import PredictPool

                ray_cluster.join(bytes(frame.payload).decode())
                self._pool = PredictPool()
                return FrameKind.LOADED, b""
            case FrameKind.LOAD:
                return FrameKind.LOADED, self._load(bytes(frame.payload))
            case FrameKind.PREDICT:
                digest = bytes(frame.payload[:_DIGEST_BYTES]).decode()
                batch = wire.unpack_tensor(frame.payload[_DIGEST_BYTES:])
                info, outputs = self._joined.predict(digest, batch)
                return FrameKind.PREDICTION, *pack_prediction(info, outputs)
            case _:
                raise WireError(f"the broker cannot answer {frame.kind.name}")

    def _load(self, payload: bytes) -> bytes:
        order = msgspec.json.decode(payload, type=OpenModel | CloseModel)
        if isinstance(order, CloseModel):
            self._joined.close(order.digest)
            return b""
        return msgspec.json.encode(
            ModelState(*self._joined.open(Path(order.folder), order.settings))
        )

    @property
    def _joined(self) -> PredictPool:
        if self._pool is None:
            raise WireError("no cluster was joined")
        return self._pool


def _facts(error: Exception) -> dict[str, str]:
    """Return the facts of the FAILURE that tells of *error*."""
    if isinstance(error, FluxdropError):
        kind = error.kind
        if isinstance(error, ChildDied):
            kind = DIED
        elif type(error).__name__ == "StillOpening":
            kind = OPENING
        elif isinstance(error, Outage) or kind == "cluster":
            kind = OUTAGE
        return {
            "kind": kind,
            "message": error.message,
            "hint": error.hint,
        }
    traceback.print_exc()
    return {"kind": OUTAGE, "message": f"Ray failed: {type(error).__name__}", "hint": ""}


def main() -> None:
    """Parse the arguments, serve, and exit."""
    # The thread that starts it may end before it does.
    pipe = open_pipe("fluxdrop.cluster.predict_broker", is_bound_to_parent=False)
    with contextlib.suppress(wire.PipeClosed):
        PredictBroker(pipe).run()
    # What Ray does at an ordinary exit can take long. Its actors end with this process.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
