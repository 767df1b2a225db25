"""What ``fluxdrop status`` tells: the state of a root, with a daemon or without.

This imports little, as people call it often and monitoring calls it every minute: neither msgspec,
numpy nor rich.
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
from fluxdrop.files.layout import Root, holder
from fluxdrop.jobs.input_names import kind_of, scan
from fluxdrop.jobs.row_facts import row_as_dict
from fluxdrop.jobs.store import State, Store

ServiceState = Literal["running", "starting", "degraded", "not running"]

_LATEST = 5
# As `fluxdrop.requests.messages.SUFFIX`, whose module loads msgspec.
_REQUEST = ".request.json"
_WINDOWS = (1, 5, 15)
"""Minutes over which the jobs that ended are counted."""
_READ_TRIES = 3
_READ_PAUSE_SECONDS = 0.02
_LONGEST_SILENCE = 30.0
"""Seconds, three times what a daemon that has nothing to do lets pass between two heartbeats."""


class Overview(NamedTuple):
    """A root's state; *facts* are for JSON."""

    verdict: ServiceState
    facts: dict[str, Any]


def overview(root: Root) -> Overview:
    """Look at *root*: the lock, the last heartbeat, the inbox and the index."""
    pid = holder(root)
    beat = _beat(root, pid) if pid is not None else None
    degraded = list(beat["trouble"]) if beat else []
    silence = _silence(root) if beat else 0.0
    if silence > _LONGEST_SILENCE:
        degraded.append(f"daemon: it has said nothing for {silence:.0f} seconds")
    if pid is not None and beat is None and os.statvfs(root.path).f_bavail == 0:
        # A daemon that waits for room may have none for a heartbeat.
        degraded.append(f"disk: {root.path} is full")
    facts: dict[str, Any] = {
        "root": str(root.path),
        "state": "",
        "running": pid is not None,
        "pid": pid or None,
        "daemon": beat,
        "inbox": sum(kind_of(path.rpartition("/")[2]) is not None for path in scan(root.inbox)),
        "requests": _requests(root),
        "jobs": {"claimed": 0, "done": 0, "failed": 0},
        "per_minute": {str(minutes): {"done": 0.0, "failed": 0.0} for minutes in _WINDOWS},
        "latest_done": [],
        "latest_failed": [],
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
        verdict = "running" if beat else "starting"
    return Overview(verdict, facts | {"state": verdict, "degraded": degraded})


def _beat(root: Root, pid: int) -> dict[str, Any] | None:
    """The last heartbeat of the daemon *pid*; None before its first."""
    for _ in range(_READ_TRIES):
        try:
            beat: dict[str, Any] = json.loads(durable.read_own(root.heartbeat))
        except OSError:
            return None
        except ValueError:
            # On a full disk it is written over in place.
            time.sleep(_READ_PAUSE_SECONDS)
            continue
        # One that was killed leaves its last one behind. A lock on a full disk names nobody.
        return beat if pid in (0, beat["pid"]) else None
    return None


def _silence(root: Root) -> float:
    try:
        return time.time() - root.heartbeat.stat().st_mtime
    except OSError:
        return 0.0


def _requests(root: Root) -> int:
    try:
        with os.scandir(root.requests) as entries:
            return sum(entry.name.endswith(_REQUEST) for entry in entries)
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
        return {"jobs": store.counts(), "per_minute": rates, **latest}


def _rates(
    store: Store, states: tuple[State, ...], moment: datetime
) -> dict[str, dict[State, float]]:
    """How many jobs ended a minute, over each of the windows before *moment*, by state."""
    counts = dict.fromkeys(states, 0)
    rates = {}
    # A moment ahead, for what ended while this was asked; each job is counted once.
    end = moment + timedelta(minutes=1)
    for minutes in _WINDOWS:
        start = moment - timedelta(minutes=minutes)
        for state in states:
            counts[state] += store.ended_between(state, start, end)
        rates[str(minutes)] = {state: round(counts[state] / minutes, 2) for state in states}
        end = start
    return rates
