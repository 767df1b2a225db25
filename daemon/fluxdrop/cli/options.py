"""Options that several commands share, and the JSON that they print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

RootOption = Annotated[
    Path | None,
    typer.Option(
        "--root",
        metavar="FOLDER",
        help="Use this root, the folder that has inbox/. Default: $FLUXDROP_ROOT, else the current folder.",
    ),
]
SinceOption = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="TIME",
        help="Select jobs claimed since TIME: a date, or an age such as 30m, 6h or 7d.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
EngineOption = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="ENGINE",
        help="Run the model with auto, julia, juliacall or onnxruntime. Default: the setting.",
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="Use this model, a name or a bundle's folder. Default: the setting.",
    ),
]
LogLevelOption = Annotated[
    str | None,
    typer.Option(
        "--log-level",
        metavar="LEVEL",
        help="Log messages of this level and above: debug, info, warning or error.",
    ),
]


def print_json(value: Any) -> None:
    """Print *value* to stdout as indented JSON. Bytes of file names that are not UTF-8 become U+FFFD."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    # Python has the bytes of a file name that is not UTF-8 as surrogates, which cannot be printed.
    typer.echo(text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
