"""The actor that runs models on a host, for ``predict_on = "cluster"``: one for each host.

It opens models as a station does, each with a thread of its own. This module imports Ray only to fetch
a model's files.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

import fluxdrop
from fluxdrop.cluster.host_pipelines import HostPipelines
from fluxdrop.cluster.pipeline_cache import HostUnfit
from fluxdrop.cluster.pipeline_digest import Manifest
from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError, Outage
from fluxdrop.predict.bundle import load_bundle
from fluxdrop.predict.choose_engine import open_engine
from fluxdrop.predict.engine import Engine, EngineInfo
from fluxdrop.processes.child import ChildDied

_BESIDE = 1
"""How many models more than `warm_models` may be open: that of the setting ``model``."""


class OpenOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Open a model bundle."""

    version: str
    """The station's fluxdrop."""
    manifest: Manifest
    settings: Settings
    """The station's; those of the host win."""


class Opened(msgspec.Struct, frozen=True, tag="opened"):
    """The model is open."""

    info: EngineInfo


class Predicted(msgspec.Struct, frozen=True, tag="predicted"):
    """The outputs follow."""

    info: EngineInfo


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """It failed."""

    why: Literal["refused", "died", "unfit"]
    """The model or the pictures are at fault, the engine's process died, or the host cannot be used."""
    message: str
    hint: str = ""
    kind: str = ""


Reply = Opened | Predicted | Failed


class _OpenModel:
    """An open model, with the thread that its engine's process needs: on Linux that ends with the thread."""

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="predict")
        self.held = ExitStack()
        self.engine: Engine | None = None


class PredictWorker:
    """Opens models, and runs them on batches.

    Its methods return the `Reply` as JSON, and an array of the outputs, empty where there are none.
    """

    def __init__(self) -> None:
        # Ray hides the GPUs from an actor that reserves none, and gives it one thread.
        for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"):
            os.environ.pop(name, None)
        self._models: OrderedDict[str, _OpenModel] = OrderedDict()
        """By the digests of their bundles, the least recently used first."""

    async def open(self, order: bytes, server: Any) -> tuple[bytes, None]:
        """Open the model of an `OpenOrder`, given as JSON, unless it is open; *server* has its files."""
        wanted = msgspec.json.decode(order, type=OpenOrder)
        if wanted.version != fluxdrop.__version__:
            what = f"it has fluxdrop {fluxdrop.__version__}, and the station {wanted.version}"
            return _packed(Failed(why="unfit", message=what)), None
        digest = wanted.manifest.digest
        model = self._models.setdefault(digest, _OpenModel())
        self._models.move_to_end(digest)
        while len(self._models) > wanted.settings.warm_models + _BESIDE:
            self._close(next(iter(self._models)))
        reply, _nothing = await self._in_thread(model, lambda: (_open(model, wanted, server), None))
        if isinstance(reply, Failed):
            self._close(digest)
        return _packed(reply), None

    async def predict(
        self, digest: str, batch: NDArray[np.float32]
    ) -> tuple[bytes, NDArray[np.float32] | None]:
        """Run the open model *digest* on *batch*."""
        model = self._models.get(digest)
        if model is None or model.engine is None:
            return _packed(Failed(why="unfit", message="the model is not open there")), None
        self._models.move_to_end(digest)
        reply, outputs = await self._in_thread(model, lambda: _predict(model, batch))
        return _packed(reply), outputs

    async def close(self, digest: str) -> None:
        """Close the model *digest*, if it is open."""
        self._close(digest)

    async def _in_thread(
        self, model: _OpenModel, work: Callable[[], tuple[Reply, NDArray[np.float32] | None]]
    ) -> tuple[Reply, NDArray[np.float32] | None]:
        def guarded() -> tuple[Reply, NDArray[np.float32] | None]:
            try:
                return work()
            except (HostUnfit, Outage) as error:
                return Failed(why="unfit", message=error.message, hint=error.hint), None
            except ChildDied as error:
                return Failed(why="died", message=error.message), None
            except FluxdropError as error:
                return Failed(
                    why="refused", message=error.message, hint=error.hint, kind=error.kind
                ), None
            except Exception as error:
                message = f"it failed: {type(error).__name__}: {error}"
                return Failed(why="unfit", message=message), None

        return await asyncio.get_running_loop().run_in_executor(model.thread, guarded)

    def _close(self, digest: str) -> None:
        model = self._models.pop(digest, None)
        if model is not None:
            model.thread.submit(model.held.close)
            model.thread.shutdown(wait=False)


def _open(model: _OpenModel, wanted: OpenOrder, server: Any) -> Reply:
    if model.engine is None:
        from fluxdrop.cluster.pipeline_transfer import pieces_from

        contents = HostPipelines.of_this_host()
        path = model.held.enter_context(
            contents.content(wanted.manifest, lambda manifest: pieces_from(server, manifest))
        )
        engine = open_engine(
            contents.settings.applied(wanted.settings),
            load_bundle(str(path)),
            cache=contents.graphs,
        )
        model.held.callback(engine.close)
        model.engine = engine
    return Opened(model.engine.info)


def _predict(
    model: _OpenModel, batch: NDArray[np.float32]
) -> tuple[Reply, NDArray[np.float32] | None]:
    assert model.engine is not None
    outputs = model.engine.predict(batch)
    return Predicted(model.engine.info), outputs


def _packed(reply: Reply) -> bytes:
    return msgspec.json.encode(reply)
