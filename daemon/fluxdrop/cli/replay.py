"""``fluxdrop replay``."""

from __future__ import annotations

from typing import Annotated

import typer

from fluxdrop.cli.options import JsonOption, RootOption, print_json


def replay(
    job: Annotated[
        str, typer.Argument(metavar="JOB", help="A job's id, or the NAME of its result.")
    ],
    root: RootOption = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the result; exit code 1 if it failed.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Do JOB again, as a new job with the recorded parameters and seed; nothing is overwritten."""
    from fluxdrop.cli.progress import spinner
    from fluxdrop.cli.records import print_rows, row_as_dict
    from fluxdrop.jobs.replay import replay_job
    from fluxdrop.jobs.submission import wait_for_jobs
    from fluxdrop.layout import find_root

    served = find_root(root)
    original, job_id = replay_job(served, job)
    if not wait:
        if json_output:
            print_json({"job_id": job_id, "replay_of": original})
        else:
            typer.echo(f"{job_id} replays {original}")
        return
    with spinner("Waiting for the result"):
        rows = wait_for_jobs(served, [job_id], lambda _left: None)
    if json_output:
        print_json(row_as_dict(served, rows[0]))
    else:
        print_rows(rows)
    if rows[0].state == "failed":
        raise typer.Exit(1)
