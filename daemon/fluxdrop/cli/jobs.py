"""``fluxdrop jobs``."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated, Literal

import typer

from fluxdrop.cli.options import JsonOption, RootOption, SinceOption, print_json
from fluxdrop.cli.tables import print_rows
from fluxdrop.files.layout import find_root
from fluxdrop.jobs.row_facts import row_as_dict
from fluxdrop.jobs.store import JobFilter, Store
from fluxdrop.timestamps import parse_since


def jobs(
    root: RootOption = None,
    state: Annotated[
        Literal["claimed", "done", "failed"] | None, typer.Option("--state", help="In this state.")
    ] = None,
    since: SinceOption = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="GLOB", help="Of this input or NAME; * matches / too."),
    ] = None,
    label: Annotated[str | None, typer.Option("--label", help="With this best label.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Judged by this model.")] = None,
    limit: Annotated[
        int,
        typer.Option("--limit", "-n", min=0, max=1_000_000_000, help="At most so many; 0: all."),
    ] = 20,
    json_output: JsonOption = False,
) -> None:
    """List jobs, the newest first."""
    served = find_root(root)
    wanted = JobFilter(state, parse_since(since) if since else None, name, label, model)
    with closing(Store(served.database, read_only=True)) as store:
        rows = store.select(wanted, limit or -1)
    if json_output:
        print_json([row_as_dict(served, row) for row in rows])
    elif rows:
        print_rows(served, rows)
    else:
        typer.echo("There are no such jobs.", err=True)
