"""Model bundles: folders with model.onnx or flux_model.jl, and a model.toml that says how to use it."""

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
DATA_FILE = "model.onnx.data"
"""The file with the weights of a model.onnx that would be too large with them."""
_BLOCK_BYTES = 1 << 20
_WEIGHTS = (".bson", ".jl", ".jld2")


OutputKind = Literal["softmax", "logits", "sigmoid", "multi-label", "regression", "embedding"]
"""What a model's numbers mean; see `BundleSpec.output`."""

Probability = Annotated[float, Meta(ge=0, le=1)]
_HALF = (0.5,)

AnswerKind = Literal["classification", "multi-label", "regression", "embedding"]
"""What an answer consists of: `answer_kind` of a `BundleSpec`."""


class BundleSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The contents of model.toml."""

    labels: Annotated[list[str], Meta(min_length=1)] = []
    """The names of the classes, in the order of the model's output; for a regression, those of its values.

    It may be missing for a regression with one value, and is for an embedding.
    """
    output: OutputKind | Literal["probabilities"] = "softmax"
    """What the model returns.

    - ``softmax``: probabilities that add up to 1. ``probabilities`` is an earlier name of it, which `load_bundle`
      replaces.
    - ``logits``: numbers of which fluxdrop computes the softmax.
    - ``sigmoid``: one probability: that of the only label, or that of the second of two.
    - ``multi-label``: a probability per label, each on its own.
    - ``regression``: numbers that are the answer themselves.
    - ``embedding``: a vector that describes the picture.
    """
    activation: Literal["none", "sigmoid"] = "none"
    """What fluxdrop applies to the output of ``sigmoid`` or ``multi-label``, where the model itself does not."""
    thresholds: Annotated[tuple[Probability, ...], Meta(min_length=1)] = _HALF
    """The probability from which a label counts as found: one for all labels, or one per label."""
    unit: str | list[str] = ""
    """The unit of a regression's values: one for all, or one per value."""
    value_name: str = "value"
    """The name of a regression's value, where it has no `labels`."""
    output_name: str | None = None
    """The output of model.onnx with these numbers; None when only one output can be it."""
    origin: dict[str, str] = {}
    """Where the other keys came from, such as ``guessed: ...``; for people only."""
    input: InputSpec

    @property
    def columns(self) -> int | None:
        """How many numbers the model gives for a picture; None for any number."""
        if self.output == "embedding":
            return None
        return 1 if self.output == "sigmoid" else len(self.names)

    @property
    def names(self) -> list[str]:
        """The names of the answer's numbers: `labels`, or of a regression without labels `value_name`."""
        return self.labels or ([self.value_name] if self.output == "regression" else [])

    @property
    def units(self) -> list[str]:
        """The units of a regression's values, in the order of `names`; empty where it has none."""
        return [self.unit] * len(self.names) if isinstance(self.unit, str) else self.unit

    @property
    def answer_kind(self) -> AnswerKind:
        """The kind of the answers: of one ``sigmoid``, two labels are classes, and one is found or not."""
        if self.output == "regression" or self.output == "embedding":
            return self.output
        if self.output == "multi-label" or (self.output == "sigmoid" and len(self.labels) == 1):
            return "multi-label"
        return "classification"

    @property
    def summary(self) -> str:
        """What the model answers with, in a few words."""
        if self.output == "embedding":
            return "an embedding"
        if self.output == "regression":
            return f"a regression of {', '.join(self.names)}"
        if self.output == "sigmoid":
            return f"a sigmoid output, the probability of {self.labels[-1]}"
        plural = "" if len(self.labels) == 1 else "s"
        return f"{len(self.labels)} label{plural} of a {self.output} output"

    def problem(self) -> str:
        """Check the values against each other; return what is wrong, as a sentence, or an empty string."""
        count = len(self.labels)
        is_independent = self.answer_kind == "multi-label"
        if not count and self.output not in ("regression", "embedding"):
            return f"labels are missing, which output {self.output} needs."
        if count and self.output == "embedding":
            return "an embedding has no labels."
        if len(set(self.labels)) < count:
            return "two labels are the same."
        if self.output == "sigmoid" and count > 2:
            return f"output sigmoid is for one or two labels, not {count}: use multi-label."
        if self.output == "logits" and count == 1:
            return "of one label, the softmax of logits is always 1: use sigmoid or regression."
        if self.activation != "none" and self.output not in ("sigmoid", "multi-label"):
            return f"activation is for output sigmoid or multi-label, not for {self.output}."
        if self.thresholds != _HALF and not is_independent:
            return "thresholds are for output multi-label, or sigmoid with one label."
        if len(self.thresholds) not in (1, count) and is_independent:
            return f"thresholds has {len(self.thresholds)} values for {count} labels."
        if (self.unit or self.value_name != "value") and self.output != "regression":
            return f"unit and value_name are for output regression, not for {self.output}."
        if len(self.units) != len(self.names):
            return f"unit has {len(self.units)} values for {len(self.names)} values of the model."
        return self.input.problem()


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose model.toml was read and validated; whether the model fits it is not checked yet."""

    name: str
    folder: Path
    spec: BundleSpec
    sha256: str
    """The digest of model.onnx; for a native Flux model, `native_digest` of its folder."""
    kind: Literal["onnx", "flux"] = "onnx"
    """``flux`` is a native Flux model: Julia code that the root's owner installed."""

    @property
    def onnx(self) -> Path:
        """The path of model.onnx, whether or not the bundle has one."""
        return self.folder / "model.onnx"

    @property
    def file(self) -> Path:
        """The path of the model's main file: model.onnx or flux_model.jl."""
        return self.folder / NATIVE if self.kind == "flux" else self.onnx


