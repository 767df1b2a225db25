"""``fluxdrop model``: what can be done with model bundles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fluxdrop.cli.options import JsonOption, print_json, refuse_existing

model_app = typer.Typer(help="Model bundles.", no_args_is_help=True, rich_markup_mode=None)


@model_app.callback()
def _model() -> None:
    pass


@model_app.command("compile")
def compile_model(
    bundle: Annotated[str, typer.Argument(help="An embedded bundle's name, or a folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .graph file to write.")],
    json_output: JsonOption = False,
) -> None:
    """Compile BUNDLE to the graph file that julia/flux_model.jl and the worker read."""
    from fluxdrop.durable import write
    from fluxdrop.predict.bundle import load_bundle
    from fluxdrop.predict.compiler.compile import compile_bundle

    loaded = load_bundle(bundle)
    refuse_existing(output)
    graph = compile_bundle(loaded)
    write(output, graph)
    if json_output:
        print_json({"file": str(output), "model": loaded.name, "bytes": len(graph)})
    else:
        typer.echo(f"{output}: {loaded.name}, {len(graph):,} bytes")
