"""``fluxdrop preprocess``."""

from __future__ import annotations

from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from fluxdrop.cli.options import JsonOption, ModelOption, RootOption, print_json
from fluxdrop.cli.resolve import bundle_of, optional_root, refuse_existing, settings_of
from fluxdrop.config import Settings
from fluxdrop.files.durable import write
from fluxdrop.preprocess.picture import open_picture
from fluxdrop.preprocess.reduced import scale_for
from fluxdrop.preprocess.spec import InputSpec
from fluxdrop.preprocess.tensor import to_tensor


def preprocess(
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="A picture.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="Write the tensor to this .npy file."),
    ],
    model: ModelOption = None,
    root: RootOption = None,
    json_output: JsonOption = False,
) -> None:
    """Convert PICTURE into the tensor that the model takes."""
    served = optional_root(root)
    settings = settings_of(served, model=model)
    bundle = bundle_of(served, settings.model)
    refuse_existing(output)
    tensor = tensor_of(picture, settings, bundle.spec.input)
    data = BytesIO()
    np.save(data, tensor)
    write(output, data.getvalue())
    if json_output:
        print_json({"file": str(output), "shape": list(tensor.shape), "dtype": "float32"})
    else:
        typer.echo(f"{output}: float32 {list(tensor.shape)} for {bundle.name}")


def tensor_of(picture: Path, settings: Settings, spec: InputSpec) -> NDArray[np.float32]:
    """Decode *picture* and convert it to a tensor of *spec*, a batch of one.

    Raises:
        FluxdropError: It cannot be decoded, or is larger than *settings* allow.
    """
    notes: list[str] = []
    image, _ = open_picture(
        picture,
        max_file_bytes=settings.max_file_bytes,
        max_pixels=settings.max_pixels,
        deep=True,
        notes=notes,
        shrink=partial(scale_for, specs=[spec]) if settings.fast_jpeg else lambda _size: 1,
    )
    for note in notes:
        typer.echo(f"Note: {note}", err=True)
    return to_tensor(image, spec)
