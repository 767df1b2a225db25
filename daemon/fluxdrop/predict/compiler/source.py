"""Reading an ONNX file that nobody vouches for, and bringing it to one form.

After this a model has float32 and integer tensors only, no constant subgraphs, and a new opset, so
that the mapping of operators knows one version of each.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, TensorProto, numpy_helper, shape_inference, version_converter
from onnx.checker import ValidationError as CheckError
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_model
from onnx.shape_inference import InferenceError

from fluxdrop.predict.compiler.ml_operators import in_onnx

OLDEST_OPSET = 7
"""Before it, operators took attributes for what is now broadcasting; onnxruntime takes none older."""

_NEWEST_OPSET = 26
"""What models are brought to: the newest opset that onnxruntime supports, too."""

_OTHER_FLOATS = {TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}
FLOATS = {TensorProto.FLOAT, *_OTHER_FLOATS}
"""The types that become float32."""


class UnsoundError(Exception):
    """The model is damaged, or breaks the rules of ONNX; the message is the reason."""


class ExternalDataError(Exception):
    """The model keeps tensors in other files; the message names one."""


def parse(data: bytes) -> ModelProto:
    """The model in *data*, checked. Raises UnsoundError, and ExternalDataError where it has parts
    in other files: a file beside the model is nothing that the model may choose.
    """
    try:
        model = ModelProto.FromString(data)
        # Before the checker, which looks for external data in the working folder.
        _refuse_external(model)
        onnx.checker.check_model(model)
        return shape_inference.infer_shapes(model)
    except (DecodeError, ValueError, CheckError, InferenceError) as error:
        raise UnsoundError(str(error)) from error


def one_file(path: Path) -> bytes:
    """The model in the file *path*, together with what PyTorch puts into a file beside it.

    Raises ExternalDataError where that is not there, or outside of the folder.
    """
    data = path.read_bytes()
    try:
        model = ModelProto.FromString(data)
    except DecodeError:
        # `parse` says what is wrong.
        return data
    outside = _external(model)
    folder = path.parent.resolve()
    for tensor in outside:
        location = ExternalDataInfo(tensor).location
        if not (folder / location).resolve().is_relative_to(folder):
            raise ExternalDataError(f"its tensor {tensor.name} lies outside its folder: {location}")
    try:
        load_external_data_for_model(model, str(folder))
    except (CheckError, OSError, ValueError) as error:
        raise ExternalDataError(f"a part of it cannot be read: {error}") from error
    return model.SerializeToString() if outside else data


def _refuse_external(model: ModelProto) -> None:
    for tensor in _external(model):
        raise ExternalDataError(f"its tensor {tensor.name} lies outside the file")


def _external(model: ModelProto) -> list[TensorProto]:
    attributes = [item for node in model.graph.node for item in node.attribute]
    tensors = (*model.graph.initializer, *(item.t for item in attributes))
    return [tensor for tensor in tensors if tensor.data_location == TensorProto.EXTERNAL]


def opset_of(model: ModelProto) -> int:
    """The version of ONNX's own operators that *model* uses; 0 if it names none."""
    versions = (item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    return max(versions, default=0)


def normal_form(model: ModelProto) -> ModelProto:
    """*model* with float32 for every float, constants folded, in a new opset, shapes inferred.

    What a step cannot do stays as it is: the mapping of operators then says which node it is.
    """
    model = in_onnx(_as_float32(model), opset_of(model))
    # Twice, as what an operator was expanded into is folded only when it is met again.
    return inferred(_newest(_folded(_folded(model))))


def inferred(model: ModelProto) -> ModelProto:
    """*model* with the shapes that can be inferred."""
    try:
        return shape_inference.infer_shapes(model, data_prop=True)
    except (InferenceError, ValueError):
        return model


def _as_float32(model: ModelProto) -> ModelProto:
    changed = ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    for tensor in graph.initializer:
        _float32_tensor(tensor)
    for item in (*graph.input, *graph.output):
        if item.type.tensor_type.elem_type in _OTHER_FLOATS:
            item.type.tensor_type.elem_type = TensorProto.FLOAT
    # They are inferred again; what stood there speaks of the other types.
    del graph.value_info[:]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _float32_tensor(attribute.t)
            elif node.op_type in ("Cast", "Dropout") and attribute.name == "to":
                attribute.i = TensorProto.FLOAT if attribute.i in _OTHER_FLOATS else attribute.i
    return changed


def _float32_tensor(tensor: TensorProto) -> None:
    if tensor.data_type in _OTHER_FLOATS:
        array = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _folded(model: ModelProto) -> ModelProto:
    """onnxruntime's offline optimiser at its basic level: it folds constants with the very kernels
    that are the reference, folds batch norms into convolutions, and adds no operators of its own.
    """
    from fluxdrop.predict.ort import ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory(prefix="fluxdrop-") as folder:
        path = Path(folder, "folded.onnx")
        options.optimized_model_filepath = str(path)
        try:
            ort.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            return onnx.load(path)
        except Exception:  # onnxruntime's exceptions share no class below Exception
            return model


def _newest(model: ModelProto) -> ModelProto:
    if opset_of(model) >= _NEWEST_OPSET:
        return model
    # The optimiser names domains of its own, which no node uses.
    used = {node.domain or "" for node in model.graph.node}
    imports = [item for item in model.opset_import if (item.domain or "") in used | {""}]
    del model.opset_import[:]
    model.opset_import.extend(imports)
    try:
        return version_converter.convert_version(model, _NEWEST_OPSET)
    except (RuntimeError, ValueError, CheckError, version_converter.ConvertError):
        return model


def value_shape(item: onnx.ValueInfoProto) -> tuple[int, ...] | None:
    """The shape that *item* tells, -1 where it is free; None when it tells none."""
    tensor = item.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(size.dim_value if size.HasField("dim_value") else -1 for size in tensor.shape.dim)
