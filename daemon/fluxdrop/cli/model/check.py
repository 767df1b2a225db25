"""``fluxdrop model check``."""

from __future__ import annotations

from typing import Annotated

import typer

from fluxdrop.cli.options import JsonOption, RootOption, print_json
from fluxdrop.cli.progress import steps_bar
from fluxdrop.cli.resolve import bundle_of, optional_root, settings_of
from fluxdrop.errors import FluxdropError
from fluxdrop.logs import configure
from fluxdrop.predict.julia_engine import run_graphs
from fluxdrop.predict.parity import TOLERANCE, samples
from fluxdrop.provision import find_julia

_PICTURES = 2


def check(
    model: Annotated[
        str, typer.Argument(metavar="NAME", help="A model's name, or a bundle's folder.")
    ],
    root: RootOption = None,
    json_output: JsonOption = False,
) -> None:
    """Compare a model in Julia with onnxruntime, node by node.

    Exit code 1 if a node diverges.
    """
    configure("error")
    served = optional_root(root)
    settings = settings_of(served)
    bundle = bundle_of(served, model)
    if bundle.kind == "flux":
        raise FluxdropError(
            f"The model {bundle.name} is a native Flux model: there is no ONNX file to compare it with",
            hint=f"Try it with `fluxdrop predict PICTURE --model {model}`.",
            kind="model",
        )
    install = find_julia()
    if install is None:
        raise FluxdropError(
            "There is no Julia to compare", hint="Run `fluxdrop setup`.", kind="julia"
        )
    # The compiler imports onnx.
    from fluxdrop.predict.node_check import by_node

    with (
        steps_bar(f"Checking {bundle.name}") as show,
        run_graphs(settings, install) as run,
    ):
        found = list(by_node(bundle, samples(bundle, settings)[:_PICTURES], run, show))
    diverging = [item for item in found if item.diverges]
    if json_output:
        print_json(
            {
                "model": bundle.name,
                "tolerance": TOLERANCE,
                "nodes": [item._asdict() for item in found],
                "diverges": diverging[0]._asdict() if diverging else None,
            }
        )
    else:
        typer.echo(f"{'difference':>10}  operator and node")
        for item in found:
            typer.echo(f"{item.relative:10.1e}  {item.operator} {item.node}")
        worst = max(found, key=lambda item: item.relative)
        typer.echo(f"The largest is {worst.relative:.1e} ({worst.operator} {worst.node}).")
        for item in diverging:
            typer.echo(f"More than rounding: {item.operator} {item.node}")
    if diverging:
        raise typer.Exit(1)
