"""Options that several commands share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

RootOption = Annotated[
    Path | None,
    typer.Option(
        "--root", help="The root: the folder that has inbox/. Default: $FLUXDROP_ROOT, else here."
    ),
]
SinceOption = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="Claimed since: 30m, 6h, 7d ago, or a date."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
EngineOption = Annotated[
    str | None,
    typer.Option("--engine", help="auto, julia, juliacall or onnxruntime; default: the setting."),
]
ModelOption = Annotated[
    str | None, typer.Option("--model", help="The model bundle; default: the setting.")
]
LogLevelOption = Annotated[
    str | None, typer.Option("--log-level", help="debug, info, warning or error.")
]


def print_json(value: Any) -> None:
    """Print *value* as JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    # A file's name need not be UTF-8.
    typer.echo(text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
