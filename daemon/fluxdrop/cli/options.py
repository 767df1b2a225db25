"""Options that several commands share."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from fluxdrop.config import Settings
    from fluxdrop.files.layout import Root
    from fluxdrop.predict.bundle import Bundle

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
LogLevelOption = Annotated[
    str | None, typer.Option("--log-level", help="debug, info, warning or error.")
]


def print_json(value: Any) -> None:
    """Print *value* as JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    # A file's name need not be UTF-8.
    typer.echo(text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))


def optional_root(given: Path | None) -> Root | None:
    """The root that is meant, where there is one; None where none is given and none is here."""
    from fluxdrop.files.layout import Root, find_root

    if given is not None or os.environ.get("FLUXDROP_ROOT") or Root(Path.cwd()).inbox.is_dir():
        return find_root(given)
    return None


def settings_of(root: Root | None, **flags: str | None) -> Settings:
    """The settings of *root*, or without one those of the environment; *flags* win over them."""
    from fluxdrop import config

    return config.load(root.path if root else None, flags)


def bundle_of(root: Root | None, model: str) -> Bundle:
    """The bundle that *model* names: one added to *root*, an embedded one, or a folder."""
    from fluxdrop.predict.bundle import load_bundle

    return load_bundle(model, root.models if root else None)


def refuse_existing(output: Path) -> None:
    """Raise FluxdropError where *output* is there already or has no folder to lie in."""
    from fluxdrop.errors import FluxdropError

    if output.exists():
        raise FluxdropError(f"{output} is there already", hint="Choose another name with -o.")
    if not output.parent.is_dir():
        raise FluxdropError(f"There is no folder {output.parent} for {output.name}")
