"""The commands, one module each, which is imported when its command is called."""

from __future__ import annotations

from typing import Annotated, ClassVar

import typer

from fluxdrop import __version__
from fluxdrop.cli.lazy import Entry, LazyGroup


class _Commands(LazyGroup):
    entries: ClassVar = {
        "setup": Entry(
            "fluxdrop.provision.command:setup",
            "Provide Julia and Flux, or the next best engine, for this user.",
        ),
        "init": Entry(
            "fluxdrop.cli.init:init",
            "Make FOLDER a root: a folder with an inbox/ that a daemon serves.",
        ),
        "config": Entry(
            "fluxdrop.cli.config:config",
            "Show each setting and where it comes from: default, fluxdrop.toml, model use, variable or flag.",
        ),
        "run": Entry(
            "fluxdrop.cli.run:run",
            "Serve a root: turn what is dropped into its inbox/ into results, until stopped.",
        ),
        "submit": Entry(
            "fluxdrop.cli.submit:submit",
            "Drop copies of files, or prompts, into the inbox, each whole and under a name that is free.",
        ),
        "cancel": Entry(
            "fluxdrop.cli.cancel:cancel",
            "End JOB, also between the steps of its picture; its input goes to outputs/failed/.",
        ),
        "status": Entry(
            "fluxdrop.cli.status:status",
            "Tell what runs, what waits, how fast it goes, and what came last.",
        ),
        "jobs": Entry("fluxdrop.cli.jobs:jobs", "List jobs, the newest first."),
        "show": Entry(
            "fluxdrop.cli.show:show",
            "Show all that is known of JOB: parameters, timings, probabilities, files, replays.",
        ),
        "replay": Entry(
            "fluxdrop.cli.replay:replay",
            "Do jobs again, as new jobs with the recorded parameters and seed; nothing is overwritten.",
        ),
        "gallery": Entry(
            "fluxdrop.cli.gallery:gallery",
            "Make outputs/index.html anew from the results there are; what was deleted goes from it.",
        ),
        "doctor": Entry(
            "fluxdrop.cli.doctor:doctor",
            "Look at everything that a support question would ask, each with its remedy.",
        ),
        "generate": Entry(
            "fluxdrop.cli.generate:generate",
            "Make a picture of PROMPT; where it asks for several, the others get -2, -3, ... at their names.",
        ),
        "info": Entry(
            "fluxdrop.cli.info:info",
            "Print what PNG says of how it was generated, by fluxdrop or another program.",
        ),
        "preprocess": Entry(
            "fluxdrop.cli.preprocess:preprocess",
            "Turn PICTURE into the tensor that the model sees.",
        ),
        "predict": Entry(
            "fluxdrop.cli.predict:predict",
            "Print what the model makes of a picture, or of a tensor from `fluxdrop preprocess`.",
        ),
        "model": Entry("fluxdrop.cli.model:model_app", "The models that judge the pictures."),
        "service": Entry("fluxdrop.cli.service:service_app", "The daemon as a systemd service."),
    }


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
