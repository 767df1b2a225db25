"""Checks of a root's contents: its daemon, waiting files, leftovers, and the index against outputs/."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

from fluxdrop.config import Settings
from fluxdrop.doctor.finding import Finding
from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root, holder
from fluxdrop.jobs.input_names import scan
from fluxdrop.jobs.overview import overview
from fluxdrop.jobs.row_facts import has_picture
from fluxdrop.jobs.side_files import side_files
from fluxdrop.jobs.store import JobFilter, Store
from fluxdrop.printable import printable

_LEFTOVER_SECONDS = 3600.0
"""The age from which a temporary file counts as left behind."""


def daemon(root: Root) -> Iterator[Finding]:
    """Check whether a daemon serves the root, and report what holds it up."""
    status = overview(root)
    if status.verdict == "not running":
        yield Finding("daemon", "note", "not running", f"Run: fluxdrop run --root {root.path}")
    else:
        yield Finding("daemon", "ok", f"{status.verdict}, pid {status.facts['pid']}")
    for reason in status.facts["degraded"]:
        yield Finding("daemon", "broken", reason, "docs/troubleshooting.md has what to do.")


def waiting(root: Root, settings: Settings) -> Iterator[Finding]:
    """Report files that wait longer than they should, and claimed jobs that wait for a daemon."""
    served = holder(root) is not None
    claimed = sum(path.is_dir() for path in root.work.iterdir()) if root.work.is_dir() else 0
    if claimed and not served:
        yield Finding(
            "claimed",
            "note",
            f"jobs that wait in {root.work}: {claimed}",
            "The next start does them.",
        )
    max_seconds = max(settings.incomplete_seconds, settings.scan_seconds) + 60
    stale: list[str] = []
    irregular: list[str] = []
    for path in scan(root.inbox, is_ignored=side_files(settings.ignore)):
        if not _is_regular(root.inbox / path):
            irregular.append(path)
        elif _age(root.inbox / path) > max_seconds:
            stale.append(path)
    if irregular:
        yield Finding(
            "inbox",
            "note",
            f"symlinks or other files that are not regular, which are left alone: {len(irregular)},"
            f" such as {printable(irregular[0])}",
            "Remove them, or put a copy of the file itself in the place of each symlink.",
        )
    if stale and served:
        yield Finding(
            "inbox",
            "note",
            f"files that have been there for a long time: {len(stale)}, such as {printable(stale[0])}",
            "Other work may come first (fluxdrop status); if not, the log says why they were not taken.",
        )
    elif not irregular:
        yield Finding("inbox", "ok", "nothing has been there for longer than it should")


def inbox_folders(root: Root, settings: Settings) -> Iterator[Finding]:
    """Check that the models, pipelines and samplers of the configured folders are there, and the folders themselves."""
    from fluxdrop.generate import samplers, sources
    from fluxdrop.predict.bundle import load_bundle

    for name, table in settings.folders.items():
        check = f"inbox/{name}"
        checks: list[Callable[[], object]] = [
            partial(load_bundle, model, root.models) for model in table.model_names
        ]
        if table.pipeline is not None and table.pipeline not in settings.pipelines:
            checks.append(partial(sources.find, table.pipeline))
        if table.sampler is not None:
            checks.append(partial(samplers.check, table.sampler))
        faults = [error for one in checks if (error := _error_of(one)) is not None]
        for error in faults:
            yield Finding(check, "broken", error.message, error.hint)
        if faults:
            continue
        models = ", ".join(table.model_names) or "the model in use"
        if (root.inbox / name).is_dir():
            yield Finding(check, "ok", f"answered by {models}")
        else:
            remedy = f"Create {root.inbox / name}, or correct the name in fluxdrop.toml."
            yield Finding(check, "note", f"the folder is not there; it would have {models}", remedy)


def _error_of(check: Callable[[], object]) -> FluxdropError | None:
    try:
        check()
    except FluxdropError as error:
        return error
    return None


def left_behind(root: Root) -> Iterator[Finding]:
    """Report temporary files that a crash left behind."""
    places = (root.outputs, root.generated, root.preprocessed, root.requests, root.models)
    old = [
        path
        for folder in places
        for path in _files(folder)
        if path.name.startswith(".") and path.suffix == ".tmp" and _age(path) > _LEFTOVER_SECONDS
    ]
    if old:
        yield Finding(
            "left behind",
            "note",
            f"temporary files of a crash: {len(old)}, such as {old[0]}",
            "They can be removed.",
        )
    else:
        yield Finding("left behind", "ok", "no temporary files of a crash")


def index(root: Root) -> Iterator[Finding]:
    """Check that index and outputs/ have the same records, and that each result has a picture."""
    with closing(Store(root.database, read_only=True)) as store:
        rows = {row.record: row for row in store.select(JobFilter()) if row.record is not None}
    known = rows.keys()
    there = {
        path.relative_to(root.path).as_posix()
        for path in _files(root.outputs)
        if path.suffix == ".json"
    }
    gone, unknown = known - there, there - known
    if gone:
        yield Finding(
            "index",
            "note",
            f"gone from outputs/: {len(gone)}, such as {min(gone)}",
            "If nobody moved them, restore them from a backup.",
        )
    if unknown:
        yield Finding(
            "index",
            "note",
            f"in outputs/ and not in it: {len(unknown)}, such as {min(unknown)}",
            f"If they are results: stop the daemon, move {root.database.name} away, start it again.",
        )
    if not (gone or unknown):
        yield Finding("index", "ok", f"{len(known)} results, as outputs/ has them")
    torn = [
        record
        for record in sorted(known & there)
        if not record.endswith(".error.json") and not has_picture(root, rows[record])
    ]
    if torn:
        yield Finding(
            "results",
            "note",
            f"without a picture beside them: {len(torn)}, such as {torn[0]}",
            "If nobody moved them, restore them from a backup.",
        )


def _files(folder: Path) -> Iterator[Path]:
    for current, _folders, files in os.walk(folder):
        yield from (Path(current, name) for name in files)


def _is_regular(path: Path) -> bool:
    """Return whether *path* is a regular file, or is gone meanwhile."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return True


def _age(path: Path) -> float:
    try:
        return time.time() - path.lstat().st_mtime
    except OSError:
        return 0.0
