"""Compile a bundle's ONNX model to the worker's graph file."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

from onnx import ModelProto, TensorProto, ValueInfoProto

from fluxdrop.durable import write
from fluxdrop.errors import FluxdropError
from fluxdrop.predict.bundle import Bundle
from fluxdrop.predict.compiler.graph_file import VERSION, Graph
from fluxdrop.predict.compiler.lower import lower
from fluxdrop.predict.compiler.operators import UnsupportedError
from fluxdrop.predict.compiler.source import (
    FLOATS,
    OLDEST_OPSET,
    ExternalDataError,
    UnsoundError,
    normal_form,
    opset_of,
    parse,
    value_shape,
)

COMPILER_VERSION = 2
"""Raised whenever the same model compiles to something else, so that no old compilation is taken."""


def compiled(bundle: Bundle, cache: Path | None) -> bytes:
    """The graph file of *bundle*, out of the folder *cache* where it was compiled before."""
    if cache is None:
        return compile_bundle(bundle)
    path = cache / f"{bundle.sha256}-{VERSION}.{COMPILER_VERSION}.graph"
    try:
        return path.read_bytes()
    except FileNotFoundError:
        graph = compile_bundle(bundle)
        # Without room for a copy the next start compiles again.
        with contextlib.suppress(OSError):
            write(path, graph)
        return graph


def compile_bundle(bundle: Bundle) -> bytes:
    """Compile *bundle* to a graph file.

    Raises FluxdropError, kind ``model``, that names the file, and the node with its operator where it is one node's
    doing, when the model is damaged, does not fit its model.toml, or needs something that the worker cannot do.
    """
    with _refusing(bundle):
        return compile_model(_fitting_model(bundle)).to_bytes()


def check_fit(bundle: Bundle) -> None:
    """Raise FluxdropError when *bundle*'s model is damaged or does not fit its model.toml."""
    with _refusing(bundle):
        _fitting_model(bundle)


def _fitting_model(bundle: Bundle) -> ModelProto:
    if bundle.kind == "flux":
        raise FluxdropError(
            f"The model {bundle.name} is a native Flux model: there is nothing to compile",
            hint=f"The engine julia runs {bundle.file} itself.",
            kind="model",
        )
    data = bundle.onnx.read_bytes()
    if hashlib.sha256(data).hexdigest() != bundle.sha256:
        raise _refused(bundle, "it changed while it was being read")
    model = parse(data)
    _check_fit(bundle, model)
    return model


@contextlib.contextmanager
def _refusing(bundle: Bundle) -> Iterator[None]:
    try:
        yield
    except ExternalDataError as error:
        raise FluxdropError(
            f"{bundle.onnx} cannot be used: {error}",
            hint="Save the model as one file: onnx.save(onnx.load(FILE), FILE).",
            kind="model",
        ) from error
    except UnsupportedError as error:
        raise _refused(bundle, str(error)) from error
    except (UnsoundError, LookupError, ValueError) as error:
        # What the checker lets pass of a damaged model shows when it is used.
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise FluxdropError(
            f"{bundle.onnx} is not a sound ONNX model: {reason}",
            hint="Export it again.",
            kind="model",
        ) from error


def compile_model(model: ModelProto) -> Graph:
    """The worker's graph of *model*, which has one input and one output.

    Raises UnsupportedError that names the node, its operator and the reason.
    """
    return lower(normal_form(model))


def _check_fit(bundle: Bundle, model: ModelProto) -> None:
    opset = opset_of(model)
    if opset < OLDEST_OPSET:
        raise FluxdropError(
            f"{bundle.onnx} cannot be used: it has opset {opset}, older than {OLDEST_OPSET}",
            hint="Export it again, with a newer opset.",
            kind="model",
        )
    _check_input(bundle, _only_input(bundle, model))
    if len(model.graph.output) != 1:
        names = ", ".join(output.name for output in model.graph.output)
        raise _refused(bundle, f"it has {len(model.graph.output)} outputs ({names}), not one")


def _only_input(bundle: Bundle, model: ModelProto) -> ValueInfoProto:
    initialised = {item.name for item in model.graph.initializer}
    inputs: list[ValueInfoProto] = [
        item for item in model.graph.input if item.name not in initialised
    ]
    if len(inputs) != 1:
        names = ", ".join(item.name for item in inputs)
        raise _refused(bundle, f"it has {len(inputs)} inputs ({names}), not one")
    return inputs[0]


def _check_input(bundle: Bundle, model_input: ValueInfoProto) -> None:
    shape = value_shape(model_input)
    wanted = bundle.spec.input.shape
    if (
        shape is None
        or len(shape) != len(wanted)
        or any(have not in (-1, want) for have, want in zip(shape[1:], wanted[1:], strict=True))
    ):
        raise _refused(
            bundle,
            f"its input {model_input.name} has shape {_readable(shape)},"
            f" and its model.toml makes {_readable((-1, *wanted[1:]))}",
        )
    if model_input.type.tensor_type.elem_type not in FLOATS:
        kind = TensorProto.DataType.Name(model_input.type.tensor_type.elem_type).lower()
        raise _refused(bundle, f"its input {model_input.name} holds {kind}, not float32")


def _readable(shape: tuple[int, ...] | None) -> str:
    if shape is None:
        return "(unknown)"
    return "[" + ", ".join("N" if size < 0 else str(size) for size in shape) + "]"


def _refused(bundle: Bundle, reason: str) -> FluxdropError:
    return FluxdropError(f"{bundle.onnx} cannot be used: {reason}.", kind="model")
