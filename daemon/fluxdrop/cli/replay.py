"""``fluxdrop replay``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from itertools import zip_longest
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from fluxdrop.cli.arguments import in_range
from fluxdrop.cli.options import JsonOption, RootOption, SinceOption, print_json
from fluxdrop.cli.progress import steps_bar
from fluxdrop.cli.tables import output_width, print_rows
from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root, find_root, holder
from fluxdrop.jobs.row_facts import row_as_dict
from fluxdrop.jobs.select import find_job, is_glob
from fluxdrop.jobs.store import JobFilter, Row, Store
from fluxdrop.predict.bundle import installed_folder
from fluxdrop.printable import printable
from fluxdrop.records.drift import (
    TOLERANCE,
    Drift,
    Verdict,
    compare,
    failed_unread,
    host_class_of,
)
from fluxdrop.records.job_files import read_record
from fluxdrop.requests.replay import Replay, plan_replay, request_replay
from fluxdrop.requests.submission import wait_for_replays
from fluxdrop.service.reporting.heartbeat import read
from fluxdrop.timestamps import parse_since

_USABLE = ("ready", "busy")


def replay(
    jobs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="JOB...",
            help="Ids of jobs, NAMEs of results, dropped files, files of jobs, or globs of NAMEs.",
        ),
    ] = None,
    root: RootOption = None,
    everything: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Replay every job that is done or has failed, but no job that is itself a replay.",
        ),
    ] = False,
    failed: Annotated[bool, typer.Option("--failed", help="Replay only jobs that failed.")] = False,
    since: SinceOption = None,
    start: Annotated[
        Literal["generate", "preprocess", "predict"],
        typer.Option(
            "--from",
            metavar="generate|preprocess|predict",
            help="Start from the input, the recorded picture or the recorded tensor.",
        ),
    ] = "generate",
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="NAME", help="Classify with this model instead of the one in use."
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print which jobs would be replayed, and replay none of them."
        ),
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the results; exit code 1 if one failed.")
    ] = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Wait for the results and show how they differ; exit code 1 if any does. Jobs that failed before"
            " their file was read are left out.",
        ),
    ] = False,
    tolerance: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER",
            callback=in_range(0, 1),
            help="With --verify, accept probabilities that differ by at most this. Default: 1e-4.",
        ),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Run jobs again, with the recorded parameters and seed.

    Each becomes a new job, and nothing is overwritten. Exit code 1 if a job cannot be replayed.
    """
    served = find_root(root)
    if not (jobs or everything or failed or since):
        raise FluxdropError("There is nothing to replay", hint="Name jobs, or give --all.")
    if (wait or verify) and not dry_run and holder(served) is None:
        raise FluxdropError(
            f"No daemon serves {served.path}, so there is nothing to wait for",
            hint="Start one with: fluxdrop run",
            kind="not-running",
        )
    if model is not None:
        installed_folder(model, served.models)
    wanted = JobFilter("failed" if failed else None, parse_since(since) if since else None)
    planned: list[Replay] = []
    refused: dict[str, FluxdropError] = {}
    unread = 0
    with steps_bar("Reading") as moved:
        rows = _chosen(served, jobs or [], wanted)
        for count, row in enumerate(rows, 1):
            try:
                item = plan_replay(served, row, start=start, model=model)
                if verify and failed_unread(item.record):
                    unread += 1
                else:
                    planned.append(item)
            except FluxdropError as error:
                if len(rows) == 1:
                    raise
                refused[row.id] = error
            if moved:
                moved(count, len(rows))
    asked: list[str] = []
    if verify and not dry_run:
        _warn_of_classes(served, planned)
    if not dry_run:
        with steps_bar("Asking") as moved:
            for item in planned:
                asked.append(request_replay(served, item))
                if moved:
                    moved(len(asked), len(planned))
    for job, reason in refused.items():
        typer.echo(f"{job} is left out: {reason}", err=True)
    if unread:
        typer.echo(f"{unread} failed before being read: not verified", err=True)
    if dry_run or not (wait or verify):
        _print_planned(served, planned, asked, json_output)
        succeeded = True
    elif verify:
        succeeded = _verify(served, planned, asked, tolerance, json_output)
    else:
        succeeded = _wait_and_print(served, asked, json_output)
    if refused or not succeeded:
        raise typer.Exit(1)


def _chosen(root: Root, jobs: Sequence[str], wanted: JobFilter) -> list[Row]:
    """Select the jobs to replay.

    Args:
        root: The root.
        jobs: What names them: ids, NAMEs, dropped files, files of jobs, or globs. If empty, all jobs are considered.
        wanted: The filter that they have to pass, too.

    Returns:
        The jobs, oldest first, each once. Globs and "all" leave out replays and unfinished jobs.

    Raises:
        FluxdropError: A name fits no job.
    """
    found: dict[str, Row] = {}
    with closing(Store(root.database, read_only=True)) as store:
        names: list[str | None] = [job for job in jobs if is_glob(job)]
        for name in names if jobs else [None]:
            rows = store.select(wanted._replace(name=name, replays=False))
            found |= {row.id: row for row in rows if row.state != "claimed"}
        for job in jobs:
            if not is_glob(job):
                row = find_job(root, store, job)
                if wanted.state in (None, row.state) and wanted.includes(row.id):
                    found[row.id] = row
    return sorted(found.values())


