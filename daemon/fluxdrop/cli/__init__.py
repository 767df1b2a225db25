"""The commands, one module each; what they need beyond typer they import when they run."""

from __future__ import annotations

from typing import Annotated

import typer

from fluxdrop import __version__
from fluxdrop.cli.arguments import check_arguments
from fluxdrop.cli.cancel import cancel
from fluxdrop.cli.config import config
from fluxdrop.cli.doctor import doctor
from fluxdrop.cli.gallery import gallery
from fluxdrop.cli.info import info
from fluxdrop.cli.init import init
from fluxdrop.cli.jobs import jobs
from fluxdrop.cli.model import model_app
from fluxdrop.cli.replay import replay
from fluxdrop.cli.run import run
from fluxdrop.cli.service import service_app
from fluxdrop.cli.show import show
from fluxdrop.cli.single import generate, predict, preprocess
from fluxdrop.cli.status import status
from fluxdrop.cli.submit import submit
from fluxdrop.provision.command import setup

app = typer.Typer(
    name="fluxdrop",
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


for command in (
    setup,
    init,
    config,
    run,
    submit,
    cancel,
    status,
    jobs,
    show,
    replay,
    gallery,
    doctor,
    generate,
    info,
    preprocess,
    predict,
):
    app.command()(command)
app.add_typer(model_app, name="model")
app.add_typer(service_app, name="service")
check_arguments(app)
