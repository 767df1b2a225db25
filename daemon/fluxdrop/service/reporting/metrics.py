"""Prometheus metrics: over HTTP on the loopback address, or in a file for node_exporter.

Imported only if a setting asks for metrics. Both ways report the same, and neither holds up a job.
"""

from __future__ import annotations

import sqlite3
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    generate_latest,
    start_http_server,
)

from fluxdrop.config import Settings
from fluxdrop.delivery.deliveries import Deliveries
from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.files.layout import Root
from fluxdrop.logs import get_logger
from fluxdrop.processes import child
from fluxdrop.records.result import Failure, Record
from fluxdrop.service.reporting.cluster_metrics import ClusterMetrics
from fluxdrop.service.reporting.heartbeat import DaemonStatus

log = get_logger("fluxdrop.metrics")

_LOOPBACK = "127.0.0.1"
# A picture takes milliseconds in most stages, and a generation minutes.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """The daemon's metrics. Any thread may use it."""

    def __init__(self, root: Root, settings: Settings) -> None:
        """Start serving, or get ready to write, what *settings* ask for.

        Raises:
            FluxdropError: The port is taken or not allowed.
        """
        self.last_error = ""
        """Why the file could not be written the last time; empty if it could."""
        self._file = root.path / settings.metrics_file if settings.metrics_file else None
        self._registry = registry = CollectorRegistry()
        self._done = Counter("fluxdrop_jobs_done", "Jobs that came through", registry=registry)
        self._answers = Counter(
            "fluxdrop_answers",
            "Jobs that came through, by kind of answer",
            ["kind"],
            registry=registry,
        )
        self._failed = Counter(
            "fluxdrop_jobs_failed",
            "Jobs that failed, by stage and kind of reason",
            ["stage", "kind"],
            registry=registry,
        )
        self._stages = Histogram(
            "fluxdrop_stage_duration_seconds",
            "How long a stage took over a job that came through",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._up = Gauge("fluxdrop_up", "Whether the daemon serves its root", registry=registry)
        self._degraded = Gauge(
            "fluxdrop_degraded",
            "Whether the daemon is degraded; status says why",
            registry=registry,
        )
        self._inbox = Gauge(
            "fluxdrop_inbox_waiting",
            "Files in the inbox that are not claimed yet",
            registry=registry,
        )
        self._queue = Gauge(
            "fluxdrop_stage_jobs", "Jobs that wait or are in hand", ["stage"], registry=registry
        )
        self._starts = Counter(
            "fluxdrop_worker_starts",
            "Times that a process of the daemon was started; all but the first replace another",
            ["worker"],
            registry=registry,
        )
        self._info = Info("fluxdrop_daemon", "What runs", registry=registry)
        self._owed = Gauge(
            "fluxdrop_hook_owed",
            "Records that a hook, or results.csv, has not taken yet",
            ["hook"],
            registry=registry,
        )
        self._taken = Counter(
            "fluxdrop_hook_taken", "Records that a hook has taken", ["hook"], registry=registry
        )
        self._not_taken = Gauge(
            "fluxdrop_hook_dropped",
            "Records that a hook has refused, or that found no room, since it was switched on",
            ["hook"],
            registry=registry,
        )
        self._counted: dict[str, int] = {}
        self._started: dict[str, int] = {}
        self._cluster: ClusterMetrics | None = (
            ClusterMetrics(registry) if settings.cluster else None
        )
        self._server = _serve(settings.metrics_port, registry) if settings.metrics_port else None

    def count(self, record: Record) -> None:
        """Count a job that has ended with *record*."""
        if isinstance(record, Failure):
            self._failed.labels(record.error.stage, record.error.kind).inc()
            return
        self._done.inc()
        self._answers.labels(record.kind).inc()
        if self._cluster and record.generator and record.generator.host:
            self._cluster.count(record.generator.host)
        for stage, milliseconds in record.timings_ms.items():
            self._stages.labels(stage).observe(milliseconds / 1000)

    def update(self, status: DaemonStatus) -> None:
        """Set the gauges from *status* and write the file."""
        self._up.set(1)
        self._degraded.set(bool(status.degraded))
        self._inbox.set(status.inbox)
        for stage, jobs in status.stages.items():
            self._queue.labels(stage).set(jobs)
        self._count_starts()
        if self._cluster is None and status.hosts:
            # A cluster was set in the meantime.
            self._cluster = ClusterMetrics(self._registry)
        if self._cluster is not None:
            self._cluster.update(status.hosts)
        engine = status.engine
        self._info.info(
            {
                "version": status.version,
                "model": status.model,
                "engine": engine.engine if engine else "",
                "backend": engine.backend if engine else "",
                "watch": status.watch,
            }
        )
        self._write()

    def count_deliveries(self, deliveries: Deliveries) -> None:
        """Set how it stands with hooks and results.csv."""
        try:
            balances = deliveries.balances()
        except (OSError, sqlite3.Error):
            # The outlets report it.
            return
        for name, balance in balances.items():
            self._owed.labels(name).set(balance.owed)
            self._not_taken.labels(name).set(balance.refused + balance.lost)
        for name, taken in deliveries.taken.items():
            self._taken.labels(name).inc(taken - self._counted.get(name, 0))
            self._counted[name] = taken

    def close(self) -> None:
        """Report the daemon as down, write the file and stop the HTTP server."""
        self._up.set(0)
        self._count_starts()
        self._write()
        if self._server is not None:
            server, thread = self._server
            server.shutdown()
            server.server_close()
            thread.join()

    def _count_starts(self) -> None:
        for worker, times in child.starts.copy().items():
            self._starts.labels(worker).inc(times - self._started.get(worker, 0))
            self._started[worker] = times

    def _write(self) -> None:
        if self._file is None:
            return
        try:
            durable.write(self._file, generate_latest(self._registry), sync=False)
        except OSError as error:
            error_text = f"{self._file} cannot be written: {error.strerror}"
            if error_text != self.last_error:
                log.warning("metrics are behind", reason=error_text)
            self.last_error = error_text
        else:
            self.last_error = ""


def _serve(port: int, registry: CollectorRegistry) -> tuple[WSGIServer, Thread]:
    try:
        return start_http_server(port, addr=_LOOPBACK, registry=registry)
    except OSError as error:
        raise FluxdropError(
            f"metrics_port is {port}, where nothing can be served: {error.strerror}",
            hint="Choose a port that no other program has.",
            kind="config",
        ) from error
