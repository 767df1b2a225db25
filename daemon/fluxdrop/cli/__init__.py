"""The commands, one module each, imported when the command is called."""

from __future__ import annotations

import sys
from typing import Annotated, Any, ClassVar

import typer

from fluxdrop import __version__
from fluxdrop.cli.lazy import Entry, LazyGroup

# The base class of every error in the use of a command; typer exports only this subclass.
_UsageError: Any = typer.BadParameter.__base__


class _Commands(LazyGroup):
    """The commands. An error in their use is also printed as JSON if ``--json`` is among the arguments."""

    entries: ClassVar = {
        "setup": Entry(
            "fluxdrop.provision.command:setup",
            "Install Julia and Flux, or the next best engine.",
        ),
        "init": Entry(
            "fluxdrop.cli.init:init",
            "Make FOLDER a root, with an inbox/ that a daemon serves.",
        ),
        "config": Entry(
            "fluxdrop.cli.config:config",
            "Show each setting and where its value comes from.",
        ),
        "run": Entry(
            "fluxdrop.cli.run:run",
            "Serve a root: turn the files in its inbox/ into results.",
        ),
        "submit": Entry(
            "fluxdrop.cli.submit:submit",
            "Drop copies of files, or prompts, into the inbox.",
        ),
        "cancel": Entry(
            "fluxdrop.cli.cancel:cancel",
            "Cancel JOB, even while its picture is being generated.",
        ),
        "status": Entry(
            "fluxdrop.cli.status:status",
            "Show what runs, what waits, the speed and the latest results.",
        ),
        "jobs": Entry("fluxdrop.cli.jobs:jobs", "List jobs, newest first."),
        "show": Entry(
            "fluxdrop.cli.show:show",
            "Show everything that is known about JOB.",
        ),
        "export": Entry(
            "fluxdrop.cli.export:export",
            "Write the results as a table: CSV, JSON Lines or Parquet.",
        ),
        "replay": Entry(
            "fluxdrop.cli.replay:replay",
            "Run jobs again, with the recorded parameters and seed.",
        ),
        "gallery": Entry(
            "fluxdrop.cli.gallery:gallery",
            "Rebuild outputs/index.html from the results in outputs/.",
        ),
        "doctor": Entry(
            "fluxdrop.cli.doctor:doctor",
            "Check the installation and the root, and suggest remedies.",
        ),
        "generate": Entry(
            "fluxdrop.cli.generate:generate",
            "Generate a picture from PROMPT.",
        ),
        "info": Entry(
            "fluxdrop.cli.info:info",
            "Print the generation parameters that are stored in PNG.",
        ),
        "preprocess": Entry(
            "fluxdrop.cli.preprocess:preprocess",
            "Convert PICTURE into the tensor that the model takes.",
        ),
        "predict": Entry(
            "fluxdrop.cli.predict:predict",
            "Print what the model says of a picture.",
        ),
        "model": Entry(
            "fluxdrop.cli.model:model_app", "Manage the models that classify the pictures."
        ),
        "service": Entry(
            "fluxdrop.cli.service:service_app", "Manage the daemon as a systemd service."
        ),
    }

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """See `TyperGroup.make_context`; it parses the words before the command."""
        try:
            return super().make_context(*args, **kwargs)
        except _UsageError as error:
            _print_if_json(error)
            raise

    def invoke(self, ctx: Any) -> Any:
        """See `TyperGroup.invoke`; it parses the words of the command and calls it."""
        try:
            return super().invoke(ctx)
        except _UsageError as error:
            _print_if_json(error)
            raise


def _print_if_json(error: Any) -> None:
    if "--json" not in sys.argv:
        return
    from fluxdrop.cli.refusal import print_as_json
    from fluxdrop.errors import FluxdropError

    hint = f"Try '{error.ctx.command_path} --help' for help." if error.ctx else ""
    print_as_json(FluxdropError(error.format_message(), hint=hint, kind="usage"))


app = typer.Typer(
    name="fluxdrop",
    cls=_Commands,
    help="Drop a prompt or a picture into a folder; get the picture and what a Flux model makes of it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fluxdrop {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
