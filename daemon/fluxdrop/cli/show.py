"""``fluxdrop show``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from fluxdrop.cli.options import JsonOption, RootOption, print_json
from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root, find_root
from fluxdrop.files.regular import is_file
from fluxdrop.jobs.job import Part, open_job
from fluxdrop.jobs.row_facts import row_as_dict, state_of
from fluxdrop.jobs.select import find_job
from fluxdrop.jobs.store import Row, Store
from fluxdrop.records.job_files import files_of, read_record
from fluxdrop.records.result import Record
from fluxdrop.timestamps import local

_MAX_LABELS = 10


def show(
    job: Annotated[
        str,
        typer.Argument(
            metavar="JOB",
            help="The id of a job or its first characters, a result's NAME, the dropped file, or a file of the job.",
        ),
    ],
    root: RootOption = None,
    json_output: JsonOption = False,
) -> None:
    """Show everything that is known about JOB.

    That is its state, parameters, timings, probabilities, files and replays, and which of the pictures it makes
    that its prompt file asks for.
    """
    served = find_root(root)
    with closing(Store(served.database, read_only=True)) as store:
        row = find_job(served, store, job)
        chain = list(_chain(store, row))
    record: Record | None = None
    problem = ""
    if row.record is not None:
        try:
            record = read_record(served, row)
        except FluxdropError as error:
            problem = error.message
    files = files_of(served, row.record, record) if record and row.record else {}
    facts = {
        "job": row_as_dict(served, row),
        "part": msgspec.to_builtins(record.part if record else _part_in_hand(served, row)),
        "record": msgspec.to_builtins(record) if record else None,
        "problem": problem or None,
        "files": {
            what: {"path": str(path.relative_to(served.path)), "there": is_file(path)}
            for what, path in files.items()
        },
        "chain": [row_as_dict(served, link) for link in chain],
    }
    if json_output:
        print_json(facts)
    else:
        _print(served, row, facts, chain)


def _chain(store: Store, row: Row) -> Iterator[Row]:
    """Yield the job that *row* replays in the end, then its replays, and theirs, oldest first.

    Each is yielded once, even if records that somebody wrote replay each other in a circle.
    """
    first, seen = row, {row.id}
    while first.replay_of is not None and first.replay_of not in seen:
        before = store.get(first.replay_of)
        if before is None:
            break
        first = before
        seen.add(first.id)
    waiting, known = [first], {first.id}
    while waiting:
        link = waiting.pop(0)
        yield link
        replays = [found for found in store.replays_of(link.id) if found.id not in known]
        known |= {found.id for found in replays}
        waiting += replays


def _part_in_hand(root: Root, row: Row) -> Part | None:
    """Return the part of a job without a record, from its folder; None if there is none that can be read."""
    with suppress(FluxdropError, OSError):
        job = open_job(root.work / row.id)
        return job.options.part if job else None
    return None


def _print(root: Root, row: Row, facts: dict[str, Any], chain: list[Row]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("job", row.id)
    table.add_row("state", state_of(root, row))
    table.add_row("source", f"{row.source} ({row.kind})")
    if facts["part"]:
        table.add_row("part", "{number} of {of}, the first is {first}".format(**facts["part"]))
    table.add_row("claimed", local(row.created))
    if row.finished:
        table.add_row("finished", local(row.finished))
    table.add_row("attempts", str(row.attempts))
    if facts["problem"]:
        table.add_row("problem", facts["problem"])
    for name, value in _sections(facts["record"] or {}):
        table.add_row(name, value)
    for what, file in facts["files"].items():
        table.add_row(what, file["path"] + ("" if file["there"] else "  (gone)"))
    before, after = _split(chain, row)
    for name, links in (("replay of", before), ("replays", after)):
        if links:
            table.add_row(name, "\n".join(f"{link.id}  {state_of(root, link)}" for link in links))
    Console(markup=False, highlight=False).print(table)


def _split(chain: list[Row], row: Row) -> tuple[list[Row], list[Row]]:
    """Return the jobs of *chain* that *row* replays, the last one first, and those that replay it."""
    by_id = {link.id: link for link in chain}
    before: list[Row] = []
    earlier = by_id.get(row.replay_of or "")
    while earlier is not None and earlier not in (row, *before):
        before.append(earlier)
        earlier = by_id.get(earlier.replay_of or "")
    known = {row.id}
    after = []
    for link in chain:
        if link.replay_of in known and link.id not in known:
            known.add(link.id)
            after.append(link)
    return before, after


def _sections(record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the name and text of each part of *record*; a text may have several lines."""
    if record.get("folder"):
        yield "folder", record["folder"]
    if record.get("error"):
        error = record["error"]
        yield "failed at", f"{error['stage']} ({error['kind']})"
        yield "reason", f"{error['message']} {error['hint']}".rstrip()
    if record.get("prompt"):
        yield "prompt", record["prompt"]
    if record.get("generation"):
        made = {key: value for key, value in record["generation"].items() if key != "prompt"}
        yield "parameters", _joined(made)
        yield "generator", _joined(record["generator"])
    if record.get("image"):
        image = record["image"]
        scale = record["preprocessed"]["jpeg_scale"]
        decoded = f", decoded at 1/{scale} of it" if scale > 1 else ""
        yield "size", f"{image['width']} x {image['height']} pixels{decoded}"
    if record.get("model"):
        for answer in record.get("predictions") or [record]:
            model = answer["model"]
            yield "model", _joined(model | {"sha256": model["sha256"][:12]})
            yield from _answer(answer)
    if record.get("timings_ms"):
        times = [f"{stage} {took:.1f} ms" for stage, took in record["timings_ms"].items()]
        yield "timings", ", ".join(times)
    for warning in record.get("warnings", []):
        yield "warning", warning


def _answer(record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the answer of a result, whatever its kind."""
    if record["kind"] == "multi-label":
        yield "labels", ", ".join(record["labels"]) or "none"
    ranked = sorted(record["probabilities"].items(), key=lambda item: -item[1])
    if ranked:
        yield "probabilities", "\n".join(f"{p:.6f}  {label}" for label, p in ranked[:_MAX_LABELS])
    for item in record["values"]:
        yield item["name"], f"{item['value']:.6g} {item['unit']}".rstrip()
    if record["embedding"]:
        yield "embedding", f"{record['embedding']['dimension']} numbers"


def _joined(facts: dict[str, Any]) -> str:
    known = {key: value for key, value in facts.items() if value not in (None, "")}
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in known.items())
