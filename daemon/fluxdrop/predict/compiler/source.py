"""Read an untrusted ONNX file, and convert it to a normal form.

In its normal form a model has only float32 and integer tensors, no constant subgraphs, and a recent
opset, so that the compiler has to know only one version of each operator.
"""

from __future__ import annotations

import os
import tempfile
from graphlib import CycleError
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, TensorProto, defs, inliner, shape_inference, version_converter
from onnx.checker import ValidationError as CheckError
from onnx.shape_inference import InferenceError

from fluxdrop.predict.compiler.external_data import embed_data_file
from fluxdrop.predict.compiler.float_types import as_float32
from fluxdrop.predict.compiler.ml_operators import rewrite_ml_operators
from fluxdrop.predict.compiler.quantised import is_quantised, rewrite_quantised
from fluxdrop.predict.compiler.rewriters import STANDARD, rewriter_of
from fluxdrop.predict.compiler.rewriting import rewrite
from fluxdrop.predict.compiler.shapes import known_shapes, with_inferred_shapes
from fluxdrop.predict.compiler.tidy import tidy
from fluxdrop.predict.compiler.weights import (
    OPTIMISED_WEIGHTS,
    change_without_weights,
    load,
    save,
)
from fluxdrop.predict.model_signature import INTEGERS
from fluxdrop.predict.onnx_session import open_session
from fluxdrop.telemetry import import_onnxruntime

OLDEST_OPSET = 7
"""The oldest opset supported: older ones have no broadcasting, and onnxruntime does not run them."""

_TARGET_OPSET = 26
"""The opset of the normal form: the newest that onnxruntime supports, too."""

_ONLY_MORE_TYPES = ("Cast", "Range")
"""The operators that only take more types since `_TARGET_OPSET`."""

_TARGET_IR = 10
"""The version of the file format that is declared with an older opset: onnxruntime does not read the newest."""


_OPSET_WITH_ROUND = 11
"""The first opset with the operators that quantised ones are rewritten with."""


class InvalidModelError(Exception):
    """The model is damaged or invalid; the message is the reason."""


def parse(data: bytes, folder: Path | None = None) -> ModelProto:
    """Return the model in *data*, checked and tidied, with its shapes inferred.

    Args:
        data: The contents of model.onnx.
        folder: The bundle, whose `DATA_FILE` may have some of the tensors; None for a model of one file.

    Raises:
        InvalidModelError: When it is damaged or invalid.
        ExternalDataError: When it keeps tensors in other files.
    """
    try:
        model = ModelProto.FromString(data)
        del data
        # The checker would look for external data in the working folder, so this comes first.
        embed_data_file(model, folder)
        tidy(model)
        return change_without_weights(model, _checked)
    except CycleError as error:
        raise InvalidModelError("its nodes depend on each other in a circle") from error
    except (DecodeError, ValueError, CheckError, InferenceError) as error:
        raise InvalidModelError(str(error)) from error


def _checked(model: ModelProto) -> ModelProto:
    """Check *model*, and return it with its shapes inferred."""
    onnx.checker.check_model(model)
    return shape_inference.infer_shapes(model)


def opset_of(model: ModelProto) -> int:
    """Return the version of ONNX's standard operators that *model* uses; 0 if it states none."""
    versions = (item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    return max(versions, default=0)


def normal_form(model: ModelProto) -> ModelProto:
    """Return *model* with all floats as float32, constants folded, a recent opset and inferred shapes.

    *model* itself may be changed. A step that fails leaves the model as it is: `lower` then reports the
    node that is not supported.
    """
    with tempfile.TemporaryDirectory(prefix="fluxdrop-") as folder:
        return folded(save_for_folding(model, Path(folder)))


def save_for_folding(model: ModelProto, folder: Path) -> Path:
    """Write *model* to *folder* with all floats as float32, and return its path for `folded`.

    *model* itself may be changed. It is read again when it is needed: onnxruntime needs memory for
    its own copy of the weights meanwhile.
    """
    model = _inline_functions(model)
    shapes = known_shapes(model)
    model = rewrite_ml_operators(as_float32(model), opset_of(model))
    if is_quantised(model):
        ranks = {name: len(shape) for name, shape in shapes.items() if shape is not None}
        model = rewrite_quantised(_convert_opset(model, _OPSET_WITH_ROUND), ranks)
    return save(model, folder)


def folded(path: Path) -> ModelProto:
    """Return the normal form of the model that `save_for_folding` wrote to *path*."""
    model = with_inferred_shapes(_convert_opset(load(_fold_constants(path))))
    # Fold again: the nodes that an operator is expanded into are folded only by the next run.
    model = _convert_opset(rewrite(model, opset_of(model)))
    again = path.parent / "again"
    again.mkdir()
    path = save(model, again)
    del model
    return with_inferred_shapes(load(_fold_constants(path)))


def _inline_functions(model: ModelProto) -> ModelProto:
    """Return *model* with its own functions replaced by their bodies."""
    return inliner.inline_local_functions(model) if model.functions else model


def _fold_constants(path: Path) -> Path:
    """Run onnxruntime's offline optimiser at its basic level; return the file with the result.

    That is *path* itself if onnxruntime does not take the model. The optimiser folds constants with
    the kernels that are the reference, folds batch norms into convolutions, and adds no operators of
    its own.
    """
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    result = path.with_name("folded.onnx")
    options.optimized_model_filepath = os.fspath(result)
    for key, value in OPTIMISED_WEIGHTS.items():
        options.add_session_config_entry(key, value)
    try:
        open_session(path, options)
    except Exception:  # onnxruntime's exceptions share no class below Exception
        return path
    return result


def _declare_older_opset(model: ModelProto) -> ModelProto:
    """Declare `_TARGET_OPSET` in place of a newer one, unless *model* keeps an operator that changed since then."""
    newest = opset_of(model)
    for node in model.graph.node:
        has_changed = rewriter_of(node) is None and node.op_type not in _ONLY_MORE_TYPES
        if node.domain in STANDARD and has_changed:
            is_known = defs.has(node.op_type, newest)
            if not is_known or defs.get_schema(node.op_type, newest).since_version > _TARGET_OPSET:
                return model
    for item in model.opset_import:
        if item.domain in STANDARD:
            item.version = _TARGET_OPSET
    model.ir_version = min(model.ir_version, _TARGET_IR)
    return model


def _convert_opset(model: ModelProto, target: int = _TARGET_OPSET) -> ModelProto:
    """Convert *model* to the opset *target*, if it is older and onnx can; declare `_TARGET_OPSET` for a newer one."""
    if opset_of(model) >= _TARGET_OPSET:
        return _declare_older_opset(model)
    if opset_of(model) >= target:
        return model
    # The optimiser adds imports of its own domains, which no node uses.
    used = {node.domain or "" for node in model.graph.node}
    imports = [item for item in model.opset_import if (item.domain or "") in used | {""}]
    del model.opset_import[:]
    model.opset_import.extend(imports)
    try:
        return change_without_weights(
            model, lambda light: version_converter.convert_version(light, target)
        )
    except (RuntimeError, ValueError, CheckError, version_converter.ConvertError):
        return model


def integer_type(item: onnx.ValueInfoProto) -> str | None:
    """Return the name of the integer type of *item*, such as ``uint8``; None when it holds anything else."""
    name = TensorProto.DataType.Name(item.type.tensor_type.elem_type).lower()
    return name if name in INTEGERS else None
