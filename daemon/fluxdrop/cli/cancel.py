"""``fluxdrop cancel``."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from fluxdrop.cli.options import JsonOption, RootOption, print_json
from fluxdrop.cli.progress import spinner
from fluxdrop.cli.tables import print_rows
from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import find_root
from fluxdrop.jobs.row_facts import row_as_dict
from fluxdrop.jobs.store import Store
from fluxdrop.requests.messages import ask_to_cancel
from fluxdrop.requests.submission import wait_for_jobs


def cancel(
    job: Annotated[
        str,
        typer.Argument(
            metavar="JOB",
            help="A job's id, or the path below inbox/ of a file, for all the pictures that it asks for.",
        ),
    ],
    root: RootOption = None,
    json_output: JsonOption = False,
) -> None:
    """Cancel JOB, even while its picture is being generated.

    Its input is moved to outputs/failed/. Exit code 1 if the job was done before it could be cancelled.
    """
    served = find_root(root)
    with closing(Store(served.database, read_only=True)) as store:
        ids = [row.id for row in store.in_hand(job)]
        ended = bool(store.find(job))
    if not ids:
        raise FluxdropError(
            f"{job} has already ended" if ended else f"There is no unfinished job {job}",
            hint="A file that is still in inbox/ can simply be removed from it.",
            kind="cancel",
        )
    with spinner(f"Cancelling {job}"):
        ask_to_cancel(served, ids, lambda: None)
        rows = wait_for_jobs(served, ids, lambda _left: None)
    if json_output:
        print_json([row_as_dict(served, row) for row in rows])
    else:
        print_rows(served, rows)
    if any(row.state == "done" for row in rows):
        raise typer.Exit(1)
