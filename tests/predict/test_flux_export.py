"""``fluxdrop model export``: ONNX models as native Flux bundles, run in plain Julia sessions against onnxruntime."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.predict.bundle import load_bundle
from fluxdrop.predict.onnxruntime_engine import OnnxruntimeEngine
from fluxdrop.provision import find_julia, julia_command
from fluxdrop.provision.script import answer_of
from support import architectures, operator_models
from support.daemons import fluxdrop
from support.needs import needs_julia

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4
MINUTES = 20 * 60
Pictures = NDArray[np.float32]

_HAS_PACKAGES = """
found = map(("Flux", "JLD2")) do name
    id = Base.identify_package(name)
    id === nothing ? v"0" : Base.pkgversion(Base.require(id))
end
println("packages|", found[1] >= v"0.16" && found[2] > v"0")
"""
# As somebody without fluxdrop would run the model: the folder, the pictures, the file for the answers, the sizes.
_SESSION = """
using Flux, JLD2
include(joinpath(ARGS[1], "flux_model.jl"))
x = reshape(collect(reinterpret(Float32, read(ARGS[2]))), map(n -> parse(Int, n), ARGS[4:end])...)
write(ARGS[3], build_model()(x))
any(id -> startswith(id.name, "Fluxdrop"), keys(Base.loaded_modules)) && error("fluxdrop is loaded")
"""


@pytest.fixture(scope="module")
def real_flux() -> None:
    """Skip where Julia's project has not the real Flux and JLD2."""
    install = find_julia()
    if install is None:
        pytest.skip("there is no Julia on this machine")
    try:
        has_packages = answer_of(install, _HAS_PACKAGES, "packages", MINUTES)
    except FluxdropError:
        has_packages = "false"
    if has_packages != "true":
        pytest.skip("Julia's project has not Flux 0.16 and JLD2")


def bundle(folder: Path, model: bytes, table: str, labels: int) -> Path:
    folder.mkdir()
    (folder / "model.onnx").write_bytes(model)
    names = [str(label) for label in range(labels)]
    (folder / "model.toml").write_text(f'labels = {names}\noutput = "logits"\n[input]\n{table}\n')
    return folder


def exported(model: Path | str, folder: Path) -> dict[str, Any]:
    """What the command answers; fails unless it worked."""
    ended = fluxdrop("model", "export", model, "--flux", folder, "--json")
    assert 0 == ended.returncode, ended.stderr
    answer: dict[str, Any] = json.loads(ended.stdout)
    return answer


def plain_session(folder: Path, pictures: Pictures) -> Pictures:
    """The answers of the native bundle in *folder* to *pictures* [N, C, H, W], without fluxdrop."""
    install = find_julia()
    assert install is not None
    command, environment = julia_command(install)
    given, answers = folder.with_name("given"), folder.with_name("answers")
    given.write_bytes(np.ascontiguousarray(pictures).tobytes())
    sizes = map(str, reversed(pictures.shape))
    subprocess.run(
        [*command, "-e", _SESSION, folder, given, answers, *sizes],
        env=environment,
        timeout=MINUTES,
        check=True,
    )
    return np.fromfile(answers, dtype=np.float32).reshape(len(pictures), -1)


def noise(*shape: int) -> Pictures:
    return np.random.default_rng(20).standard_normal(shape).astype(np.float32)


def off(expected: Pictures, found: Pictures) -> float:
    """The largest difference of a label, relative to the label's largest number."""
    assert expected.shape == found.shape
    return float((np.abs(expected - found).max(axis=0) / np.abs(expected).max(axis=0)).max())


@pytest.mark.usefixtures("real_flux")
def test_embedded(tmp_path: Path) -> None:
    """The embedded classifier becomes a Chain, which Flux alone runs as onnxruntime does, and which can be added."""
    folder, root = tmp_path / "flux", Root(tmp_path / "root")
    root.create()
    answer = exported("round-or-angular", folder)
    code = (folder / "flux_model.jl").read_text()
    pictures = noise(5, 1, 64, 64)
    expected = OnnxruntimeEngine(load_bundle("round-or-angular")).predict(pictures)

    added = fluxdrop("model", "add", folder, "--root", root.path, "--json")

    assert answer["difference"] < TOLERANCE
    assert "Conv((3, 3), 1 => 16, relu; pad=1),  # /stem/stem.0/Conv" in code
    assert ["flux_model.jl", "model.toml", "weights.jld2"] == sorted(
        path.name for path in folder.iterdir()
    )
    assert off(expected, plain_session(folder, pictures)) < TOLERANCE
    assert (0, ["angular", "round"]) == (added.returncode, json.loads(added.stdout)["labels"])


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("ResNet", "architecture() = Chain("),
        ("ConvNext", "architecture() = Chain("),
        ("ViT", "struct Network"),
    ],
)
@pytest.mark.usefixtures("real_flux")
def test_architecture(tmp_path: Path, name: str, form: str) -> None:
    """An architecture of transformers is a Chain where it is one, and Flux alone gives onnxruntime's answers."""
    for package in ("torch", "transformers", "onnxscript"):
        pytest.importorskip(package)
    size = architectures.CONFIGURATIONS[name].get("image_size", 64)
    model, _ = architectures.exported(name)
    source = bundle(tmp_path / name, model, f"size = [{size}, {size}]", labels=architectures.LABELS)
    folder = tmp_path / "flux"
    pictures = noise(4, 3, size, size)

    exported(source, folder)

    assert form in (folder / "flux_model.jl").read_text()
    expected = OnnxruntimeEngine(load_bundle(str(source))).predict(pictures)
    assert off(expected, plain_session(folder, pictures)) < TOLERANCE


