"""``fluxdrop export``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedWriter
from pathlib import Path
from typing import IO, Annotated, Literal, TypeVar

import typer

from fluxdrop import config
from fluxdrop.cli.options import JsonOption, RootOption, SinceOption, print_json
from fluxdrop.cli.progress import steps_bar
from fluxdrop.cli.resolve import refuse_existing
from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.files.folders import opened, rename_new
from fluxdrop.files.layout import Root, find_root
from fluxdrop.jobs.job_filter import JobFilter
from fluxdrop.tables import writers
from fluxdrop.tables.answers import AnswerRow
from fluxdrop.tables.csv_text import BOM, CsvEncoder
from fluxdrop.tables.forms import Table, long_table, wide_table
from fluxdrop.tables.source import opened_index, read_rows
from fluxdrop.timestamps import parse_since

Format = Literal["csv", "jsonl", "parquet"]
_Row = TypeVar("_Row")
_STDOUT = Path("-")
_OTHER_SUFFIXES = frozenset(
    [".xlsx", ".xls", ".xlsm", ".xlsb", ".ods", ".tsv", ".json", ".html", ".xml"]
)
"""Ends of names that promise a format which is not written."""
_MAX_SHOWN = 5
_MAX_KEPT = 100


def export(
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write to this file; - is standard output."
        ),
    ] = _STDOUT,
    output_format: Annotated[
        Format | None,
        typer.Option(
            "--format",
            metavar="csv|jsonl|parquet",
            help="Write in this format. Default: what FILE ends with, else csv.",
        ),
    ] = None,
    long: Annotated[
        bool,
        typer.Option("--long", help="Write a row for each label, instead of a column for each."),
    ] = False,
    state: Annotated[
        Literal["done", "failed", "all"],
        typer.Option("--state", metavar="done|failed|all", help="Select jobs that ended so."),
    ] = "done",
    since: SinceOption = None,
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="TIME", help="Select jobs claimed before TIME."),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            "--label",
            metavar="LABEL",
            help="Select jobs with this as the most probable or a found label.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="NAME", help="Select jobs classified by this model."),
    ] = None,
    folder: Annotated[
        str | None,
        typer.Option(
            "--folder",
            metavar="FOLDER",
            help="Select jobs whose file was dropped in or below this folder of the inbox.",
        ),
    ] = None,
    raw: Annotated[
        bool,
        typer.Option(
            "--raw",
            help="Put no ' before text in CSV that a spreadsheet would run as a formula.",
        ),
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace FILE if it exists.")] = False,
    root: RootOption = None,
    json_output: JsonOption = False,
) -> None:
    """Write the results as a table: CSV, JSON Lines or Parquet.

    Each result is a row, the oldest first. A file is written whole or not at all.
    """
    served = find_root(root)
    form = output_format or _format_of(output)
    _refuse_output(served, output, form, replace, json_output)
    if form == "parquet":
        writers.require_parquet()
    wanted = JobFilter(
        None if state == "all" else state,
        parse_since(since) if since else None,
        until=parse_since(until, option="--until") if until else None,
        folder=folder,
    )
    counts = _Counts()
    with (
        _opened(output, replace) as file,
        opened_index(served, counts.skip) as store,
        steps_bar("Exporting") as show,
    ):
        counts.show, counts.total = show, store.count(wanted)
        # The index knows the first of several models' answers only, so the records tell.
        found = read_rows(served, store, wanted, counts.skip, counts.advance)
        rows = (row for row in found if row.is_of(model, label))
        encoder = CsvEncoder(is_raw=raw)
        if form == "csv" and output != _STDOUT:
            file.write(BOM)
        _write(file, form, long, rows, encoder, counts)
    _report(output, form, counts, encoder.guarded, json_output)


def _write(
    file: IO[bytes],
    form: Format,
    long: bool,
    rows: Iterator[AnswerRow],
    encoder: CsvEncoder,
    counts: _Counts,
) -> None:
    if form == "jsonl" and not long:
        writers.write_jsonl(file, counts.counted(rows))
        return
    with _table(rows, long) as whole:
        table = whole._replace(rows=counts.counted(whole.rows))
        if form == "csv":
            writers.write_csv(file, table, encoder)
        elif form == "jsonl":
            writers.write_jsonl_table(file, table)
        else:
            writers.write_parquet(file, table)


@contextmanager
def _table(rows: Iterator[AnswerRow], long: bool) -> Iterator[Table]:
    if long:
        yield long_table(rows)
        return
    with wide_table(rows) as table:
        yield table


class _Counts:
    """What was read and written, for the progress and the report."""

    def __init__(self) -> None:
        self.rows = 0
        self.skipped = 0
        self.reasons: list[str] = []
        self.total = 0
        self.show: Callable[[int, int], None] | None = None
        self._jobs = 0

    def skip(self, why: str) -> None:
        """Count a record that is left out."""
        self.skipped += 1
        if len(self.reasons) < _MAX_KEPT:
            self.reasons.append(why)

    def advance(self) -> None:
        """Count a job that was read."""
        self._jobs += 1
        if self.show is not None and self._jobs % 100 == 0:
            self.show(self._jobs, self.total)

    def counted(self, rows: Iterator[_Row]) -> Iterator[_Row]:
        """Yield *rows*, which are written, and count them."""
        for row in rows:
            self.rows += 1
            yield row


def _format_of(output: Path) -> Format:
    """Return the format for a file of this name. Raises FluxdropError, kind ``usage``, if that is not written."""
    formats: dict[str, Format] = {
        ".jsonl": "jsonl",
        ".ndjson": "jsonl",
        ".parquet": "parquet",
    }
    suffix = output.suffix.lower()
    if suffix in _OTHER_SUFFIXES:
        raise FluxdropError(
            f"{output.name} would not be what its name says: {suffix} is not written",
            hint="Name a file .csv, which spreadsheets open, .jsonl or .parquet, or give --format.",
            kind="usage",
        )
    return formats.get(suffix, "csv")


def _refuse_output(
    root: Root, output: Path, form: Format, replace: bool, json_output: bool
) -> None:
    """Raise FluxdropError, kind ``usage``, if *output* cannot be written in format *form*."""
    if output == _STDOUT:
        if json_output:
            raise FluxdropError(
                "--json reports on a file, and there is none",
                hint="Name one with -o.",
                kind="usage",
            )
        if form == "parquet":
            raise FluxdropError(
                "Parquet is not written to standard output",
                hint="Name a file with -o.",
                kind="usage",
            )
        return
    if not replace:
        refuse_existing(output)
    elif output.exists() and not output.is_file():
        raise FluxdropError(f"{output} is not a regular file, so it is not replaced", kind="usage")
    elif not output.parent.is_dir():
        raise FluxdropError(f"There is no folder {output.parent} for {output.name}", kind="usage")
    target = output.parent.resolve() / output.name
    own = [folder.resolve() for folder in (*root.shared, root.state)]
    own.append(root.path.resolve() / config.FILE)
    if config.load(root.path).results_csv:
        own.append(root.path.resolve() / root.results_csv.name)
    if any(target.is_relative_to(path) for path in own):
        raise FluxdropError(
            f"{output} is the daemon's to write", hint="Choose another name with -o.", kind="usage"
        )


@contextmanager
def _opened(output: Path, replace: bool) -> Iterator[IO[bytes]]:
    """Yield a file that becomes *output* when the body has ended without an error. Raises OSError."""
    if output == _STDOUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        with opened(output.parent) as folder, durable.temporary(folder) as (file, unfinished):
            writer = BufferedWriter(file)
            yield writer
            writer.flush()
            durable.wait_for(file.fileno())
            if replace:
                os.replace(unfinished, output.name, src_dir_fd=folder, dst_dir_fd=folder)
            else:
                rename_new(unfinished, output.name, folder, folder)
            durable.sync_open_folder(folder)
    except OSError as error:
        # The error of a write names no file, and others the temporary one, relative to the folder.
        if not Path(os.fsdecode(error.filename or "")).is_absolute():
            error.filename, error.filename2 = str(output), None
        raise


def _report(output: Path, form: Format, counts: _Counts, guarded: int, json_output: bool) -> None:
    if json_output:
        print_json(
            {
                "file": str(output),
                "format": form,
                "rows": counts.rows,
                "skipped": counts.skipped,
                "reasons": counts.reasons,
                "cells_made_safe": guarded,
            }
        )
        return
    for reason in counts.reasons[:_MAX_SHOWN]:
        typer.echo(f"left out: {reason}", err=True)
    if counts.skipped > _MAX_SHOWN:
        typer.echo(f"left out: {counts.skipped - _MAX_SHOWN:,} more", err=True)
    if guarded:
        typer.echo(
            f"A ' was put before {guarded:,} texts that a spreadsheet would run as formulas;"
            " --raw leaves them as they are.",
            err=True,
        )
    if output != _STDOUT:
        typer.echo(f"{output} has {counts.rows:,} rows.")
