"""``fluxdrop init``."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Annotated

import typer

from fluxdrop import ownership
from fluxdrop.cli.options import JsonOption, print_json
from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="The folder; it is made if it does not exist.")
    ],
    group: Annotated[
        str | None,
        typer.Option(
            metavar="GROUP",
            help="Give the folders to this group, whose members can then drop files, read results,"
            " replay and cancel jobs, and choose models.",
        ),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(
            metavar="ACCOUNT",
            help="Prepare the root for a daemon of this account. Needs --group and root rights.",
        ),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Make FOLDER a root, with an inbox/ that a daemon serves.

    Files that are already in it stay as they are.
    """
    if user is not None and group is None:
        raise FluxdropError("--user goes with --group", hint="Give both.")
    root = Root(folder.absolute())
    ownership.narrow_umask()
    root.create()
    root.check()
    if group is not None:
        ownership.open_to_group(root, user, group)
    serves = pwd.getpwnam(user).pw_uid if user is not None else os.geteuid()
    try:
        ownership.refuse(root, ownership.faults_of(root, serves))
    except FluxdropError as error:
        typer.echo(f"`fluxdrop run` would not serve it yet. {error}", err=True)
    if json_output:
        print_json({"root": str(root.path), "inbox": str(root.inbox)})
    else:
        typer.echo(f"{root.path} is a fluxdrop root. Serve it with: fluxdrop run --root {folder}")
