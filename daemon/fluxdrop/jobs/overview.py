"""The state of a root, with or without a daemon, for ``fluxdrop status``.

People call it often and monitoring every minute, so this imports little: neither msgspec, numpy nor
rich.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.files.layout import REQUEST_SUFFIX, Root, holder
from fluxdrop.files.regular import open_given
from fluxdrop.jobs.input_names import kind_of, scan
from fluxdrop.jobs.outbox import balances
from fluxdrop.jobs.row_facts import row_as_dict
from fluxdrop.jobs.side_files import side_files
from fluxdrop.jobs.store import State, Store

ServiceState = Literal["running", "starting", "degraded", "not running"]

_LATEST = 5
_WINDOWS_MINUTES = (1, 5, 15)
"""The periods over which ended jobs are counted."""
_READ_TRIES = 3
_READ_RETRY_SECONDS = 0.02
_MAX_SILENCE_SECONDS = 30.0
"""Three times the longest pause between two heartbeats of an idle daemon."""


class Overview(NamedTuple):
    """A root's state; *facts* are for JSON."""

    verdict: ServiceState
    facts: dict[str, Any]


def overview(root: Root) -> Overview:
    """Return the state of *root*, from its lock, the last heartbeat, the inbox and the index."""
    pid = holder(root)
    daemon = _daemon_status(root, pid) if pid is not None else None
    degraded = list(daemon["degraded"]) if daemon else []
    silence = _silence(root) if daemon else 0.0
    if silence > _MAX_SILENCE_SECONDS:
        degraded.append(f"daemon: it has said nothing for {silence:.0f} seconds")
    if pid is not None and daemon is None and os.statvfs(root.path).f_bavail == 0:
        # A daemon that waits for room on the disk may have none for a heartbeat either.
        degraded.append(f"disk: {root.path} is full")
    facts: dict[str, Any] = {
        "root": str(root.path),
        "state": "",
        "running": pid is not None,
        "pid": pid or None,
        "daemon": daemon,
        "inbox": _inbox(root),
        "requests": _requests(root),
        "jobs": {"claimed": 0, "done": 0, "failed": 0},
        "per_minute": {str(minutes): {"done": 0.0, "failed": 0.0} for minutes in _WINDOWS_MINUTES},
        "latest_done": [],
        "latest_failed": [],
        "hooks": {},
    }
    try:
        facts |= _from_index(root)
    except FluxdropError as error:
        degraded.append(f"index: {error}")
    if pid is None:
        verdict: ServiceState = "not running"
    elif degraded:
        verdict = "degraded"
    else:
        verdict = "running" if daemon else "starting"
    return Overview(verdict, facts | {"state": verdict, "degraded": degraded})


def _inbox(root: Root) -> int:
    """Return how many prompts and pictures are in the inbox."""
    names = scan(root.inbox, is_ignored=side_files(_ignore(root)))
    return sum(kind_of(path.rpartition("/")[2]) is not None for path in names)


def _ignore(root: Root) -> list[str]:
    """Return the setting `ignore`; empty if the settings cannot be read."""
    try:
        with open_given(root.path / "fluxdrop.toml") as file:
            if b"ignore" not in file.read():
                # To load the settings takes longer than everything else here.
                return []
        from fluxdrop.config import load

        return load(root.path).ignore
    except (OSError, FluxdropError):
        # Whoever starts a daemon is told.
        return []


def _daemon_status(root: Root, pid: int) -> dict[str, Any] | None:
    """Return the last heartbeat of the daemon *pid*; None before its first."""
    for _ in range(_READ_TRIES):
        try:
            daemon: dict[str, Any] = json.loads(durable.read_own(root.heartbeat))
        except OSError:
            return None
        except ValueError:
            # On a full disk the daemon overwrites the file in place, so this may have read a part.
            time.sleep(_READ_RETRY_SECONDS)
            continue
        # A killed daemon leaves its last heartbeat behind. On a full disk the lock may have no pid.
        return daemon if pid in (0, daemon["pid"]) else None
    return None


def _silence(root: Root) -> float:
    try:
        return time.time() - root.heartbeat.stat().st_mtime
    except OSError:
        return 0.0


def _requests(root: Root) -> int:
    try:
        with os.scandir(root.requests) as entries:
            return sum(entry.name.endswith(REQUEST_SUFFIX) for entry in entries)
    except OSError:
        return 0


def _from_index(root: Root) -> dict[str, Any]:
    moment = datetime.now(UTC)
    states: tuple[State, ...] = ("done", "failed")
    with closing(Store(root.database, read_only=True)) as store:
        rates = _rates(store, states, moment)
        latest = {
            f"latest_{state}": [row_as_dict(root, row) for row in store.latest(state, _LATEST)]
            for state in states
        }
        hooks = {name: balance._asdict() for name, balance in balances(store).items()}
        return {"jobs": store.counts(), "per_minute": rates, **latest, "hooks": hooks}


def _rates(
    store: Store, states: tuple[State, ...], moment: datetime
) -> dict[str, dict[State, float]]:
    """Return how many jobs ended per minute, over each window before *moment*, by state."""
    counts = dict.fromkeys(states, 0)
    rates = {}
    # The first window goes beyond *moment*, for jobs that end during these queries.
    end = moment + timedelta(minutes=1)
    for minutes in _WINDOWS_MINUTES:
        start = moment - timedelta(minutes=minutes)
        for state in states:
            counts[state] += store.ended_between(state, start, end)
        rates[str(minutes)] = {state: round(counts[state] / minutes, 2) for state in states}
        end = start
    return rates
