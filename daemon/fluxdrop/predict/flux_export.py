"""Export an ONNX model as a native Flux bundle, which runs in Julia with Flux and JLD2 alone."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.files.transient import naming
from fluxdrop.predict.bundle import NATIVE, Bundle, flux_required_error
from fluxdrop.predict.compiler.compile import compile_bundle, float32_form
from fluxdrop.predict.library import spec_text
from fluxdrop.predict.onnxruntime_engine import OnnxruntimeEngine
from fluxdrop.predict.parity import NOISE_FACTOR, TOLERANCE, relative_difference, samples
from fluxdrop.predict.verify import rounding_noise
from fluxdrop.provision import JuliaInstall, find_julia
from fluxdrop.provision.script import complaint, run_julia
from fluxdrop.resources import julia_folder

# A Julia that has never loaded Flux compiles it first.
_TIMEOUT_SECONDS = 1800
_REFUSED, _NO_PACKAGES = 2, 3

# Arguments: the bundle's folder, the file of the pictures, the file for the answers, and the pictures' size in Julia's
# order. The answers are those to all pictures at once, and then those to each of them alone.
_PLAIN_SESSION = """
include(joinpath(ARGS[1], "flux_model.jl"))
model = build_model()
pictures = Array{Float32}(undef, map(size -> parse(Int, size), ARGS[4:end])...)
read!(ARGS[2], pictures)
open(ARGS[3], "w") do file
    write(file, Float32.(model(pictures)))
    foreach(i -> write(file, Float32.(model(pictures[:, :, :, i:i]))), axes(pictures, 4))
end
"""


def export_bundle(bundle: Bundle, folder: Path, settings: Settings) -> float:
    """Write *bundle*, which is of ONNX, to *folder* as a native Flux bundle, and compare the two.

    The new bundle is run in a Julia process of its own, which loads Flux and JLD2 and nothing of
    fluxdrop.

    Returns:
        The `relative_difference` from onnxruntime.

    Raises:
        FluxdropError: *folder* has files or cannot be made, there is no Julia with Flux and JLD2, Flux
            cannot compute the model, or its results differ; *folder* is unchanged then.
    """
    if bundle.kind == "flux":
        raise FluxdropError(f"The model {bundle.name} is a native Flux model already", kind="model")
    _check_target(folder)
    install = find_julia()
    if install is None:
        raise FluxdropError(
            "There is no Julia to write a Flux model with",
            hint="Run `fluxdrop setup`.",
            kind="julia",
        )
    graph = compile_bundle(bundle)
    staging = Path(tempfile.mkdtemp(prefix=".exporting-", dir=folder.parent))
    try:
        with naming(folder.parent):
            durable.write(staging / "model.graph", graph.parts(), sync=False)
            del graph
            written = staging / "bundle"
            written.mkdir()
            _write_code(install, bundle, staging / "model.graph", written)
            _write_spec(bundle, written)
            difference = _compare(install, bundle, written, settings)
            durable.sync_all([path for path in written.iterdir() if path.is_file()], [written])
            written.rename(folder)
            durable.sync_folder(folder.parent)
    finally:
        shutil.rmtree(staging)
    return difference


def _check_target(folder: Path) -> None:
    if not folder.parent.is_dir():
        raise FluxdropError(f"There is no folder {folder.parent} for {folder.name}")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise FluxdropError(
            f"{folder} is there already", hint="Name a folder that does not exist, or an empty one."
        )


def _write_code(install: JuliaInstall, bundle: Bundle, graph: Path, folder: Path) -> None:
    """Write flux_model.jl and weights.jld2 of the compiled *graph* to *folder*."""
    spec = bundle.spec.input
    width, height = spec.size
    script = julia_folder() / "export.jl"
    sizes = [spec.channels, height, width]
    arguments = [script, graph, folder, *sizes, "--layout", spec.layout]
    run = run_julia(install, [str(argument) for argument in arguments], _TIMEOUT_SECONDS)
    if run.returncode == 0:
        return
    said = complaint(run.stderr).removeprefix("fluxdrop: ")
    if run.returncode == _NO_PACKAGES:
        raise FluxdropError(
            f"Writing a Flux model needs Flux and JLD2: {said}",
            hint=flux_required_error(bundle, "").hint
            + ' JLD2 is added to that project by Julia: import Pkg; Pkg.add("JLD2").',
            kind="julia",
        )
    if run.returncode == _REFUSED:
        raise FluxdropError(
            f"{bundle.onnx} cannot be written as a Flux model: {said}", kind="model"
        )
    raise FluxdropError(f"{bundle.onnx} could not be written as a Flux model: {said}", kind="julia")


def _write_spec(bundle: Bundle, folder: Path) -> None:
    """Write the model.toml, and copy the samples."""
    top = msgspec.to_builtins(bundle.spec)
    table = top.pop("input") | {"layout": "NCHW"}
    del top["output_name"]
    if not top["labels"]:
        del top["labels"]
    (folder / "model.toml").write_text(spec_text(top, table), encoding="utf-8")
    if (bundle.folder / "samples").is_dir():
        shutil.copytree(bundle.folder / "samples", folder / "samples")


def _compare(install: JuliaInstall, bundle: Bundle, folder: Path, settings: Settings) -> float:
    """Run the exported bundle in *folder*; return how far it is from onnxruntime, if that is little."""
    batch = samples(bundle, settings)
    expected = OnnxruntimeEngine(bundle, model=float32_form(bundle)).predict(batch)
    pictures = batch if bundle.spec.input.layout == "NCHW" else batch.transpose(0, 3, 1, 2)
    found = _run_plain(install, bundle, folder, np.ascontiguousarray(pictures))
    both = np.concatenate([expected, expected])
    # A file of another size is that of another number of labels.
    difference = (
        relative_difference(both, found.reshape(both.shape))
        if found.size == both.size
        else float("inf")
    )
    if difference > TOLERANCE and not (
        difference <= NOISE_FACTOR * rounding_noise(bundle, batch, expected)
    ):
        raise FluxdropError(
            f"{bundle.onnx.name} gives other numbers as a Flux model than on onnxruntime:"
            f" off by {difference:.2g} of the largest",
            hint="This is a defect of fluxdrop; please report it with the model.",
            kind="model",
        )
    return difference


def _run_plain(
    install: JuliaInstall, bundle: Bundle, folder: Path, pictures: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Run the native model in *folder* on *pictures* [N, C, H, W]; return what `_PLAIN_SESSION` writes."""
    given, answers = folder.with_name("pictures"), folder.with_name("answers")
    given.write_bytes(pictures.tobytes())
    arguments = ["-e", _PLAIN_SESSION, folder, given, answers, *reversed(pictures.shape)]
    run = run_julia(install, [str(argument) for argument in arguments], _TIMEOUT_SECONDS)
    if run.returncode != 0:
        raise FluxdropError(
            f"{bundle.name} does not run as a Flux model: {complaint(run.stderr)}",
            hint=f"This is a defect of fluxdrop in the {NATIVE} that it wrote; please report it with the model.",
            kind="julia",
        )
    return np.fromfile(answers, dtype=np.float32)
