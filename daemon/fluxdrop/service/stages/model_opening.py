"""Opening models: the first one, the one that is changed to, and the one beside it that a job names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.predict.bundle import Bundle, load_bundle, load_installed
from fluxdrop.predict.choose import open_engine
from fluxdrop.predict.engine import Engine
from fluxdrop.predict.on_demand import OnDemandEngine
from fluxdrop.service.items import Model, OpenModel, Swap
from fluxdrop.service.mailbox import Mailbox, ModelRefused
from fluxdrop.service.stages.stage import Batch, Handler


class ModelOpener:
    """Opens the models of *root*; *wait_hook* is called while an engine is awaited, and may raise."""

    def __init__(self, root: Root, wait_hook: Callable[[], None]) -> None:
        self._root = root
        self._wait_hook = wait_hook

    def open(self, settings: Settings) -> Model:
        """The model that *settings* name, warm, on an engine of the calling thread's. Raises FluxdropError."""
        bundle = load_bundle(settings.model, self._root.models)
        return Model(bundle, self._engine(settings, bundle))

    def on_demand(self, name: str, settings: Settings) -> Model:
        """The installed model *name*, opened as *settings* say by the thread that first needs it. Raises FluxdropError
        where there is no such model."""
        bundle = load_installed(name, self._root.models)
        return Model(bundle, OnDemandEngine(partial(self._engine, settings, bundle)))

    def _engine(self, settings: Settings, bundle: Bundle) -> Engine:
        return open_engine(settings, bundle, cache=self._root.graphs, wait_hook=self._wait_hook)


class Opening(Handler[OpenModel]):
    """Opens each model that is wanted beside the one in use, and sends it on its way through the stages.

    Its thread lasts as long as the engines do: on Linux a worker ends with the thread that started it.
    """

    name = "model"

    def __init__(
        self, models: ModelOpener, mailbox: Mailbox, forward: Callable[[Swap], None]
    ) -> None:
        self._opener = models
        self._mailbox = mailbox
        self._forward = forward

    def handle(self, batch: Batch[OpenModel]) -> None:
        """See `Handler.handle`."""
        for wanted in batch.open:
            self._forward(Swap(self._opener.open(wanted.settings)))
            batch.settle(wanted)

    def give_up(self, item: OpenModel, error: FluxdropError) -> None:
        """See `Handler.give_up`: the model in use stays."""
        self._mailbox.post(ModelRefused(error))
