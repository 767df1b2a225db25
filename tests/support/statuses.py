"""Heartbeats."""

from __future__ import annotations

from fluxdrop.service.reporting.heartbeat import DaemonStatus


def daemon_status(**changes: object) -> DaemonStatus:
    """The heartbeat of a daemon with nothing to do, but for *changes*."""
    facts: dict[str, object] = {
        "pid": 1,
        "version": "1",
        "started": "2026-01-01T00:00:00.000Z",
        "model": "round-or-angular",
        "engine": None,
        "generator_pid": None,
        "watch": "events",
        "filesystem": "",
        "inbox": 0,
        "stages": {"predict": 0},
        "current": None,
        "degraded": [],
    }
    return DaemonStatus(**(facts | changes))  # type: ignore[arg-type]
