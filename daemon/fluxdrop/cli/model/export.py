"""``fluxdrop model export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fluxdrop.cli.options import JsonOption, RootOption, print_json
from fluxdrop.cli.progress import spinner
from fluxdrop.cli.resolve import bundle_of, optional_root, settings_of
from fluxdrop.logs import configure
from fluxdrop.ownership import narrow_umask
from fluxdrop.predict.flux_export import export_bundle


def export(
    model: Annotated[
        str, typer.Argument(metavar="NAME", help="A model's name, or a bundle's folder.")
    ],
    flux: Annotated[
        Path,
        typer.Option(
            "--flux",
            metavar="FOLDER",
            help="Write flux_model.jl and its weights to this new folder.",
        ),
    ],
    root: RootOption = None,
    json_output: JsonOption = False,
) -> None:
    """Write an ONNX model as a native Flux model.

    It needs Flux and JLD2, and nothing of fluxdrop. It is compared with onnxruntime first.
    """
    configure("error")
    narrow_umask()
    served = optional_root(root)
    bundle = bundle_of(served, model)
    with spinner(f"Writing {bundle.name} as a Flux model"):
        difference = export_bundle(bundle, flux, settings_of(served))
    if json_output:
        print_json({"model": bundle.name, "folder": str(flux), "difference": difference})
        return
    typer.echo(
        f"{flux}: {bundle.name} as a Flux model; in Julia with Flux alone within {difference:.1e} of onnxruntime"
    )
    typer.echo(f"Add it with: fluxdrop model add {flux}")