@pytest.mark.usefixtures("real_flux")
def test_every_operator(tmp_path: Path) -> None:
    """Each operator that can be written gives onnxruntime's numbers in Flux alone, in their order."""
    model = operator_models.every_operator()
    labels = onnx.load_from_string(model).graph.output[0].type.tensor_type.shape.dim[1].dim_value
    source = bundle(tmp_path / "operators", model, "size = [6, 8]", labels)
    folder = tmp_path / "flux"
    pictures = noise(4, *operator_models.SHAPE)

    exported(source, folder)

    expected = OnnxruntimeEngine(load_bundle(str(source))).predict(pictures)
    assert off(expected, plain_session(folder, pictures)) < TOLERANCE


def small(*nodes: onnx.NodeProto, shape: tuple[int | str, ...] = ("N", 3, 4, 6)) -> bytes:
    """A model of *nodes* from x to p, then a matrix product that makes two labels of p's three numbers."""
    weight = numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(3, 2), "w")
    bounds = [numpy_helper.from_array(np.array(v, np.float32), n) for v, n in ((1, "b"), (-1, "a"))]
    graph = helper.make_graph(
        [*nodes, helper.make_node("MatMul", ["p", "w"], ["y"], name="last")],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
        [weight, *bounds],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model: bytes = made.SerializeToString()
    return model


def mean(value: str, axes: list[int]) -> onnx.NodeProto:
    return helper.make_node("ReduceMean", [value], ["p"], axes=axes, keepdims=0, name="mean")


@pytest.mark.usefixtures("real_flux")
def test_channels_last(tmp_path: Path) -> None:
    """A model whose channels come last becomes one that takes WHCN, as Flux's models do, and its model.toml says so."""
    model = small(mean("x", [1, 2]), shape=("N", 4, 6, 3))
    source = bundle(tmp_path / "last", model, 'size = [6, 4]\nlayout = "NHWC"', labels=2)
    folder = tmp_path / "flux"
    pictures = noise(3, 4, 6, 3)

    exported(source, folder)

    expected = OnnxruntimeEngine(load_bundle(str(source))).predict(pictures)
    found = plain_session(folder, pictures.transpose(0, 3, 1, 2))
    assert off(expected, found) < TOLERANCE
    assert "NCHW" == load_bundle(str(folder)).spec.input.layout


@pytest.mark.usefixtures("real_flux")
def test_disagreement(tmp_path: Path) -> None:
    """A bundle that gives other numbers than onnxruntime, here for bounds in the wrong order, is not left behind."""
    clip = helper.make_node("Clip", ["x", "b", "a"], ["c"], name="clip")
    # Below both bounds, ONNX returns the one that is called the upper, and Flux the lower.
    table = "size = [6, 4]\nmean = [3]"
    source = bundle(tmp_path / "clip", small(clip, mean("c", [2, 3])), table, labels=2)

    ended = fluxdrop("model", "export", source, "--flux", tmp_path / "flux")

    assert 2 == ended.returncode
    assert "gives other numbers as a Flux model" in ended.stderr
    assert [source] == list(tmp_path.iterdir())


@needs_julia
def test_unknown_operator(tmp_path: Path) -> None:
    """An operator that Flux has nothing for is one sentence with the node and the operator, and nothing is left."""
    norm = helper.make_node("LRN", ["x"], ["n"], size=3, name="norm1")
    source = bundle(tmp_path / "lrn", small(norm, mean("n", [2, 3])), "size = [6, 4]", labels=2)

    ended = fluxdrop("model", "export", source, "--flux", tmp_path / "flux")

    assert (2, 1) == (ended.returncode, len(ended.stderr.strip().splitlines()))
    assert "node norm1 (LRN): Flux has no layer or function for it" in ended.stderr
    assert [source] == list(tmp_path.iterdir())


@needs_julia
def test_without_flux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the project has no Flux, the error says what is missing and how to get it."""
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.setenv("FLUXDROP_JULIA_PROJECT", str(project))
    monkeypatch.setenv("JULIA_LOAD_PATH", "@:@stdlib")

    ended = fluxdrop("model", "export", "round-or-angular", "--flux", tmp_path / "flux")

    assert 2 == ended.returncode
    assert "needs Flux and JLD2: Flux is not installed" in ended.stderr
    assert "FLUXDROP_JULIA_PROJECT" in ended.stderr
    assert [project] == list(tmp_path.iterdir())


def test_target_is_taken(tmp_path: Path) -> None:
    """A folder with files in it is refused before anything is done, and stays as it is."""
    kept = tmp_path / "kept"
    kept.touch()

    ended = fluxdrop("model", "export", "round-or-angular", "--flux", tmp_path)

    assert 2 == ended.returncode
    assert f"{tmp_path} is there already" in ended.stderr
    assert [kept] == list(tmp_path.iterdir())


def test_native_already(tmp_path: Path) -> None:
    """A native Flux model is not exported again."""
    (tmp_path / "flux_model.jl").write_text("build_model() = identity")
    (tmp_path / "model.toml").write_text('labels = ["a"]\n[input]\nsize = [4, 2]\n')

    ended = fluxdrop("model", "export", tmp_path, "--flux", tmp_path / "flux")

    assert 2 == ended.returncode
    assert "is a native Flux model already" in ended.stderr