def native_files(folder: Path) -> list[Path]:
    """Return the files of a native Flux model, sorted: flux_model.jl and the Julia and weight files beside it."""
    return sorted(path for path in folder.iterdir() if path.suffix in _WEIGHTS)


def native_digest(folder: Path) -> str:
    """Return the SHA-256, in hex, of what ``sha256sum`` prints for the `native_files` of *folder*."""
    lines = []
    for path in native_files(folder):
        with path.open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}\n")
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def onnx_digest(folder: Path) -> str:
    """Return the SHA-256, in hex, of the model.onnx in *folder*, followed by its `DATA_FILE` if it has one."""
    digest = hashlib.sha256()
    for path in (folder / "model.onnx", folder / DATA_FILE):
        if path.name == "model.onnx" or path.exists():
            with path.open("rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    digest.update(block)
    return digest.hexdigest()


def flux_required_error(bundle: Bundle, reason: str, hint: str = "") -> FluxdropError:
    """Return the error, kind ``model``, for a native Flux model that cannot be run here.

    Args:
        bundle: The model.
        reason: Why it cannot be run, as the end of the message.
        hint: What to do about it; if empty, how to get Flux.
    """
    return FluxdropError(
        f"The model {bundle.name} is a native Flux model, which needs the engine julia with Flux: {reason}",
        hint=hint
        or "Run `fluxdrop setup` where Julia's servers can be reached, or name a Julia and a project that has Flux"
        " in FLUXDROP_JULIA and FLUXDROP_JULIA_PROJECT.",
        kind="model",
    )


def known_bundles(own: Path | None = None) -> dict[str, Path]:
    """Return the folders of all installed bundles by name: the embedded ones, and those in *own*.

    A bundle in *own* is hidden by an embedded one of the same name.
    """
    folders = [models_folder()] + ([own] if own is not None else [])
    return {
        path.parent.name: path.parent
        for folder in reversed(folders)
        for path in sorted(folder.glob("[!.]*/model.toml"))
    }


def installed_folder(name: str, own: Path | None = None) -> Path:
    """Return the folder of the bundle *name*, which is embedded or in the folder *own*.

    Raises:
        FluxdropError: Kind ``model``, when there is no such bundle. A path is not a name.
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
    """Load the bundle *name*, which may come from anybody; unlike in `load_bundle`, a path is refused.

    Raises:
        FluxdropError: As `load_bundle` does.
    """
    return load_bundle(str(installed_folder(name, own)), own)


def load_bundle(model: str, own: Path | None = None) -> Bundle:
    """Read the bundle *model*: the name of one that is embedded or in the folder *own*, else a path.

    Raises:
        FluxdropError: Kind ``model``, when the bundle is missing or incomplete, when it lies in a
            shared folder of a root, or when it is code that users other than root and this
            process's can change.
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
    _check_not_shared(folder, own)
    kind: Literal["onnx", "flux"] = "flux" if (folder / NATIVE).is_file() else "onnx"
    if kind == "flux" and (folder / "model.onnx").exists():
        raise FluxdropError(
            f"{folder} has both model.onnx and {NATIVE}",
            hint="Keep the one that is to run.",
            kind="model",
        )
    if kind == "flux":
        check_code_ownership(folder)
    try:
        spec = msgspec.toml.decode((folder / "model.toml").read_bytes(), type=BundleSpec)
        digest = native_digest(folder) if kind == "flux" else onnx_digest(folder)
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
    if spec.output == "probabilities":
        spec = msgspec.structs.replace(spec, output="softmax")
    problem = spec.problem()
    if kind == "flux" and spec.input.layout != "NCHW":
        problem = f"input.layout is {spec.input.layout}; {NATIVE} gets NCHW, which is Flux's WHCN."
    if kind == "flux" and spec.output_name is not None:
        problem = f"{NATIVE} has one output: output_name is for model.onnx."
    if problem:
        raise FluxdropError(f"{folder / 'model.toml'} is wrong: {problem}", kind="model")
    return Bundle(folder.name, folder, spec, digest, kind)


def _check_not_shared(folder: Path, own: Path | None) -> None:
    """Check that *folder* does not lie where others may write.

    That is in a shared folder of any root above it, or of the root whose bundles are in *own*. The
    folders are compared by device and inode, so that neither a mount nor a link hides one.

    Raises:
        FluxdropError: Kind ``model``, when it does.
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
                    f"The model {folder} is in {place}, where others may write",
                    hint=f"Add it to the root: fluxdrop model add {folder}",
                    kind="model",
                )


def check_code_ownership(folder: Path) -> None:
    """Check that only root and this process's user can change the native model in *folder*.

    Raises:
        FluxdropError: Kind ``model``, when others can.
    """
    fault = next(of_code(folder), None)
    if fault is not None:
        raise FluxdropError(
            f"The native Flux model {folder} is code, and is not run: {fault.path} {fault.says}",
            hint=f"Run: {fault.remedy}",
            kind="model",
        )
