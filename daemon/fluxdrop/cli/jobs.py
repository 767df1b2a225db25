"""``fluxdrop jobs``."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated, Literal

import typer

from fluxdrop.cli.arguments import in_range
from fluxdrop.cli.options import JsonOption, RootOption, SinceOption, print_json
from fluxdrop.cli.tables import print_rows
from fluxdrop.files.layout import find_root
from fluxdrop.jobs.row_facts import row_as_dict
from fluxdrop.jobs.store import JobFilter, Store
from fluxdrop.timestamps import parse_since

_MAX_LIMIT = 1_000_000_000


def jobs(
    root: RootOption = None,
    state: Annotated[
        Literal["claimed", "done", "failed"] | None,
        typer.Option(
            "--state", metavar="claimed|done|failed", help="List only jobs in this state."
        ),
    ] = None,
    since: SinceOption = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            metavar="GLOB",
            help="List only jobs with this input or result NAME; * also matches /.",
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            "--label",
            metavar="LABEL",
            help="List only jobs with this as the most probable or a found label.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="NAME", help="List only jobs classified by this model."),
    ] = None,
    folder: Annotated[
        str | None,
        typer.Option(
            "--folder",
            metavar="NAME",
            help="List only jobs whose file was dropped in or below this folder of the inbox.",
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            "--host",
            metavar="NAME",
            help="List only jobs whose picture this host of the cluster made.",
        ),
    ] = None,
    limit: Annotated[
        int,
        typer.Option(
            "--limit",
            "-n",
            metavar="N",
            callback=in_range(0, _MAX_LIMIT),
            help="List at most this many jobs; 0 lists all.",
        ),
    ] = 20,
    json_output: JsonOption = False,
) -> None:
    """List jobs, newest first."""
    served = find_root(root)
    earliest = parse_since(since) if since else None
    wanted = JobFilter(state, earliest, name, label, model, host=host, folder=folder)
    with closing(Store(served.database, read_only=True)) as store:
        rows = store.select(wanted, limit or -1)
    if json_output:
        print_json([row_as_dict(served, row) for row in rows])
    elif rows:
        print_rows(served, rows)
    else:
        typer.echo("There are no such jobs.", err=True)
