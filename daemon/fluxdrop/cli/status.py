"""``fluxdrop status``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from fluxdrop.cli.options import JsonOption, RootOption, print_json

if TYPE_CHECKING:
    from fluxdrop.jobs.store import Row
    from fluxdrop.layout import Root

_LATEST = 5


def status(root: RootOption = None, json_output: JsonOption = False) -> None:
    """Tell whether a daemon serves the root, what it runs, what waits, and what came last."""
    from fluxdrop.layout import find_root

    served = find_root(root)
    facts, done, failed = _facts(served)
    if json_output:
        print_json(facts)
    else:
        _print(served, facts, done, failed)


def _facts(root: Root) -> tuple[dict[str, Any], list[Row], list[Row]]:
    import msgspec

    from fluxdrop.cli.records import row_as_dict
    from fluxdrop.intake.names import kind_of
    from fluxdrop.intake.scan import scan
    from fluxdrop.jobs.store import Store
    from fluxdrop.layout import holder
    from fluxdrop.service.heartbeat import read

    pid = holder(root)
    beat = read(root.heartbeat) if pid is not None else None
    counts = {"claimed": 0, "done": 0, "failed": 0}
    done: list[Row] = []
    failed: list[Row] = []
    if root.database.exists():
        store = Store(root.database, read_only=True)
        try:
            counts |= store.counts()
            done, failed = store.latest("done", _LATEST), store.latest("failed", _LATEST)
        finally:
            store.close()
    waiting = sum(kind_of(path.rpartition("/")[2]) is not None for path in scan(root.inbox))
    facts = {
        "root": str(root.path),
        "running": pid is not None,
        "pid": pid or None,
        "daemon": msgspec.to_builtins(beat),
        "inbox": waiting,
        "jobs": counts,
        "latest_done": [row_as_dict(root, row) for row in done],
        "latest_failed": [row_as_dict(root, row) for row in failed],
    }
    return facts, done, failed


def _print(root: Root, facts: dict[str, Any], done: list[Row], failed: list[Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, highlight=False)
    beat = facts["daemon"]
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("root", str(root.path))
    if not facts["running"]:
        table.add_row("daemon", "not running")
    elif beat is None:
        table.add_row("daemon", f"pid {facts['pid']}, starting")
    else:
        table.add_row("daemon", f"pid {beat['pid']}, since {beat['started']}")
        table.add_row("model", beat["model"])
        table.add_row("engine", _engine(beat["engine"]))
        on = f" on {beat['filesystem']}" if beat["filesystem"] else ""
        table.add_row("inbox by", f"{beat['watch']}{on}")
        for trouble in beat["trouble"]:
            table.add_row("trouble", trouble)
        if beat["current"]:
            current = beat["current"]
            table.add_row(
                "generating",
                f"{current['file']}, step {current['step']} of {current['steps'] or '?'}",
            )
    jobs = facts["jobs"]
    table.add_row(
        "jobs",
        f"{facts['inbox']} in the inbox, {jobs['claimed']} in hand,"
        f" {jobs['done']} done, {jobs['failed']} failed",
    )
    console.print(table)
    _print_latest(root, "Last results", done)
    _print_latest(root, "Last failures", failed)


def _print_latest(root: Root, title: str, rows: list[Row]) -> None:
    from fluxdrop.cli.records import print_rows

    if rows:
        typer.echo(f"\n{title}")
        print_rows([row if _is_there(root, row) else row._replace(record="(gone)") for row in rows])


def _is_there(root: Root, row: Row) -> bool:
    return row.record is not None and (root.path / row.record).is_file()


def _engine(engine: dict[str, Any] | None) -> str:
    if engine is None:
        return "starting"
    text = f"{engine['engine']} {engine['version']}"
    if engine["engine"] == "julia":
        text += f", Flux {engine['flux']}" if engine["backend"] == "flux" else ", plain layers"
    text += f", on {engine['device']}"
    if engine["pid"]:
        text += f", pid {engine['pid']}"
    return f"{text} ({engine['note']})" if engine["note"] else text
