"""The command ``fluxdrop setup``."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.status import Status
from rich.text import Text

from fluxdrop.provision.check import check_julia
from fluxdrop.provision.progress import SetupProgress, Silent
from fluxdrop.provision.provide import SetupReport, provision


class Spinner:
    """Progress on a terminal: one line that changes, with the details of a step after its name."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self._step = ""

    def step(self, text: str) -> None:
        """Show *text* as the current step."""
        self._step = text
        self._show("")

    def detail(self, text: str) -> None:
        """Show *text* dimmed after the step, cut to the line."""
        self._show(text)

    def _show(self, detail: str) -> None:
        line = Text(self._step, no_wrap=True, overflow="ellipsis", end="")
        self._status.update(line.append(f"  {detail}", style="dim"))


class Lines:
    """Progress in a pipe: one line for each step, without details."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def step(self, text: str) -> None:
        """Print *text*."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def detail(self, text: str) -> None:
        """Do nothing: the log has the details."""


def setup(
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON, for programs.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Look again for a better engine than the one that an earlier setup found.",
        ),
    ] = False,
) -> None:
    """Install Julia and Flux, or the next best engine.

    Downloads Julia and Flux through juliapkg. If Julia's servers cannot be reached, uses the julia on
    PATH or, on Debian and its derivatives, downloads Debian's Julia into a folder of its own; fluxdrop
    then uses its own layers. Without any Julia, models run on onnxruntime. Everything is for
    this user alone: setup needs no root rights, and changes nothing that is already installed.
    """
    stderr, stdout = Console(stderr=True), Console()
    if json_output:
        report = _provide(Silent(), force)
    elif stderr.is_terminal:
        with stderr.status("Looking for Julia") as status:
            report = _provide(Spinner(status), force)
    else:
        report = _provide(Lines(stderr), force)
    if json_output:
        typer.echo(json.dumps(report.as_dict(), indent=2))
    else:
        _print(report, stdout)


def _provide(progress: SetupProgress, force: bool) -> SetupReport:
    report = provision(progress, force=force)
    if report.install is not None and report.steps[-1].name == "earlier setup":
        # The worker may be newer than its compiled code, which a service may not be able to write.
        progress.step(f"Running {report.install.executable}")
        check_julia(report.install)
    return report


def _print(report: SetupReport, console: Console) -> None:
    marks = {"used": ("✓", "green"), "skipped": ("-", "dim"), "failed": ("✗", "yellow")}
    for step in report.steps:
        mark, style = marks[step.outcome]
        line = Text.assemble((mark, style), " ", (step.name, "bold"), f": {step.reason}")
        console.print(line, soft_wrap=True)
    console.print(Text.assemble("Engine: ", (report.engine, "bold")))
    for remedy in report.remedies:
        console.print(Text(remedy), soft_wrap=True)
