"""``fluxdrop model show``."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer

from fluxdrop.cli.options import JsonOption, RootOption, print_json
from fluxdrop.cli.resolve import bundle_of, optional_root, settings_of
from fluxdrop.printable import printable

_SHOWN_LABELS = 10


def show_model(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="A model's name, or a bundle's folder. Default: the one in use."
        ),
    ] = None,
    root: RootOption = None,
    json_output: JsonOption = False,
) -> None:
    """Show what a model's model.toml says, and where each value came from."""
    served = optional_root(root)
    used = settings_of(served).model
    bundle = bundle_of(served, model or used)
    values: dict[str, Any] = msgspec.to_builtins(bundle.spec)
    origin: dict[str, str] = values.pop("origin", {})
    if json_output:
        print_json(
            {
                "name": bundle.name,
                "folder": str(bundle.folder),
                "kind": bundle.kind,
                "sha256": bundle.sha256,
                "in_use": bundle.name == used,
                **values,
                "origin": origin,
            }
        )
        return
    typer.echo(f"{bundle.name}: {bundle.file}" + (" (in use)" if bundle.name == used else ""))
    inputs = values.pop("input")
    for table, prefix in ((values, ""), (inputs, "input.")):
        for key, value in table.items():
            if value is None or value in ("", []):
                continue
            source = origin.get(key)
            line = f"{prefix + key:<18} {_shown(value)}" + (f"   [{source}]" if source else "")
            typer.echo(printable(line))


def _shown(value: Any) -> str:
    """Return *value* on one line; of many labels, the first."""
    if not isinstance(value, list | tuple):
        return str(value)
    shown = ", ".join(
        f"{part:g}" if isinstance(part, float) else str(part) for part in value[:_SHOWN_LABELS]
    )
    return shown + (f", ... ({len(value)} in all)" if len(value) > _SHOWN_LABELS else "")
