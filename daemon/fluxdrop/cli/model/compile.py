"""``fluxdrop model compile``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fluxdrop.cli.options import JsonOption, RootOption, print_json
from fluxdrop.cli.resolve import bundle_of, optional_root, refuse_existing
from fluxdrop.files.durable import write
from fluxdrop.predict.compiler.compile import compile_bundle


def compile_model(
    bundle: Annotated[
        str, typer.Argument(metavar="BUNDLE", help="A model's name, or a bundle's folder.")
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="Write the graph to this .graph file."),
    ],
    root: RootOption = None,
    json_output: JsonOption = False,
) -> None:
    """Compile a model to a graph file.

    julia/flux_model.jl and the worker read such files.
    """
    served = optional_root(root)
    loaded = bundle_of(served, bundle)
    refuse_existing(output)
    write(output, compile_bundle(loaded).parts())
    size = output.stat().st_size
    if json_output:
        print_json({"file": str(output), "model": loaded.name, "bytes": size})
    else:
        typer.echo(f"{output}: {loaded.name}, {size:,} bytes")