def _print_planned(
    root: Root, planned: Sequence[Replay], asked: Sequence[str], json_output: bool
) -> None:
    """Print which jobs are or would be replayed; *asked* has the ids of the new jobs, if any."""
    pairs = list(zip_longest(asked, planned))
    if json_output:
        print_json([{"job_id": job, "replay_of": item.row.id} for job, item in pairs])
        return
    for job, item in pairs:
        source = item.source.relative_to(root.path)
        typer.echo(f"{job} replays {item.row.id}" if job else f"{item.row.id} from {source}")
    if not pairs:
        typer.echo("There are no such jobs.", err=True)
    elif asked and holder(root) is None:
        typer.echo(
            f"No daemon serves {root.path}; the jobs wait for the next `fluxdrop run`.", err=True
        )


def _wait(root: Root, asked: Sequence[str]) -> list[Row | None]:
    """Wait for the jobs *asked*; return the row of each, or None for one that was refused, which is printed."""
    with steps_bar("Replaying") as moved:
        ended = wait_for_replays(
            root,
            asked,
            lambda left: moved(len(asked) - left, len(asked)) if moved else None,
        )
    for job, row in zip(asked, ended, strict=True):
        if not isinstance(row, Row):
            typer.echo(f"{job} was refused: {row}", err=True)
    return [row if isinstance(row, Row) else None for row in ended]


def _wait_and_print(root: Root, asked: Sequence[str], json_output: bool) -> bool:
    """Wait for the jobs *asked* and print them; return whether all of them succeeded."""
    ended = _wait(root, asked)
    rows = [row for row in ended if row is not None]
    if json_output:
        print_json([row_as_dict(root, row) for row in rows])
    else:
        print_rows(root, rows)
    return all(row is not None and row.state == "done" for row in ended)


def _verify(
    root: Root,
    planned: Sequence[Replay],
    asked: Sequence[str],
    tolerance: float | None,
    json_output: bool,
) -> bool:
    """Wait for the jobs *asked* and print how they differ from the recorded ones of *planned*.

    *tolerance* is the difference of probabilities that counts as equal, `TOLERANCE` if None.

    Returns:
        Whether all jobs ended and none differs.
    """
    found: list[tuple[Replay, Row, Drift]] = []
    ended = _wait(root, asked)
    for item, row in zip(planned, ended, strict=True):
        if row is None:
            continue
        drift = compare(
            root,
            item.record,
            item.row.record or "",
            read_record(root, row),
            row.record or "",
            TOLERANCE if tolerance is None else tolerance,
        )
        found.append((item, row, drift))
    if json_output:
        print_json([_as_dict(*entry) for entry in found])
    else:
        _print_drift(found)
    return None not in ended and all(drift.verdict == "same" for _, _, drift in found)


def _warn_of_classes(root: Root, planned: Sequence[Replay]) -> None:
    """Print the classes of hosts that generated pictures of *planned* and of which the daemon has no host now."""
    wanted = Counter(
        host_class_of(item.record) for item in planned if item.options.generation is not None
    )
    status = read(root.heartbeat)
    there = {host.host_class for host in status.hosts if host.state in _USABLE} if status else set()
    for host_class, count in wanted.items():
        if host_class is not None and host_class not in there:
            typer.echo(
                f"{count} generated by a host of the class {printable(host_class)}, which is not there now:"
                " pictures of another one may have other bits",
                err=True,
            )


def _as_dict(item: Replay, row: Row, drift: Drift) -> dict[str, Any]:
    return {"job_id": row.id, "replay_of": item.row.id, "source": row.source, **drift._asdict()}


def _print_drift(found: Sequence[tuple[Replay, Row, Drift]]) -> None:
    """Print the replays that differ as a table, and the number of each verdict."""
    different = [entry for entry in found if entry[2].verdict != "same"]
    if different:
        table = Table(box=None, pad_edge=False)
        for title in ("job", "source", "image", "tensor", "probabilities"):
            table.add_column(title, overflow="fold", no_wrap=title == "job")
        for item, row, drift in different:
            parts = (drift.image, drift.tensor, drift.probabilities)
            if drift.outcome != "same":
                parts = (drift.outcome, "", "")
            table.add_row(item.row.id, row.source, *parts)
        Console(markup=False, highlight=False, width=output_width()).print(table)
    counts = Counter(drift.verdict for _, _, drift in found)
    words: dict[Verdict, str] = {
        "same": "the same",
        "drifted": "drifted",
        "unknown": "not comparable",
    }
    said = [f"{counts[key]} {text}" for key, text in words.items() if counts[key] or key == "same"]
    typer.echo(f"{len(found)} replayed: {', '.join(said)}")
    if others := sum(drift.other_class for _, _, drift in found):
        typer.echo(f"{others} generated by a host of another class, so their bits may differ")
    if others := sum(drift.other_scale for _, _, drift in found):
        typer.echo(f"{others} decoded at another size (fast_jpeg), so their tensors differ")
