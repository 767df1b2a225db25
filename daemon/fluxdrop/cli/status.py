"""``fluxdrop status``."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from fluxdrop.cli.lines import bold, columns, hanging, progress_text
from fluxdrop.cli.options import JsonOption, RootOption, print_json
from fluxdrop.files.layout import Root, find_root
from fluxdrop.jobs.overview import Overview, overview
from fluxdrop.timestamps import ago, local

EXIT_CODES = {"running": 0, "starting": 0, "degraded": 1, "not running": 3}
"""The exit code of `status` by verdict. 3 is what the Linux Standard Base has for a stopped service."""

_COLOURS = {"running": "green", "starting": "yellow", "degraded": "red", "not running": "yellow"}
_INDENT = 12
_MAX_HOST_CELL = 22
_WATCH_SECONDS = 1.0


def status(
    root: RootOption = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Refresh every second, until Ctrl-C.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Show what runs, what waits, the speed and the latest results.

    Exit code 0 if the daemon runs, 1 if it runs and something is wrong, 3 if it does not run, 2 if
    there is no such root.
    """
    served = find_root(root, without_inbox=True)
    if watch:
        _watch(served, json_output)
    seen = overview(served)
    _show(seen, json_output)
    raise typer.Exit(EXIT_CODES[seen.verdict])


def _watch(root: Root, json_output: bool) -> None:
    if json_output or not sys.stdout.isatty():
        while True:
            _show(overview(root), json_output)
            sys.stdout.flush()
            time.sleep(_WATCH_SECONDS)
    # Loading rich takes longer than all of `status` without --watch.
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            lines = status_lines(overview(root), console.width)
            live.update(Text.from_ansi("\n".join(lines)), refresh=True)
            time.sleep(_WATCH_SECONDS)


def _show(seen: Overview, json_output: bool) -> None:
    if json_output:
        print_json(seen.facts)
    else:
        for line in status_lines(seen, shutil.get_terminal_size().columns):
            typer.echo(line)


def status_lines(seen: Overview, width: int) -> Iterator[str]:
    """Yield *seen* as text, in lines of at most *width* cells."""
    facts = seen.facts
    yield from hanging("state", _INDENT, seen.verdict, width, _COLOURS[seen.verdict])
    for reason in facts["degraded"]:
        yield from hanging("degraded", _INDENT, reason, width, "red")
    for title, text in [*_daemon(facts), *_work(facts)]:
        yield from hanging(title, _INDENT, text, width)
    daemon = facts["daemon"] or {}
    # A daemon of an earlier version does not report these.
    if hosts := daemon.get("hosts", []):
        yield ""
        titles, *lines = columns(
            [("host", "GPU", "per hour", "seen", "job"), *_hosts(hosts, daemon["currents"])], width
        )
        yield bold(titles)
        yield from lines
    for title, rows in (
        ("Last results", [_result(row) for row in facts["latest_done"]]),
        ("Last failures", [_failure(row) for row in facts["latest_failed"]]),
    ):
        if rows:
            yield ""
            yield bold(title)
            yield from columns(rows, width)


