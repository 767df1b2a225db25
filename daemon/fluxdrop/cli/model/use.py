"""``fluxdrop model use``."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from fluxdrop.cli.options import JsonOption, RootOption, print_json
from fluxdrop.cli.progress import spinner
from fluxdrop.cli.resolve import settings_of
from fluxdrop.config import choose_model
from fluxdrop.files.layout import find_root, holder
from fluxdrop.logs import configure
from fluxdrop.ownership import narrow_umask
from fluxdrop.predict.bundle import load_installed
from fluxdrop.predict.choose_engine import open_engine
from fluxdrop.predict.compiled_models import compile_model
from fluxdrop.requests.messages import ModelRequest, ask_and_wait


def use(
    model: Annotated[str, typer.Argument(metavar="NAME", help="The name of an installed model.")],
    root: RootOption = None,
    json_output: JsonOption = False,
) -> None:
    """Classify pictures with this model from now on.

    A running daemon switches to it without a pause.
    """
    configure("error")
    served = find_root(root)
    with spinner(f"Loading {model}"):
        if holder(served) is not None:
            ask_and_wait(served, ModelRequest(model), lambda: None)
        else:
            narrow_umask()
            settings = settings_of(served, model=model)
            bundle = load_installed(model, served.models)
            with closing(open_engine(settings, bundle, cache=served.graphs)):
                choose_model(served, model)
    with spinner(f"Compiling {model}, so that it starts quickly"):
        compile_model(
            load_installed(model, served.models), settings_of(served, model=model), served.graphs
        )
    if json_output:
        print_json({"model": model, "running": holder(served) is not None})
    else:
        typer.echo(f"{model} is in use.")
