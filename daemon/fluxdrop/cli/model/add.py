"""``fluxdrop model add``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fluxdrop.cli.model import input_options
from fluxdrop.cli.model.added import tell, tell_json, warnings_of
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
from fluxdrop.cli.options import EngineOption, JsonOption, RootOption
from fluxdrop.cli.progress import spinner
from fluxdrop.cli.resolve import settings_of
from fluxdrop.files.layout import Root, find_root
from fluxdrop.logs import configure
from fluxdrop.ownership import narrow_umask
from fluxdrop.predict.compiled_models import compile_model
from fluxdrop.predict.label_file import labels_of
from fluxdrop.predict.library import add_model
from fluxdrop.predict.origin.hub import HUB, download, model_name
from fluxdrop.printable import printable


def add(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE.onnx|FILE.keras|FOLDER|hub:OWNER/NAME",
            help="An ONNX or .keras file, a folder with a model, or hub:OWNER/NAME[@REVISION].",
        ),
    ],
    pictures: Annotated[
        list[Path] | None, typer.Argument(metavar="[PICTURE]...", help="More pictures for --try.")
    ] = None,
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
    try_: Annotated[
        list[Path] | None,
        typer.Option(
            "--try",
            metavar="PICTURE...",
            help="Show what it says of these pictures, and what it sees.",
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the place of the model of this name.")
    ] = False,
    engine: EngineOption = None,
    json_output: JsonOption = False,
) -> None:
    """Add an image model to the root, after testing that it works.

    An ONNX model must give the same results as onnxruntime; a native Flux model must run.
    """
    configure("error")
    narrow_umask()
    served = find_root(root)
    options, sources = input_options.with_preset(
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
        "unit": _units(unit),
    }
    given = None if labels is None else labels_of(labels)
    if labels is not None and Path(labels).expanduser().is_file():
        sources["labels"] = f"option: {printable(Path(labels).name)}"
    model = _source(source, served)
    if source.startswith(HUB):
        name = name or model_name(source)
    with spinner(f"Proving that {name or model.name} runs"):
        added = add_model(
            served,
            model,
            settings_of(served, engine=engine),
            name=name,
            labels=None if given is None else given.labels,
            options=options,
            sources=sources,
            pictures=[*(try_ or ()), *(pictures or ())],
            replace=replace,
        )
    bundle = added.bundle
    if added.engine.engine == "julia":
        with spinner(f"Compiling {bundle.name}, so that it starts quickly"):
            compile_model(bundle, settings_of(served, engine=engine), served.graphs)
    warnings = warnings_of(added, given.warnings if given else [])
    (tell_json if json_output else tell)(added, warnings)


def _units(text: str | None) -> str | list[str] | None:
    """Return the units in *text*, between commas; one alone is for all values."""
    units = [part.strip() for part in text.split(",")] if text else []
    return units if len(units) > 1 else text


def _source(text: str, root: Root) -> Path:
    """Return the file or folder that *text* names: a path, a model that was added to *root*, or one of the hub.

    Raises:
        FluxdropError: The hub does not have it, or cannot be reached.
    """
    if text.startswith(HUB):
        with spinner(f"Downloading {text.removeprefix(HUB)}"):
            return download(text.removeprefix(HUB))
    path = Path(text).expanduser()
    own = root.models / text
    return own if not path.exists() and (own / "model.toml").is_file() else path
