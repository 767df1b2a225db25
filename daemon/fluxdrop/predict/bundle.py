"""Model bundles: a folder with model.onnx or flux_model.jl, and model.toml that says how to use it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.ownership import of_code
from fluxdrop.preprocess.spec import InputSpec
from fluxdrop.resources import expanded, models_folder

NATIVE = "flux_model.jl"
_WEIGHTS = (".bson", ".jl", ".jld2")


class BundleSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The contents of model.toml."""

    labels: Annotated[list[str], Meta(min_length=1)]
    """What the outputs are called, in their order."""
    output: Literal["probabilities", "logits"] = "probabilities"
    """logits: the model ends before its softmax, which is then done here."""
    output_name: str | None = None
    """Which output of model.onnx has the labels' numbers; None where there is but one that can."""
    input: InputSpec


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose model.toml was read and found right in itself."""

    name: str
    folder: Path
    spec: BundleSpec
    sha256: str
    """Of model.onnx; of a native Flux model, what `native_digest` makes of its files."""
    kind: Literal["onnx", "flux"] = "onnx"
    """flux: a native Flux model, which is Julia code that the station's owner installed."""

    @property
    def onnx(self) -> Path:
        """The file of an ONNX model."""
        return self.folder / "model.onnx"

    @property
    def file(self) -> Path:
        """The model's file, of either kind."""
        return self.folder / NATIVE if self.kind == "flux" else self.onnx


def native_files(folder: Path) -> list[Path]:
    """What a native Flux model is made of: flux_model.jl and all Julia and weight files beside it, by name."""
    return sorted(path for path in folder.iterdir() if path.suffix in _WEIGHTS)


def native_digest(folder: Path) -> str:
    """SHA-256 of what ``sha256sum`` prints of the `native_files`."""
    lines = []
    for path in native_files(folder):
        with path.open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}\n")
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def needs_flux(bundle: Bundle, reason: str, hint: str = "") -> FluxdropError:
    """What to raise where the native Flux model *bundle* cannot be run."""
    return FluxdropError(
        f"The model {bundle.name} is a native Flux model, which needs the engine julia with Flux: {reason}",
        hint=hint
        or "Run `fluxdrop setup` where Julia's servers can be reached, or name a Julia and a project that has Flux"
        " in FLUXDROP_JULIA and FLUXDROP_JULIA_PROJECT.",
        kind="model",
    )


def known_bundles(own: Path | None = None) -> dict[str, Path]:
    """The bundles that have a name: the embedded ones, and those in the folder *own*."""
    folders = [models_folder()] + ([own] if own is not None else [])
    return {
        path.parent.name: path.parent
        for folder in reversed(folders)
        for path in sorted(folder.glob("[!.]*/model.toml"))
    }


def installed_folder(name: str, own: Path | None = None) -> Path:
    """The folder of the bundle *name*, embedded or in the folder *own*; a path is no such name.

    Raises FluxdropError, kind ``model``, when there is none.
    """
    known = known_bundles(own)
    if name not in known:
        raise FluxdropError(
            f"There is no model bundle {name}",
            hint=f"`fluxdrop model add` makes one of a file or a folder. There are:"
            f" {', '.join(sorted(known))}.",
            kind="model",
        )
    return known[name]


def load_installed(name: str, own: Path | None = None) -> Bundle:
    """`load_bundle` for a name that anybody may have given: no path is taken."""
    return load_bundle(str(installed_folder(name, own)), own)


def load_bundle(model: str, own: Path | None = None) -> Bundle:
    """Read the bundle *model*: a name, embedded or in the folder *own*, else a folder.

    Raises FluxdropError, kind ``model``, for a bundle that is not there or not whole, that lies where
    people drop files or find results, or that is code which others than this process's user can change.
    """
    known = known_bundles(own)
    folder = known.get(model) or expanded(model)
    if not folder.is_dir():
        raise FluxdropError(
            f"There is no model bundle {model}.",
            hint=f"Give a bundle's folder, or one of: {', '.join(sorted(known))}.",
            kind="model",
        )
    folder = folder.resolve()
    _refuse_shared(folder, own)
    kind: Literal["onnx", "flux"] = "flux" if (folder / NATIVE).is_file() else "onnx"
    if kind == "flux" and (folder / "model.onnx").exists():
        raise FluxdropError(
            f"{folder} has both model.onnx and {NATIVE}",
            hint="Keep the one that is to run.",
            kind="model",
        )
    if kind == "flux":
        refuse_others_code(folder)
    try:
        spec = msgspec.toml.decode((folder / "model.toml").read_bytes(), type=BundleSpec)
        if kind == "flux":
            digest = native_digest(folder)
        else:
            digest = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    except OSError as error:
        raise FluxdropError(
            f"{error.filename} cannot be read: {error.strerror}.",
            hint=f"A bundle is a folder with model.onnx, or {NATIVE}, and model.toml.",
            kind="model",
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FluxdropError(
            f"{folder / 'model.toml'} is wrong: {error}",
            hint="`fluxdrop model add --help` tells what each key may be.",
            kind="model",
        ) from error
    problem = spec.input.problem()
    if len(set(spec.labels)) < len(spec.labels):
        problem = "two labels are the same."
    if kind == "flux" and spec.input.layout != "NCHW":
        problem = f"input.layout is {spec.input.layout}; {NATIVE} gets NCHW, which is Flux's WHCN."
    if kind == "flux" and spec.output_name is not None:
        problem = f"{NATIVE} has one output: output_name is for model.onnx."
    if problem:
        raise FluxdropError(f"{folder / 'model.toml'} is wrong: {problem}", kind="model")
    return Bundle(folder.name, folder, spec, digest, kind)


def _refuse_shared(folder: Path, own: Path | None) -> None:
    """Refuse a *folder* that lies where others may write: in a shared folder of the root whose bundles
    are in *own*, however it is mounted or linked, or of any other root.
    """
    shared: list[Path] = []
    for parent in (folder, *folder.parents):
        root = Root(parent)
        if root.state.is_dir():
            shared += root.shared
    if own is not None:
        shared += Root(own.parents[1]).shared
    for parent in (folder, *folder.parents):
        for place in shared:
            if place.exists() and parent.samefile(place):
                raise FluxdropError(
                    f"The model {folder} lies in {place}, where others may write",
                    hint=f"Add it to the root: fluxdrop model add {folder}",
                    kind="model",
                )


def refuse_others_code(folder: Path) -> None:
    """Raise FluxdropError, kind ``model``, where anybody but root and this process's user can change the
    native model in *folder*.
    """
    fault = next(of_code(folder), None)
    if fault is not None:
        raise FluxdropError(
            f"The native Flux model {folder} is code, and is not run: {fault.path} {fault.says}",
            hint=f"Run: {fault.remedy}",
            kind="model",
        )
