"""``fluxdrop predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import typer
from numpy.typing import NDArray

from fluxdrop.cli.options import EngineOption, JsonOption, ModelOption, RootOption, print_json
from fluxdrop.cli.preprocess import tensor_of
from fluxdrop.cli.resolve import bundle_of, optional_root, settings_of
from fluxdrop.errors import FluxdropError
from fluxdrop.logs import configure
from fluxdrop.predict.choose_engine import open_engine
from fluxdrop.predict.classify import label_probabilities
from fluxdrop.preprocess.spec import InputSpec


def predict(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="PICTURE|TENSOR.npy", help="A picture, or a tensor as a NumPy file."
        ),
    ],
    engine: EngineOption = None,
    model: ModelOption = None,
    root: RootOption = None,
    json_output: JsonOption = False,
) -> None:
    """Print the probability of each label for a picture.

    A tensor from `fluxdrop preprocess` may take the place of the picture.
    """
    configure("warning")
    served = optional_root(root)
    settings = settings_of(served, engine=engine, model=model)
    bundle = bundle_of(served, settings.model)
    spec = bundle.spec.input
    is_tensor = source.suffix.lower() == ".npy"
    tensor = _load_tensor(source, spec) if is_tensor else tensor_of(source, settings, spec)
    running = open_engine(settings, bundle)
    try:
        raw = running.predict(tensor)
    finally:
        running.close()
    probabilities = label_probabilities(raw[0], bundle)
    if json_output:
        print_json(
            {
                "file": str(source),
                "model": bundle.name,
                "engine": msgspec.to_builtins(running.info),
                "probabilities": probabilities,
            }
        )
        return
    for label, p in sorted(probabilities.items(), key=lambda item: -item[1]):
        typer.echo(f"{p:8.4f}  {label}")
    info = running.info
    typer.echo(f"by {bundle.name} on {info.engine} {info.version}, {info.backend}", err=True)
    if info.note:
        typer.echo(f"Note: {info.note}.", err=True)


def _load_tensor(path: Path, spec: InputSpec) -> NDArray[np.float32]:
    """Load a tensor of *spec*, with or without the batch axis; return it as a batch of one.

    Raises:
        FluxdropError: The file is not a NumPy array, or one of another shape or type.
    """
    try:
        tensor = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise FluxdropError(f"{path} cannot be read as a NumPy array: {error}") from error
    if tensor.shape == spec.shape[1:]:
        tensor = tensor[np.newaxis]
    if tensor.dtype != np.float32 or tensor.shape != spec.shape:
        raise FluxdropError(
            f"{path} holds {tensor.dtype} {list(tensor.shape)}, not float32 {list(spec.shape)}",
            hint="Make one with `fluxdrop preprocess`.",
        )
    return np.asarray(tensor, dtype=np.float32)
