"""``fluxdrop model``: what can be done with model bundles."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    from fluxdrop.predict.parity import Difference

model_app = typer.Typer(
    help="The models that judge the pictures.", no_args_is_help=True, rich_markup_mode=None
)


@model_app.command("add")
def add(
    source: Annotated[Path, typer.Argument(metavar="FILE.onnx|FOLDER")],
    root: RootOption = None,
    name: Annotated[str | None, typer.Option(help="Default: the file's or folder's.")] = None,
    labels: Annotated[
        str | None, typer.Option(help="Comma-separated, or a file with a label a line.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT; default: the model's.")] = None,
    mode: Annotated[str | None, typer.Option(help="L, RGB or BGR.")] = None,
    resize: Annotated[str | None, typer.Option(help="stretch, crop or letterbox.")] = None,
    filter_: Annotated[
        str | None,
        typer.Option("--filter", help="nearest, box, bilinear, hamming, bicubic or lanczos."),
    ] = None,
    scale: Annotated[float | None, typer.Option(help="Divides the pixels, 0 to 255.")] = None,
    mean: Annotated[str | None, typer.Option(help="Comma-separated, one a channel.")] = None,
    std: Annotated[str | None, typer.Option(help="Comma-separated, one a channel.")] = None,
    layout: Annotated[str | None, typer.Option(help="NCHW or NHWC.")] = None,
    output: Annotated[str | None, typer.Option(help="probabilities or logits.")] = None,
    output_name: Annotated[
        str | None, typer.Option(help="Which of several outputs has the labels' numbers.")
    ] = None,
    engine: EngineOption = None,
    json_output: JsonOption = False,
) -> None:
    """Add an image classifier, after proving that it runs and, if it is ONNX, agrees with onnxruntime."""
    from fluxdrop.cli.progress import spinner
    from fluxdrop.files.layout import find_root
    from fluxdrop.logs import configure
    from fluxdrop.ownership import narrow_umask
    from fluxdrop.predict.library import add_model

    configure("error")
    narrow_umask()
    served = find_root(root)
    options = {
        "size": _size(size),
        "mode": mode,
        "resize": resize,
        "filter": filter_,
        "scale": scale,
        "mean": _numbers("--mean", mean, ",", float),
        "std": _numbers("--std", std, ",", float),
        "layout": layout,
        "output": output,
        "output_name": output_name,
    }
    with spinner(f"Proving that {source.name} runs"):
        added = add_model(
            served,
            source,
            settings_of(served, engine=engine),
            name=name,
            labels=_labels(labels),
            options=options,
        )
    bundle, info = added.bundle, added.engine
    if json_output:
        print_json(
            {
                "name": bundle.name,
                "folder": str(bundle.folder),
                "labels": bundle.spec.labels,
                "engine": info.engine,
                "backend": info.backend,
                "difference": added.difference,
            }
        )
        return
    proof = (
        "; a native Flux model, which nothing can be compared with"
        if added.difference is None
        else f" within {added.difference:.1e} of onnxruntime"
    )
    typer.echo(
        f"{bundle.name}: {len(bundle.spec.labels)} labels; on {info.engine} ({info.backend}){proof}"
    )
    if info.note:
        typer.echo(f"Note: {info.note}.", err=True)
    typer.echo(f"Use it with: fluxdrop model use {bundle.name}")


@model_app.command("list")
def list_models(root: RootOption = None, json_output: JsonOption = False) -> None:
    """List the models that are there: the embedded ones and those that were added."""
    from fluxdrop.errors import FluxdropError
    from fluxdrop.predict.bundle import known_bundles, load_bundle

    served = optional_root(root)
    used = settings_of(served).model
    rows: list[dict[str, Any]] = []
    for name, folder in sorted(known_bundles(served.models if served else None).items()):
        row: dict[str, Any] = {"name": name, "folder": str(folder), "in_use": name == used}
        try:
            bundle = load_bundle(str(folder))
            given = bundle.spec.input
            row |= {"kind": bundle.kind, "size": list(given.size), "mode": given.mode}
            row["labels"] = bundle.spec.labels
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
            labels = ", ".join(row["labels"][:4]) + (", ..." if len(row["labels"]) > 4 else "")
            kind = " (native Flux)" if row["kind"] == "flux" else ""
            typer.echo(f"{mark} {row['name']}{kind}: {width}x{height} {row['mode']}, {labels}")


@model_app.command("check")
def check(
    model: Annotated[str, typer.Argument(metavar="NAME", help="A model's name, or a folder.")],
    root: RootOption = None,
    json_output: JsonOption = False,
) -> None:
    """Compare the model with onnxruntime, node by node; exit code 1 if one diverges."""
    from fluxdrop.cli.progress import spinner
    from fluxdrop.errors import FluxdropError
    from fluxdrop.logs import configure
    from fluxdrop.predict.julia_engine import run_graphs
    from fluxdrop.predict.parity import TOLERANCE, by_node, samples
    from fluxdrop.provision import find_julia

    configure("error")
    served = optional_root(root)
    settings = settings_of(served)
    bundle = bundle_of(served, model)
    if bundle.kind == "flux":
        raise FluxdropError(
            f"The model {bundle.name} is a native Flux model: there is no ONNX file to compare it with",
            hint=f"Try it with `fluxdrop predict PICTURE --model {model}`.",
            kind="model",
        )
    install = find_julia()
    if install is None:
        raise FluxdropError(
            "There is no Julia to compare", hint="Run `fluxdrop setup`.", kind="julia"
        )
    found: list[Difference] = []
    with spinner(f"Checking {bundle.name}") as say, run_graphs(settings, install) as run:
        for item in by_node(bundle, samples(bundle, settings), run):
            found.append(item)
            say(f"Checking {bundle.name}: node {len(found)}, {item.operator}")
    worst = max(found, key=lambda item: item.relative)
    first = next((item for item in found if item.relative > TOLERANCE), None)
    if json_output:
        print_json(
            {
                "model": bundle.name,
                "tolerance": TOLERANCE,
                "nodes": [item._asdict() for item in found],
                "diverges": first._asdict() if first else None,
            }
        )
    else:
        typer.echo(f"{'difference':>10}  operator and node")
        for item in found:
            typer.echo(f"{item.relative:10.1e}  {item.operator} {item.node}")
        typer.echo(f"The largest is {worst.relative:.1e} ({worst.operator} {worst.node}).")
        if first:
            typer.echo(f"The first beyond {TOLERANCE:g} is {first.operator} {first.node}.")
    if first:
        raise typer.Exit(1)


@model_app.command("use")
def use(
    model: Annotated[str, typer.Argument(metavar="NAME")],
    root: RootOption = None,
    json_output: JsonOption = False,
) -> None:
    """Judge pictures by this model from now on; a running daemon changes over without a pause."""
    from contextlib import closing

    from fluxdrop.cli.progress import spinner
    from fluxdrop.config import choose_model
    from fluxdrop.files.layout import find_root, holder
    from fluxdrop.logs import configure
    from fluxdrop.ownership import narrow_umask
    from fluxdrop.predict.bundle import load_installed
    from fluxdrop.predict.choose import open_engine
    from fluxdrop.requests.messages import ModelRequest, ask_and_wait

    configure("error")
    served = find_root(root)
    with spinner(f"Loading {model}"):
        if holder(served) is not None:
            ask_and_wait(served, ModelRequest(model), lambda: None)
        else:
            narrow_umask()
            settings = settings_of(served, model=model)
            with closing(open_engine(settings, load_installed(model, served.models))):
                choose_model(served, model)
    if json_output:
        print_json({"model": model, "running": holder(served) is not None})
    else:
        typer.echo(f"{model} is in use.")


@model_app.command("compile")
def compile_model(
    bundle: Annotated[str, typer.Argument(help="A model's name, or a bundle's folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .graph file to write.")],
    root: RootOption = None,
    json_output: JsonOption = False,
) -> None:
    """Compile a model to the graph file that julia/flux_model.jl and the worker read."""
    from fluxdrop.files.durable import write
    from fluxdrop.predict.compiler.compile import compile_bundle

    served = optional_root(root)
    loaded = bundle_of(served, bundle)
    refuse_existing(output)
    graph = compile_bundle(loaded)
    write(output, graph)
    if json_output:
        print_json({"file": str(output), "model": loaded.name, "bytes": len(graph)})
    else:
        typer.echo(f"{output}: {loaded.name}, {len(graph):,} bytes")


def _numbers(
    option: str, text: str | None, separator: str, kind: type[int] | type[float]
) -> list[float] | None:
    from fluxdrop.errors import FluxdropError

    if text is None:
        return None
    try:
        numbers = [kind(part) for part in text.lower().split(separator)]
    except ValueError:
        numbers = []
    if not numbers or not all(map(math.isfinite, numbers)):
        raise FluxdropError(f"{option} is {text!r}, not numbers with {separator!r} between")
    return numbers


def _size(text: str | None) -> list[float] | None:
    from fluxdrop.errors import FluxdropError

    size = _numbers("--size", text, "x", int)
    if size is not None and len(size) != 2:
        raise FluxdropError(f"--size is {text!r}, not WIDTHxHEIGHT")
    return size


def _labels(text: str | None) -> list[str] | None:
    from fluxdrop.errors import FluxdropError

    if text is None:
        return None
    path = Path(text)
    try:
        lines = path.read_text("utf-8").splitlines() if path.is_file() else text.split(",")
    except (OSError, UnicodeDecodeError) as error:
        raise FluxdropError(f"{path} cannot be read as a list of labels: {error}") from error
    return [line.strip() for line in lines if line.strip()]
