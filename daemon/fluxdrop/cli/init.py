"""``fluxdrop init``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fluxdrop.cli.options import JsonOption, print_json


def init(
    folder: Annotated[Path, typer.Argument(help="The folder that becomes a root.")],
    json_output: JsonOption = False,
) -> None:
    """Make FOLDER a root: a folder with an inbox/ that a daemon serves. What is in it stays."""
    from fluxdrop.layout import Root

    root = Root(folder.absolute())
    root.create()
    root.check()
    if json_output:
        print_json({"root": str(root.path), "inbox": str(root.inbox)})
    else:
        typer.echo(f"{root.path} is a fluxdrop root. Serve it with: fluxdrop run --root {folder}")
