"""``fluxdrop predict``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import typer
from numpy.typing import NDArray

from fluxdrop.cli.arguments import in_range
from fluxdrop.cli.options import EngineOption, JsonOption, ModelOption, RootOption, print_json
from fluxdrop.cli.preprocess import tensor_of
from fluxdrop.cli.resolve import bundle_of, optional_root, settings_of
from fluxdrop.errors import FluxdropError
from fluxdrop.logs import configure
from fluxdrop.predict.answer import Answer, answer_of
from fluxdrop.predict.choose_engine import open_engine
from fluxdrop.preprocess.spec import InputSpec
from fluxdrop.printable import printable

_FEW_LABELS = 10
_TOP = 5
_MAX_LABELS = 1_000_000
_NUMBERS_PER_LINE = 8


def predict(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="PICTURE|TENSOR.npy", help="A picture, or a tensor as a NumPy file."
        ),
    ],
    engine: EngineOption = None,
    model: ModelOption = None,
    top: Annotated[
        int | None,
        typer.Option(
            "--top",
            metavar="N",
            callback=in_range(0, _MAX_LABELS),
            help="Print the N most probable labels; 0 prints all. Default: all of up to 10, else 5.",
        ),
    ] = None,
    root: RootOption = None,
    json_output: JsonOption = False,
) -> None:
    """Print what the model says of a picture.

    That is the probability of each label, the values of a regression, or the numbers of an embedding. A `*` marks
    the labels that reach their thresholds. A tensor from `fluxdrop preprocess` may take the place of the picture.
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
    answer = answer_of(raw[0], bundle)
    if json_output:
        print_json(
            {
                "file": str(source),
                "model": bundle.name,
                "engine": msgspec.to_builtins(running.info),
                "kind": answer.kind,
                **_as_dict(answer, top),
            }
        )
        return
    for line in _lines(answer, top):
        typer.echo(printable(line))
    info = running.info
    typer.echo(f"by {bundle.name} on {info.engine} {info.version}, {info.backend}", err=True)
    if info.note:
        typer.echo(f"Note: {info.note}.", err=True)


def _chosen(answer: Answer, top: int | None) -> list[tuple[str, float]]:
    """Return the labels to show, the most probable first."""
    if top is None:
        top = len(answer.ranked) if len(answer.ranked) <= _FEW_LABELS else _TOP
    return answer.ranked[: top or None]


def _as_dict(answer: Answer, top: int | None) -> dict[str, Any]:
    """Return *answer* for JSON; unless *top* says otherwise, with all labels, in the model's order."""
    if answer.kind == "embedding" and answer.embedding is not None:
        return {"embedding": answer.embedding.tolist(), "dimension": len(answer.embedding)}
    if answer.kind == "regression":
        return {
            "values": [
                {"name": name, "value": value, "unit": answer.units[name]}
                for name, value in answer.values.items()
            ]
        }
    probabilities = answer.probabilities if top is None else dict(_chosen(answer, top))
    if answer.kind == "classification":
        return {"probabilities": probabilities}
    limits = {label: answer.thresholds[label] for label in probabilities}
    return {"probabilities": probabilities, "labels": answer.found, "thresholds": limits}


def _lines(answer: Answer, top: int | None) -> Iterator[str]:
    """Yield *answer* as lines for people."""
    if answer.embedding is not None:
        for start in range(0, len(answer.embedding), _NUMBERS_PER_LINE):
            numbers = answer.embedding[start : start + _NUMBERS_PER_LINE]
            yield " ".join(f"{number:9.4f}" for number in numbers)
    for name, value in answer.values.items():
        yield f"{value:10.6g} {answer.units[name]}".rstrip() + f"  {name}"
    found = set(answer.found)
    for label, p in _chosen(answer, top):
        mark = ("* " if label in found else "  ") if answer.kind == "multi-label" else ""
        yield f"{p:8.4f}  {mark}{label}"


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
