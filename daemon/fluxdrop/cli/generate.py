"""``fluxdrop generate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from fluxdrop.cli.options import JsonOption, RootOption, print_json
from fluxdrop.cli.progress import steps_bar
from fluxdrop.cli.resolve import optional_root, refuse_existing, settings_of
from fluxdrop.files import durable
from fluxdrop.generate.generator import GenerationOrder, Generator
from fluxdrop.generate.parameters import Generated
from fluxdrop.generate.prompt_file import read_prompts
from fluxdrop.logs import configure


def generate(
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help="What the picture is to show; may be infotext.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Write the PNG to this file.")
    ],
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", help="Use this seed. The same seed gives the same picture."),
    ] = None,
    pipeline: Annotated[
        str | None,
        typer.Option(metavar="PIPELINE", help="Use this diffusers pipeline. Default: the setting."),
    ] = None,
    root: RootOption = None,
    json_output: JsonOption = False,
) -> None:
    """Generate a picture from PROMPT.

    If PROMPT asks for several pictures, the files after the first one get -2, -3 and so on at the end
    of their names.
    """
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
        for number, (path, (parameters, warnings)) in enumerate(zip(outputs, prompts, strict=True)):
            if seed is not None:
                parameters = msgspec.structs.replace(parameters, seed=seed + number)
            with steps_bar(f"Generating {path.name}") as on_step:
                ((png, made),) = generator.generate([GenerationOrder(parameters)], on_step)
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
