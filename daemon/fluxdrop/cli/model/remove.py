"""``fluxdrop model remove``."""

from __future__ import annotations

from typing import Annotated

import typer

from fluxdrop.cli.options import JsonOption, RootOption, print_json
from fluxdrop.cli.resolve import settings_of
from fluxdrop.files.layout import find_root
from fluxdrop.predict.installed import remove_model


def remove(
    model: Annotated[
        str, typer.Argument(metavar="NAME", help="The name of a model that was added.")
    ],
    root: RootOption = None,
    json_output: JsonOption = False,
) -> None:
    """Remove a model that was added.

    The models in use, also for a folder, and those embedded in fluxdrop stay. Results remain.
    """
    served = find_root(root)
    folder = remove_model(served, model, settings_of(served))
    if json_output:
        print_json({"name": model, "folder": str(folder)})
    else:
        typer.echo(f"{model} is removed.")
