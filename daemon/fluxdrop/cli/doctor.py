"""``fluxdrop doctor``."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any

import msgspec
import typer

from fluxdrop import config
from fluxdrop.cli.lines import coloured, folded, hanging
from fluxdrop.cli.options import JsonOption, RootOption, print_json
from fluxdrop.cli.progress import spinner
from fluxdrop.cli.resolve import optional_root
from fluxdrop.doctor import cluster as hosts
from fluxdrop.doctor import contents, folders, machine
from fluxdrop.doctor.finding import Check, Finding, run
from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.logs import configure

_MARKS = {"ok": ("✓", "green"), "note": ("-", "yellow"), "broken": ("✗", "red")}
_INDENT = 18


def doctor(
    root: RootOption = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also load Flux and generate a picture.")
    ] = False,
    cluster: Annotated[
        bool,
        typer.Option(
            "--cluster",
            help="Check the hosts of the cluster instead; each makes a picture, unless its GPUs are in use.",
        ),
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Check the installation and the root, and suggest remedies.

    Checks everything that support would ask about; without a root, the machine alone. Exit code 1 if
    something is broken.
    """
    configure("error")
    served = optional_root(root)
    found: list[Finding] = []
    more: dict[str, Any] = {}
    if cluster:
        if deep:
            raise FluxdropError("--deep and --cluster do not go together", hint="Give one of them.")
        with spinner("Asking the hosts"):
            examined = hosts.examine(config.load(served.path if served else None))
        found += hosts.findings(examined)
        more = {"hosts": msgspec.to_builtins(examined.hosts)}
    else:
        with spinner("Looking") as say:
            for name, check in _checks(served, deep):
                say(f"Looking at: {name}")
                found += run(name, check)
    broken = sum(finding.verdict == "broken" for finding in found)
    if json_output:
        print_json({"broken": broken, "findings": [one._asdict() for one in found], **more})
    else:
        for line in _lines(found):
            typer.echo(line)
    if broken:
        raise typer.Exit(1)


def _checks(root: Root | None, deep: bool) -> Iterator[tuple[str, Check]]:
    """Yield the name and function of each check, after the checks that it depends on."""
    yield "fluxdrop", machine.versions
    settings = config.Settings()
    try:
        settings = config.load(root.path if root else None)
        yield "settings", lambda: [Finding("settings", "ok", "all keys and values are right")]
    except FluxdropError as error:
        wrong = Finding("settings", "broken", error.message, error.hint)
        yield "settings", lambda: [wrong]
    yield "julia", partial(machine.julia, settings, deep=deep)
    yield "engine", partial(machine.engine, settings, root)
    yield "generator", partial(machine.generator, settings, deep=deep)
    yield "gpu", partial(machine.gpu, settings)
    yield "service", machine.unit
    if root is None:
        return
    for name, check in (
        ("folders", folders.permissions),
        ("ownership", partial(folders.ownership, settings)),
        ("one filesystem", folders.claims),
        ("filesystem", folders.filesystem),
        ("hard links", folders.links),
        ("space", folders.space),
        ("inotify", folders.inotify),
        ("clock", folders.clock),
        ("daemon", contents.daemon),
        ("left behind", contents.left_behind),
        ("index", contents.index),
    ):
        yield name, partial(check, root)
    yield "inbox", partial(contents.waiting, root, settings)
    yield "inbox folders", partial(contents.inbox_folders, root, settings)


def _lines(found: list[Finding]) -> Iterator[str]:
    """Yield the lines that show *found* on this terminal, and a line with the totals."""
    width = shutil.get_terminal_size().columns
    for finding in found:
        mark, colour = _MARKS[finding.verdict]
        lines = hanging(finding.check, _INDENT - 2, finding.says, width - 2)
        for number, line in enumerate(lines):
            yield f"{coloured(mark, colour)} {line}" if number == 0 else f"  {line}"
        if finding.remedy and finding.verdict != "ok":
            for line in folded(finding.remedy, width - _INDENT - 2):
                yield " " * _INDENT + "  " + line
    counts = Counter(finding.verdict for finding in found)
    yield ""
    yield f"{counts['ok']} fine, {counts['note']} to know, {counts['broken']} broken."
