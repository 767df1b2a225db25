"""The three stages alone: ``fluxdrop generate``, ``preprocess`` and ``predict``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fluxdrop.cli.options import (
    EngineOption,
    JsonOption,
    RootOption,
    bundle_of,
    optional_root,
    print_json,
    refuse_existing,
    settings_of,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fluxdrop.config import Settings
    from fluxdrop.generate.request import Generated
    from fluxdrop.preprocess.spec import InputSpec

ModelOption = Annotated[
    str | None, typer.Option("--model", help="The model bundle; default: the setting.")
]


def generate(
    prompt: Annotated[str, typer.Argument(help="What the picture shows; infotext is understood.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The PNG to write.")],
    seed: Annotated[int | None, typer.Option(help="The same seed makes the same picture.")] = None,
    pipeline: Annotated[
        str | None, typer.Option(help="The diffusers pipeline; default: the setting.")
    ] = None,
    root: RootOption = None,
    json_output: JsonOption = False,
) -> None:
    """Make a picture of PROMPT; where it asks for several, the others get -2, -3, ... at their names."""
    import msgspec

    from fluxdrop.cli.progress import steps_bar
    from fluxdrop.files import durable
    from fluxdrop.generate.generator import GenerationOrder, Generator
    from fluxdrop.generate.prompt_file import read_prompts
    from fluxdrop.logs import configure

    configure("warning")
    served = optional_root(root)
    settings = settings_of(served, pipeline=pipeline)
    generator = Generator(settings)
    found = []
    prompts = read_prompts(prompt)
    outputs = [
        output.with_stem(f"{output.stem}-{number}") if number > 1 else output
        for number in range(1, len(prompts) + 1)
    ]
    for path in outputs:
        refuse_existing(path)
    try:
        for number, (path, (request, warnings)) in enumerate(zip(outputs, prompts, strict=True)):
            if seed is not None:
                request = msgspec.structs.replace(request, seed=seed + number)
            with steps_bar(f"Generating {path.name}") as on_step:
                ((png, made),) = generator.generate([GenerationOrder(request)], on_step)
            durable.write(path, png)
            made = msgspec.structs.replace(made, warnings=warnings + made.warnings)
            found.append({"file": str(path), **msgspec.to_builtins(made)})
            if not json_output:
                _print_made(path, made)
    finally:
        generator.close()
    if json_output:
        print_json(found if len(found) > 1 else found[0])


def _print_made(path: Path, made: Generated) -> None:
    for warning in made.warnings:
        typer.echo(f"Warning: {warning}", err=True)
    used = made.parameters
    typer.echo(f"{path}: {made.width} x {made.height}, seed {used.seed}, {used.steps} steps")


def preprocess(
    picture: Annotated[Path, typer.Argument(help="A PNG, JPEG or WebP picture.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .npy file to write.")],
    model: ModelOption = None,
    root: RootOption = None,
    json_output: JsonOption = False,
) -> None:
    """Turn PICTURE into the tensor that the model sees."""
    from io import BytesIO

    import numpy as np

    from fluxdrop.files.durable import write

    served = optional_root(root)
    settings = settings_of(served, model=model)
    bundle = bundle_of(served, settings.model)
    refuse_existing(output)
    tensor = _tensor_of(picture, settings, bundle.spec.input)
    data = BytesIO()
    np.save(data, tensor)
    write(output, data.getvalue())
    if json_output:
        print_json({"file": str(output), "shape": list(tensor.shape), "dtype": "float32"})
    else:
        typer.echo(f"{output}: float32 {list(tensor.shape)} for {bundle.name}")


def predict(
    source: Annotated[Path, typer.Argument(metavar="PICTURE|TENSOR.npy")],
    engine: EngineOption = None,
    model: ModelOption = None,
    root: RootOption = None,
    json_output: JsonOption = False,
) -> None:
    """Print what the model makes of a picture, or of a tensor from `fluxdrop preprocess`."""
    import msgspec

    from fluxdrop.logs import configure
    from fluxdrop.predict.choose import open_engine
    from fluxdrop.predict.classify import label_probabilities

    configure("warning")
    served = optional_root(root)
    settings = settings_of(served, engine=engine, model=model)
    bundle = bundle_of(served, settings.model)
    spec = bundle.spec.input
    is_tensor = source.suffix.lower() == ".npy"
    tensor = _load_tensor(source, spec) if is_tensor else _tensor_of(source, settings, spec)
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


def _tensor_of(picture: Path, settings: Settings, spec: InputSpec) -> NDArray[np.float32]:
    from fluxdrop.preprocess.picture import open_picture
    from fluxdrop.preprocess.tensor import to_tensor

    image, _ = open_picture(
        picture, max_file_bytes=settings.max_file_bytes, max_pixels=settings.max_pixels
    )
    return to_tensor(image, spec)


def _load_tensor(path: Path, spec: InputSpec) -> NDArray[np.float32]:
    import numpy as np

    from fluxdrop.errors import FluxdropError

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
