"""Models that keep tensors in other files: made one file, or two if one would be large."""

from __future__ import annotations

from pathlib import Path

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, TensorProto
from onnx.checker import ValidationError as CheckError
from onnx.external_data_helper import (
    ExternalDataInfo,
    load_external_data_for_tensor,
    set_external_data,
)

from fluxdrop.predict.bundle import DATA_FILE

_MAX_ONE_FILE = 1 << 28
"""A larger message would be in memory three times while it is written; protobuf's limit is 2 GiB."""
_PAGE = 4096


class ExternalDataError(Exception):
    """The model keeps tensors in other files; the message names one of the tensors."""


def copy_model(path: Path, folder: Path) -> None:
    """Copy the model in the file *path* to model.onnx in *folder*, with its external tensors, as PyTorch exports them.

    They become part of model.onnx, or of `DATA_FILE` if they are too large for that. A model without
    external tensors, or one that cannot be read, is copied as it is.

    Raises:
        ExternalDataError: When a file with tensors is missing, or lies outside the model's folder.
    """
    data = path.read_bytes()
    try:
        model = ModelProto.FromString(data)
    except DecodeError:
        # `parse` reports what is wrong.
        model = ModelProto()
    external = external_tensors(model)
    if not external:
        (folder / "model.onnx").write_bytes(data)
        return
    source = path.parent.resolve()
    try:
        for tensor in external:
            location = ExternalDataInfo(tensor).location
            if not (source / location).resolve().is_relative_to(source):
                raise ExternalDataError(
                    f"its tensor {tensor.name} is outside its folder: {location}"
                )
        size = len(data) + sum(_length(tensor, source) for tensor in external)
        if size <= _MAX_ONE_FILE:
            for tensor in external:
                _embed(tensor, source)
        else:
            with (folder / DATA_FILE).open("wb") as file:
                for tensor in external:
                    start = file.tell()
                    # A copy, because a message keeps the memory of what was removed from it.
                    whole = TensorProto.FromString(tensor.SerializeToString())
                    _embed(whole, source)
                    length = file.write(whole.raw_data)
                    file.write(bytes(-file.tell() % _PAGE))
                    tensor.raw_data = b""
                    set_external_data(tensor, DATA_FILE, offset=start, length=length)
                    tensor.ClearField("raw_data")
    except (CheckError, OSError, ValueError) as error:
        raise ExternalDataError(f"a part of it cannot be read: {error}") from error
    (folder / "model.onnx").write_bytes(model.SerializeToString())


def embed_data_file(model: ModelProto, folder: Path | None) -> None:
    """Load the external tensors of *model*, all of which must be in `DATA_FILE` of *folder*.

    Raises:
        ExternalDataError: When one is elsewhere: a model must not choose which files are read.
    """
    for tensor in external_tensors(model):
        elsewhere = ExternalDataInfo(tensor).location != DATA_FILE
        if folder is None or elsewhere or (folder / DATA_FILE).is_symlink():
            raise ExternalDataError(f"its tensor {tensor.name} is outside the file")
        try:
            _embed(tensor, folder)
        except (CheckError, OSError, ValueError) as error:
            raise ExternalDataError(f"a part of it cannot be read: {error}") from error


def external_tensors(model: ModelProto) -> list[TensorProto]:
    """Return the tensors whose data is in other files."""
    attributes = [item for node in model.graph.node for item in node.attribute]
    tensors = (*model.graph.initializer, *(item.t for item in attributes))
    return [tensor for tensor in tensors if tensor.data_location == TensorProto.EXTERNAL]


def _embed(tensor: TensorProto, folder: Path) -> None:
    load_external_data_for_tensor(tensor, str(folder))
    tensor.data_location = TensorProto.DEFAULT
    del tensor.external_data[:]


def _length(tensor: TensorProto, folder: Path) -> int:
    """Return the size of an external tensor in bytes; 0 if its file is missing."""
    info = ExternalDataInfo(tensor)
    file = folder / info.location
    return info.length or (file.stat().st_size if file.is_file() else 0)
