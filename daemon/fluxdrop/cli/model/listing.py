"""``fluxdrop model list``."""

from __future__ import annotations

from typing import Any

import typer

from fluxdrop.cli.options import JsonOption, RootOption, print_json
from fluxdrop.cli.resolve import optional_root, settings_of
from fluxdrop.errors import FluxdropError
from fluxdrop.predict.bundle import known_bundles, load_bundle


def list_models(root: RootOption = None, json_output: JsonOption = False) -> None:
    """List the embedded models and those that were added.

    An asterisk marks the model in use.
    """
    served = optional_root(root)
    used = settings_of(served).model
    rows: list[dict[str, Any]] = []
    for name, folder in sorted(known_bundles(served.models if served else None).items()):
        row: dict[str, Any] = {"name": name, "folder": str(folder), "in_use": name == used}
        try:
            bundle = load_bundle(str(folder))
            given = bundle.spec.input
            row |= {"kind": bundle.kind, "size": list(given.size), "mode": given.mode}
            row |= {"output": bundle.spec.output, "labels": bundle.spec.labels}
        except FluxdropError as error:
            row["problem"] = error.message
        rows.append(row)
    if json_output:
        print_json(rows)
        return
    for row in rows:
        mark = "*" if row["in_use"] else " "
        if "problem" in row:
            typer.echo(f"{mark} {row['name']}: {row['problem']}")
        else:
            width, height = row["size"]
            more = ", ..." if len(row["labels"]) > 4 else ""
            labels = ", ".join(row["labels"][:4]) + more or row["output"]
            kind = " (native Flux)" if row["kind"] == "flux" else ""
            typer.echo(f"{mark} {row['name']}{kind}: {width}x{height} {row['mode']}, {labels}")
