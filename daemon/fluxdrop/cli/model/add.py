"""``fluxdrop model add``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fluxdrop.cli.model import input_options
from fluxdrop.cli.model.input_options import (
    BackgroundOption,
    CropPctOption,
    FilterOption,
    LayoutOption,
    MeanOption,
    ModeOption,
    PadOption,
    PresetOption,
    ResamplerOption,
    ResizeOption,
    ResizeToOption,
    ScaleOption,
    SizeOption,
    StdOption,
)
from fluxdrop.cli.model.output_options import (
    ActivationOption,
    OutputNameOption,
    OutputOption,
    ThresholdOption,
    UnitOption,
    ValueNameOption,
)
from fluxdrop.cli.options import EngineOption, JsonOption, RootOption, print_json
from fluxdrop.cli.progress import spinner
from fluxdrop.cli.resolve import settings_of
from fluxdrop.files.layout import find_root
from fluxdrop.logs import configure
from fluxdrop.ownership import narrow_umask
from fluxdrop.predict.compiled_models import compile_model
from fluxdrop.predict.label_file import labels_of
from fluxdrop.predict.library import add_model


def add(
    source: Annotated[
        Path,
        typer.Argument(metavar="FILE.onnx|FOLDER", help="An ONNX file, or the folder of a bundle."),
    ],
    root: RootOption = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Add it under this name. Default: the name of the file or folder."
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="LABELS|FILE",
            help="Use these labels, separated by commas, or those in this file: lines, CSV or JSON.",
        ),
    ] = None,
    preset: PresetOption = None,
    size: SizeOption = None,
    mode: ModeOption = None,
    resize: ResizeOption = None,
    resize_to: ResizeToOption = None,
    crop_pct: CropPctOption = None,
    pad: PadOption = None,
    filter_: FilterOption = None,
    resampler: ResamplerOption = None,
    background: BackgroundOption = None,
    scale: ScaleOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    layout: LayoutOption = None,
    output: OutputOption = None,
    output_name: OutputNameOption = None,
    activation: ActivationOption = None,
    threshold: ThresholdOption = None,
    value_name: ValueNameOption = None,
    unit: UnitOption = None,
    engine: EngineOption = None,
    json_output: JsonOption = False,
) -> None:
    """Add an image model to the root, after testing that it works.

    An ONNX model must give the same results as onnxruntime; a native Flux model must run.
    """
    configure("error")
    narrow_umask()
    served = find_root(root)
    options = input_options.with_preset(
        preset,
        {
            "size": input_options.size(size),
            "mode": mode,
            "resize": resize,
            "resize_to": input_options.resize_to(resize_to),
            "crop_pct": input_options.crop_pct(crop_pct),
            "pad": pad,
            "filter": filter_,
            "resampler": resampler,
            "background": background,
            "scale": scale,
            "mean": input_options.numbers("--mean", mean),
            "std": input_options.numbers("--std", std),
            "layout": layout,
        },
    )
    options |= {
        "output": output,
        "output_name": output_name,
        "activation": activation,
        "thresholds": input_options.numbers("--threshold", threshold),
        "value_name": value_name,
        "unit": unit,
    }
    given = None if labels is None else labels_of(labels)
    with spinner(f"Proving that {source.name} runs"):
        added = add_model(
            served,
            source,
            settings_of(served, engine=engine),
            name=name,
            labels=None if given is None else given.labels,
            options=options,
        )
    bundle, info = added.bundle, added.engine
    if info.engine == "julia":
        with spinner(f"Compiling {bundle.name}, so that it starts quickly"):
            compile_model(bundle, settings_of(served, engine=engine), served.graphs)
    for warning in given.warnings if given else []:
        typer.echo(f"Warning: {warning}.", err=True)
    if json_output:
        print_json(
            {
                "name": bundle.name,
                "folder": str(bundle.folder),
                "labels": bundle.spec.labels,
                "output": bundle.spec.output,
                "origin": bundle.spec.origin,
                "engine": info.engine,
                "backend": info.backend,
                "difference": added.difference,
                "remark": added.remark,
            }
        )
        return
    proof = (
        "; a native Flux model, which nothing can be compared with"
        if added.difference is None
        else f" within {added.difference:.1e} of onnxruntime"
    )
    typer.echo(f"{bundle.name}: {bundle.spec.summary}; on {info.engine} ({info.backend}){proof}")
    for key, origin in bundle.spec.origin.items():
        typer.echo(f"{key}: {origin}")
    if added.remark:
        typer.echo(f"Note: {added.remark}.", err=True)
    if info.note:
        typer.echo(f"Note: {info.note}.", err=True)
    typer.echo(f"Use it with: fluxdrop model use {bundle.name}")
