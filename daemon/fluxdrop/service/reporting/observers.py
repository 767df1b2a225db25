"""The optional observers of the daemon's work: the gallery and the metrics."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fluxdrop.config import Settings
from fluxdrop.files.layout import Root
from fluxdrop.records.result import Record
from fluxdrop.service.reporting.heartbeat import DaemonStatus

if TYPE_CHECKING:
    from fluxdrop.gallery.updater import GalleryUpdater
    from fluxdrop.service.reporting.metrics import Metrics

_MIN_INTERVAL_SECONDS = 1.0


class Observers:
    """Passes on what happens to the gallery and the metrics, as far as the settings ask for them.

    After construction, no method raises or waits, except that `close` waits for the gallery's
    thread.
    """

    def __init__(self, root: Root, settings: Settings) -> None:
        """Start the observers that *settings* ask for.

        Raises:
            FluxdropError: The metrics' port is taken or not allowed.
        """
        self._gallery: GalleryUpdater | None = None
        self._metrics: Metrics | None = None
        self._updated = 0.0
        if settings.metrics_port or settings.metrics_file:
            from fluxdrop.service.reporting.metrics import Metrics

            self._metrics = Metrics(root, settings)
        if settings.gallery:
            from fluxdrop.gallery.updater import GalleryUpdater

            self._gallery = GalleryUpdater(root)
            self._gallery.start()

    @property
    def errors(self) -> list[str]:
        """The errors that keep an observer from being up to date, one sentence each."""
        parts = {"gallery": self._gallery, "metrics": self._metrics}
        return [
            f"{name}: {part.last_error}" for name, part in parts.items() if part and part.last_error
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

    def update(self, status: DaemonStatus) -> None:
        """Report the daemon's status, at most once a second."""
        silence = time.monotonic() - self._updated
        if self._metrics is not None and silence >= _MIN_INTERVAL_SECONDS:
            self._metrics.update(status)
            self._updated = time.monotonic()

    def close(self) -> None:
        """Stop the observers, after they have reported what they know."""
        for part in (self._gallery, self._metrics):
            if part is not None:
                part.close()
