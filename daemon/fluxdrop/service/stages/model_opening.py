"""Opening models: the first one, the one to change to, and a secondary one that a job names."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.predict.bundle import Bundle, load_bundle, load_installed
from fluxdrop.predict.choose_engine import open_engine
from fluxdrop.predict.engine import Engine
from fluxdrop.predict.on_demand import OnDemandEngine
from fluxdrop.resources import expanded, models_folder
from fluxdrop.service.items import Model, OpenModel, SwapModel
from fluxdrop.service.mailbox import Mailbox, ModelRefused
from fluxdrop.service.stages.handler import Batch, Handler

if TYPE_CHECKING:
    from fluxdrop.cluster.cluster_engine import PredictBrokerProcess

_WARM_UP_SECONDS = 2.0
_WARM_UP_BATCHES = 24


class ModelOpener:
    """Opens models, each with its engine."""

    def __init__(self, root: Root, wait_hook: Callable[[], None]) -> None:
        """Prepare to open models.

        Args:
            root: The root whose models can be named.
            wait_hook: Called repeatedly while an engine is awaited; what it raises ends the
                wait.
        """
        self._root = root
        self._wait_hook = wait_hook
        self._lock = threading.Lock()
        self._broker: PredictBrokerProcess | None = None
        """What runs the models of ``predict_on = "cluster"``."""

    def open(self, settings: Settings) -> Model:
        """Return the model that *settings* name, warmed up, on an engine of the calling thread.

        Raises:
            FluxdropError: There is no such model, or no engine can run it.
        """
        bundle = load_bundle(settings.model, self._root.models)
        return Model(bundle, self._engine(settings, bundle))

    def on_demand(self, name: str, settings: Settings, is_installed: bool) -> Model:
        """Return the model *name*, which is opened at first use, on the thread that uses it.

        Args:
            name: A model's name or, unless *is_installed*, its folder.
            settings: How to run it.
            is_installed: Whether only the name of an installed model is accepted.

        Raises:
            FluxdropError: There is no such model.
        """
        load = load_installed if is_installed else load_bundle
        bundle = load(name, self._root.models)
        return Model(bundle, OnDemandEngine(partial(self._engine, settings, bundle)))

    def is_named(self, bundle: Bundle, name: str) -> bool:
        """Return whether the setting ``model`` would mean *bundle* by *name*."""
        if bundle.name == name:
            return bundle.folder.parent in {self._root.models.resolve(), models_folder().resolve()}
        return "/" in name and expanded(name).resolve() == bundle.folder

    def _engine(self, settings: Settings, bundle: Bundle) -> Engine:
        if settings.predict_on == "cluster":
            from fluxdrop.cluster.cluster_engine import ClusterEngine

            return ClusterEngine(self._broker_of(settings), settings, bundle)
        return open_engine(
            settings,
            bundle,
            cache=self._root.graphs,
            compiles_apart=True,
            wait_hook=self._wait_hook,
        )

    def _broker_of(self, settings: Settings) -> PredictBrokerProcess:
        """Return the broker that all models of the cluster share."""
        from fluxdrop.cluster.cluster_engine import PredictBrokerProcess

        if not settings.cluster:
            raise FluxdropError(
                'predict_on is "cluster", and there is no cluster',
                hint='Set cluster to "auto" or to HOST:PORT of its head, or predict_on to "station".',
                kind="config",
            )
        with self._lock:
            if self._broker is None or self._broker.address != settings.cluster:
                self._broker = PredictBrokerProcess(settings.cluster, self._wait_hook)
            return self._broker


class Opening(Handler[OpenModel]):
    """Opens each requested model beside the one in use, and sends it through the stages.

    Its thread lives as long as the engines: on Linux a worker dies with the thread that started it.
    """

    name = "model"

    def __init__(
        self, opener: ModelOpener, mailbox: Mailbox, forward: Callable[[SwapModel], None]
    ) -> None:
        self._opener = opener
        self._mailbox = mailbox
        self._forward = forward

    def handle(self, batch: Batch[OpenModel]) -> None:
        """See `Handler.handle`."""
        for wanted in batch.unsettled:
            model = self._opener.open(wanted.settings)
            try:
                # Otherwise the first pictures for it would wait for that.
                warm_up_worker(model, wanted.settings.batch_size)
            except BaseException:
                model.engine.close()
                raise
            self._forward(SwapModel(model))
            batch.settle(wanted)

    def fail(self, item: OpenModel, error: FluxdropError) -> None:
        """See `Handler.fail`; the model in use stays in use."""
        self._mailbox.post(ModelRefused(error))


def warm_up_worker(model: Model, batch_size: int) -> None:
    """Have a worker compile what whole batches need, and collect its garbage the first times.

    Julia's first collections take a third of a second, which a flood for many models would notice. A
    model whose batches take long gets fewer of them.
    """
    if model.engine.info.pid is None:
        return
    one = np.zeros(model.bundle.spec.input.shape, dtype=np.float32)
    started = time.perf_counter()
    model.engine.predict(one)
    if (time.perf_counter() - started) * batch_size < _WARM_UP_SECONDS:
        batch = np.repeat(one, batch_size, axis=0)
        for _ in range(_WARM_UP_BATCHES):
            if time.perf_counter() - started < _WARM_UP_SECONDS:
                model.engine.predict(batch)
