"""Model bundles: a folder with model.onnx, and model.toml that says how to use it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from fluxdrop.errors import FluxdropError
from fluxdrop.preprocess.spec import InputSpec
from fluxdrop.resources import models_folder


class BundleSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The contents of model.toml."""

    labels: Annotated[list[str], Meta(min_length=1)]
    """What the outputs are called, in their order."""
    output: Literal["probabilities", "logits"] = "probabilities"
    """logits: the model ends before its softmax, which is then done here."""
    input: InputSpec


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose model.toml was read and found right in itself."""

    name: str
    folder: Path
    spec: BundleSpec
    sha256: str
    """Of model.onnx."""

    @property
    def onnx(self) -> Path:
        """The model's file."""
        return self.folder / "model.onnx"


def known_bundles(own: Path | None = None) -> dict[str, Path]:
    """The bundles that have a name: the embedded ones, and those in the folder *own*."""
    folders = [models_folder()] + ([own] if own is not None else [])
    return {
        path.parent.name: path.parent
        for folder in reversed(folders)
        for path in sorted(folder.glob("[!.]*/model.toml"))
    }


def load_bundle(model: str, own: Path | None = None) -> Bundle:
    """Read the bundle *model*: a name, embedded or in the folder *own*, else a folder.

    Raises FluxdropError, kind ``model``, for a bundle that is not there or not whole.
    """
    known = known_bundles(own)
    folder = known.get(model) or Path(model).expanduser()
    if not folder.is_dir():
        raise FluxdropError(
            f"There is no model bundle {model}.",
            hint=f"Give a folder with model.onnx and model.toml, or one of: {', '.join(sorted(known))}.",
            kind="model",
        )
    folder = folder.resolve()
    try:
        spec = msgspec.toml.decode((folder / "model.toml").read_bytes(), type=BundleSpec)
        digest = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    except OSError as error:
        raise FluxdropError(
            f"{error.filename} cannot be read: {error.strerror}.",
            hint="A bundle is a folder with model.onnx and model.toml.",
            kind="model",
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FluxdropError(f"{folder / 'model.toml'} is wrong: {error}", kind="model") from error
    problem = spec.input.problem()
    if len(set(spec.labels)) < len(spec.labels):
        problem = "two labels are the same."
    if problem:
        raise FluxdropError(f"{folder / 'model.toml'} is wrong: {problem}", kind="model")
    return Bundle(folder.name, folder, spec, digest)
