"""Copy the files of a model that is added: the model itself, and its sample pictures."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.bundle import NATIVE, native_files
from fluxdrop.predict.origin.locate import onnx_file
from fluxdrop.predict.origin.trial import Picture, sample_files
from fluxdrop.predict.origin.weights import Original, export


def copy_files(
    source: Path, copy: Path, pictures: Sequence[Picture], size: Sequence[int] | None
) -> Original | None:
    """Copy the model's files and samples from *source* to the folder *copy*, but no model.toml.

    Where *source* has weights only, they are exported, and what the original makes of *pictures* is returned. *size* is
    the width and height that the user wants.

    Raises:
        FluxdropError: Kind ``model``, when *source* has no model that can be used.
    """
    native, original = source / NATIVE, None
    if native.is_file():
        if (source / "model.onnx").exists():
            raise FluxdropError(
                f"{source} has both model.onnx and {NATIVE}",
                hint="Keep the one that is to run.",
                kind="model",
            )
        for path in native_files(source):
            shutil.copyfile(path, copy / path.name)
    else:
        onnx = onnx_file(source)
        if onnx is None:
            with tempfile.TemporaryDirectory(prefix="fluxdrop-") as out:
                images = [picture.image for picture in pictures]
                original = export(source, Path(out), images, size)
                _copy_onnx(Path(out) / "model.onnx", copy)
        else:
            _copy_onnx(onnx, copy)
    samples = sample_files(source)
    if samples:
        (copy / "samples").mkdir()
        for path in samples:
            shutil.copyfile(path, copy / "samples" / path.name)
    return original


def _copy_onnx(onnx: Path, folder: Path) -> None:
    """Copy the ONNX file, with its external tensors, to *folder*."""
    from fluxdrop.predict.compiler.external_data import ExternalDataError, copy_model

    try:
        copy_model(onnx, folder)
    except ExternalDataError as error:
        raise FluxdropError(f"{onnx} cannot be used: {error}", kind="model") from error
