"""``fluxdrop info``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from fluxdrop.cli.options import JsonOption, print_json
from fluxdrop.generate.infotext import parse_infotext
from fluxdrop.generate.png_info import read_infotext


def info(
    picture: Annotated[
        Path, typer.Argument(metavar="PNG", help="A generated picture; also JPEG or WebP.")
    ],
    json_output: JsonOption = False,
) -> None:
    """Print the generation parameters that are stored in PNG.

    The picture may be by fluxdrop, AUTOMATIC1111, ComfyUI, InvokeAI, SwarmUI, Fooocus, NovelAI, Draw Things or
    Easy Diffusion.
    """
    infotext = read_infotext(picture)
    parameters, warnings = parse_infotext(infotext)
    if json_output:
        print_json(
            {
                "file": str(picture),
                "infotext": infotext,
                "parameters": msgspec.to_builtins(parameters),
                "warnings": warnings,
            }
        )
        return
    typer.echo(infotext)
    for warning in warnings:
        typer.echo(f"Warning: {warning}", err=True)
