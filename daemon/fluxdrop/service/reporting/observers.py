"""The optional observers of the daemon's work: the gallery, the metrics, hooks and results.csv."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fluxdrop.config import Settings
from fluxdrop.files.layout import Root
from fluxdrop.records.result import Record
from fluxdrop.service.reporting.heartbeat import DaemonStatus

if TYPE_CHECKING:
    from fluxdrop.delivery.deliveries import Deliveries
    from fluxdrop.gallery.updater import GalleryUpdater
    from fluxdrop.service.reporting.metrics import Metrics

_MIN_INTERVAL_SECONDS = 1.0
_DRAIN_SECONDS = 1.0
_ONCE_DRAIN_SECONDS = 10.0


class Observers:
    """Passes on what happens to the gallery, the metrics and the outlets, as far as the settings ask for them.

    After construction, no method raises or waits, except that `close` waits for the threads.
    """

    def __init__(
        self,
        root: Root,
        settings: Settings,
        deliveries: Deliveries | None = None,
        *,
        once: bool = False,
    ) -> None:
        """Start the observers that *settings* ask for.

        Args:
            root: The root that the daemon serves.
            settings: The settings.
            deliveries: The outlets, if any, which are started and closed here.
            once: Whether `close` waits for longer, as no later run of the daemon follows soon.

        Raises:
            FluxdropError: The metrics' port is taken or not allowed.
        """
        self._gallery: GalleryUpdater | None = None
        self._metrics: Metrics | None = None
        self._updated = 0.0
        self._deliveries = deliveries
        self._drain_seconds = _ONCE_DRAIN_SECONDS if once else _DRAIN_SECONDS
        if settings.metrics_port or settings.metrics_file:
            from fluxdrop.service.reporting.metrics import Metrics

            self._metrics = Metrics(root, settings)
        if settings.gallery:
            from fluxdrop.gallery.updater import GalleryUpdater

            self._gallery = GalleryUpdater(root)
            self._gallery.start()
        if deliveries is not None:
            deliveries.start()

    @property
    def errors(self) -> list[str]:
        """The errors that keep an observer from being up to date, one sentence each."""
        parts = {"gallery": self._gallery, "metrics": self._metrics}
        return [
            *(
                f"{name}: {part.last_error}"
                for name, part in parts.items()
                if part and part.last_error
            ),
            *(self._deliveries.errors if self._deliveries is not None else ()),
        ]

    def job_ended(self, record: Record, path: str) -> None:
        """Report a job that has ended.

        Args:
            record: The job's record.
            path: The record's JSON file, relative to the root.
        """
        if self._metrics is not None:
            self._metrics.count(record)
        if self._gallery is not None:
            self._gallery.add(record, path)
        if self._deliveries is not None:
            self._deliveries.wake()

    def update(self, status: DaemonStatus) -> None:
        """Report the daemon's status, to the metrics at most once a second."""
        if self._gallery is not None:
            self._gallery.is_busy = status.stages.get("preprocess", 0) > 0
        silence = time.monotonic() - self._updated
        if self._metrics is not None and silence >= _MIN_INTERVAL_SECONDS:
            if self._deliveries is not None:
                self._metrics.count_deliveries(self._deliveries)
            self._metrics.update(status)
            self._updated = time.monotonic()

    def close(self) -> None:
        """Stop the observers, after they have reported what they know."""
        if self._deliveries is not None:
            self._deliveries.close(self._drain_seconds)
        for part in (self._gallery, self._metrics):
            if part is not None:
                part.close()
