"""Compile a bundle's ONNX model to the worker's graph."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from onnx import ModelProto, numpy_helper

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.bundle import Bundle, onnx_digest
from fluxdrop.predict.compiler.batch import with_dynamic_batch
from fluxdrop.predict.compiler.external_data import ExternalDataError
from fluxdrop.predict.compiler.fit import fit_to_spec, unusable_error
from fluxdrop.predict.compiler.float_types import as_float32, other_floats
from fluxdrop.predict.compiler.fusion import fuse
from fluxdrop.predict.compiler.graph_file import Graph
from fluxdrop.predict.compiler.lower import lower
from fluxdrop.predict.compiler.operators import UnsupportedError
from fluxdrop.predict.compiler.quantised import is_dynamically_quantised, is_quantised
from fluxdrop.predict.compiler.source import (
    InvalidModelError,
    folded,
    parse,
    save_for_folding,
)
from fluxdrop.predict.onnxruntime_engine import OnnxruntimeEngine
from fluxdrop.predict.parity import perturbed


def compile_bundle(bundle: Bundle) -> Graph:
    """Compile *bundle* to a graph.

    Raises:
        FluxdropError: Kind ``model``, when the model is damaged, does not fit its model.toml, or needs
            something that the worker cannot do. The message names the file, and where one node is
            the cause, the node and its operator.
    """
    with translate_errors(bundle):
        return fuse(lower(normal_model(bundle)))


def check_fit(bundle: Bundle) -> None:
    """Check *bundle*'s model without compiling it.

    Raises:
        FluxdropError: Kind ``model``, when the model is damaged or does not fit its model.toml.
    """
    with translate_errors(bundle):
        fitting_model(bundle)


def quantised(bundle: Bundle) -> bool:
    """Return whether the model of *bundle* computes with quantised tensors.

    Raises:
        FluxdropError: As `check_fit` does.
    """
    with translate_errors(bundle):
        return is_quantised(fitting_model(bundle))


def float32_form(bundle: Bundle) -> bytes | None:
    """Return `fitted_form` of a model of *bundle* that has other floats than float32; None of one that has not.

    Raises:
        FluxdropError: As `check_fit` does.
    """
    with translate_errors(bundle):
        model = fitting_model(bundle)
        return as_float32(model).SerializeToString() if other_floats(model) else None


def fitted_form(bundle: Bundle) -> bytes:
    """Return the model of *bundle* with one input and one output that fit its model.toml, as float32.

    Raises:
        FluxdropError: As `check_fit` does.
    """
    with translate_errors(bundle):
        return bytes(as_float32(fitting_model(bundle)).SerializeToString())


def rounded_form(bundle: Bundle) -> bytes:
    """Return the normal form of *bundle*'s model with each weight changed by one rounding step.

    Raises:
        FluxdropError: As `compile_bundle` does.
    """
    with translate_errors(bundle):
        model = normal_model(bundle)
        for tensor in model.graph.initializer:
            array = numpy_helper.to_array(tensor)
            if array.dtype == np.float32:
                tensor.CopyFrom(numpy_helper.from_array(perturbed(array), tensor.name))
        return bytes(model.SerializeToString())


def normal_model(bundle: Bundle) -> ModelProto:
    """Return the model of *bundle* in the form that `lower` takes.

    Raises:
        FluxdropError, InvalidModelError, ExternalDataError: As `fitting_model` does.
    """
    with tempfile.TemporaryDirectory(prefix="fluxdrop-") as folder:
        model = fitting_model(bundle)
        is_batch_fixed = is_dynamically_quantised(model)
        path = save_for_folding(model, Path(folder))
        del model
        normal = folded(path)
    return normal if is_batch_fixed else with_dynamic_batch(normal)


def fitting_model(bundle: Bundle) -> ModelProto:
    """Return the model of *bundle*, whose input and output fit its model.toml.

    Raises:
        FluxdropError: Kind ``model``, when they do not fit, for a native Flux model, and when the file
            changed since the bundle was loaded.
        InvalidModelError: When the model is damaged.
        ExternalDataError: When the model keeps tensors in other files.
    """
    if bundle.kind == "flux":
        raise FluxdropError(
            f"The model {bundle.name} is a native Flux model: there is nothing to compile",
            hint=f"The engine julia runs {bundle.file} itself.",
            kind="model",
        )
    return fit_to_spec(parse(_model_file(bundle), bundle.folder), bundle)


def _model_file(bundle: Bundle) -> bytes:
    """Return the contents of model.onnx."""
    data = bundle.onnx.read_bytes()
    if onnx_digest(bundle.folder) != bundle.sha256:
        raise unusable_error(bundle, "it changed while it was being read")
    return data


@contextlib.contextmanager
def translate_errors(bundle: Bundle) -> Iterator[None]:
    """Convert the compiler's exceptions to a FluxdropError, kind ``model``, that names *bundle*'s file."""
    try:
        yield
    except ExternalDataError as error:
        raise FluxdropError(
            f"{bundle.onnx} cannot be used: {error}",
            hint="Add it with `fluxdrop model add`, which makes one file of it.",
            kind="model",
        ) from error
    except UnsupportedError as error:
        raise unusable_error(bundle, str(error), hint=_other_engine(bundle)) from error
    except (InvalidModelError, LookupError, ValueError) as error:
        # onnx's checker does not find all damage; the rest raises when the model is used.
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise FluxdropError(
            f"{bundle.onnx} is not a valid ONNX model: {reason}",
            hint="Export it again.",
            kind="model",
        ) from error


def _other_engine(bundle: Bundle) -> str:
    """Return the hint for a model that the worker cannot run: onnxruntime, if it can."""
    try:
        OnnxruntimeEngine(bundle)
    except FluxdropError:
        return "The engine onnxruntime cannot run it either. Export it with other operators."
    return "The engine onnxruntime runs it: --engine onnxruntime."