def _daemon(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the title and text of each line about the running daemon."""
    yield "root", facts["root"]
    daemon = facts["daemon"]
    if daemon is None:
        if facts["running"]:
            yield "daemon", f"pid {facts['pid']}"
        return
    since = f"since {local(daemon['started'])} ({ago(daemon['started'])})"
    yield "daemon", f"fluxdrop {daemon['version']}, pid {daemon['pid']}, {since}"
    yield "model", daemon["model"]
    if daemon["engine"]:
        yield "engine", _engine(daemon["engine"])
        if daemon["engine"]["note"]:
            yield "note", daemon["engine"]["note"]
    # A daemon of an earlier version does not report these.
    for warm in daemon.get("warm", []):
        yield "also", _warm(warm)
    if daemon["generator_pid"]:
        yield "generator", f"pid {daemon['generator_pid']}"
    yield (
        "inbox by",
        daemon["watch"] + (f" on {daemon['filesystem']}" if daemon["filesystem"] else ""),
    )


def _work(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the title and text of each line about what waits, what is in progress and the throughput."""
    jobs, daemon = facts["jobs"], facts["daemon"]
    waiting = f"{facts['inbox']} in the inbox"
    if facts["requests"]:
        waiting += f", {facts['requests']} asked for by commands"
    yield "waiting", waiting
    if daemon:
        # The queue of model changes is nearly always empty; it is shown only if it is not.
        queues = [
            f"{stage} {count}"
            for stage, count in daemon["stages"].items()
            if count or stage != "model"
        ]
        yield "stages", ", ".join(queues)
    # A daemon of an earlier version does not report these.
    for left in (daemon or {}).get("irregular", []):
        yield "left alone", left
    # On hosts, each of them has a line below.
    if daemon and daemon["current"] and not daemon.get("hosts"):
        yield "generating", _generating(daemon["current"])
    if daemon and daemon.get("defects"):
        found = [
            f"{where}{f' ({n} times)' if n > 1 else ''}" for where, n in daemon["defects"].items()
        ]
        yield "defects", "; ".join(found) + "; the log has the tracebacks"
    ended = f"{jobs['done']} done, {jobs['failed']} failed so far"
    if jobs["claimed"]:
        claimed = "in hand" if facts["running"] else "to be taken up by the next start"
        ended = f"{jobs['claimed']} {claimed}; {ended}"
    yield "jobs", ended
    rates = [
        f"{sum(rate.values()):.4g} over {minutes} min"
        for minutes, rate in facts["per_minute"].items()
    ]
    yield "per minute", ", ".join(rates)
    for name, balance in facts["hooks"].items():
        yield name, _balance(balance)


def _hosts(
    hosts: list[dict[str, Any]], currents: list[dict[str, Any]]
) -> Iterator[tuple[str, ...]]:
    """Yield the cells of a line for each host; of long names, the beginning."""
    for host in hosts:
        runs = [run for run in currents if run["job_id"] in host["jobs"]]
        begun = [_generating(run) for run in runs] or [", ".join(host["jobs"])]
        reason = f"{host['state']}: {host['reason']}" if host["reason"] else ""
        rate = host["pictures_per_hour"]
        gpus = f"{host['slots']} x {host['gpu']}" if host["slots"] > 1 else host["gpu"]
        yield (
            host["name"][:_MAX_HOST_CELL],
            gpus[:_MAX_HOST_CELL],
            "" if rate is None else f"{rate:,.4g}",
            ago(host["last_seen"]) if host["last_seen"] else "never",
            "; ".join(filter(None, [*begun, reason])) or host["state"],
        )


def _balance(balance: dict[str, Any]) -> str:
    text = f"{balance['owed']:,} to hand on"
    if balance["refused"]:
        text += f", {balance['refused']:,} refused"
    if balance["lost"]:
        text += f", {balance['lost']:,} found no room"
    return f"{text}; {balance['problem']}" if balance["problem"] else text


def _result(row: dict[str, Any]) -> tuple[str, ...]:
    if row["there"]:
        p = row["probability"]
        return (_when(row), row["label"] or "", "" if p is None else f"{p:.3f}", row["record"])
    return (_when(row), "gone", "", row["record"])


def _failure(row: dict[str, Any]) -> tuple[str, ...]:
    reason = row["error"]
    names_it = reason.startswith(row["source"].rpartition("/")[2])
    return (_when(row), reason if names_it else f"{row['source']}: {reason}")


def _when(row: dict[str, Any]) -> str:
    return f"{ago(row['finished'])} ago".ljust(len("59 min 59 s ago"))


def _generating(current: dict[str, Any]) -> str:
    more = f" and {current['pictures'] - 1} more" if current["pictures"] > 1 else ""
    speed = (current[key] for key in ("step", "steps", "steps_per_second", "seconds_left"))
    return f"{current['file']} ({current['job_id']}){more}, {progress_text(*speed)}"


def _warm(warm: dict[str, Any]) -> str:
    """Return what is said of a model beside the one in use."""
    engine = warm["engine"]
    state = f"{_engine(engine)}, {warm['megabytes']:,} MB" if engine else "not open"
    folders = f" for {', '.join(warm['folders'])}" if warm["folders"] else ""
    waiting = f", {warm['waiting']} waiting" if warm["waiting"] else ""
    return f"{warm['model']}{folders}: {state}{waiting}"


def _engine(engine: dict[str, Any]) -> str:
    text = f"{engine['engine']} {engine['version']}"
    if engine["engine"].startswith("julia"):
        text += f", Flux {engine['flux']}" if engine["flux"] else ", plain layers"
        text += " with fluxdrop's layers" if engine["backend"] == "fast" else ""
    text += f", on {engine['device']}"
    return f"{text}, pid {engine['pid']}" if engine["pid"] else text
