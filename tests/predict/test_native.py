"""Native Flux models, and where Flux computes.

Flux itself is stood in for by a module of its name, in a Julia project of the test's, which has what the worker asks of
Flux apart from layers.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fluxdrop import config
from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.predict.bundle import Bundle, load_bundle
from fluxdrop.predict.choose_engine import open_engine
from fluxdrop.predict.compiler.compile import compile_bundle
from fluxdrop.predict.engine import Engine, EngineDown
from fluxdrop.predict.library import AddedModel, add_model
from support.daemons import fluxdrop
from support.native_models import FLUX, SUMS, TOML, install, native
from support.needs import needs_julia

pytestmark = pytest.mark.slow

BATCH = np.arange(5 * 24, dtype=np.float32).reshape(5, 3, 2, 4)


def opened(bundle: Path | Bundle, engine: str = "julia", **options: Any) -> closing[Engine]:
    """An engine that is closed at the end of a with statement."""
    loaded = bundle if isinstance(bundle, Bundle) else load_bundle(str(bundle))
    return closing(open_engine(config.load(None, {"engine": engine, **options}), loaded))


def refusal(bundle: Path, engine: str = "julia", **options: Any) -> FluxdropError:
    with pytest.raises(FluxdropError) as caught:
        opened(bundle, engine, **options)
    return caught.value


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Julia project with no packages, and no others but the standard library's."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.setenv("FLUXDROP_JULIA_PROJECT", str(folder))
    monkeypatch.setenv("JULIA_LOAD_PATH", "@:@stdlib")
    return folder


@pytest.fixture
def flux(project: Path) -> Path:
    """A project with the stand-in for Flux."""
    install(project, Flux=FLUX)
    return project


def test_kind_and_digest(tmp_path: Path) -> None:
    """A bundle with flux_model.jl is of the kind flux, and its digest is sha256sum's of code and weights."""
    folder = native(tmp_path / "sums")
    (folder / "MODEL_CARD.md").write_text("It sums.")

    found = load_bundle(str(folder))
    line = "sha256sum flux_model.jl weights.bson | sha256sum"
    digest = subprocess.run(["sh", "-c", line], cwd=folder, capture_output=True, check=True).stdout

    assert ("flux", folder / "flux_model.jl") == (found.kind, found.file)
    assert digest.split()[0].decode() == found.sha256


@pytest.mark.parametrize("name", ["flux_model.jl", "weights.bson", "more.jld2", "layers.jl"])
def test_digest_tells_changes(tmp_path: Path, name: str) -> None:
    """Whatever of code and weights changes or comes, the digest is another."""
    before = load_bundle(str(native(tmp_path))).sha256

    (tmp_path / name).write_text("another")

    assert before != load_bundle(str(tmp_path)).sha256


def test_two_models(tmp_path: Path) -> None:
    """A bundle with both kinds of model is refused rather than one of them taken."""
    (native(tmp_path) / "model.onnx").touch()

    with pytest.raises(FluxdropError, match=r"has both model\.onnx and flux_model\.jl"):
        load_bundle(str(tmp_path))


def test_layout(tmp_path: Path) -> None:
    """A native model takes Flux's layout and no other."""
    native(tmp_path, toml=TOML + 'layout = "NHWC"\n')

    with pytest.raises(FluxdropError, match=r"input\.layout is NHWC"):
        load_bundle(str(tmp_path))


def test_nothing_to_compile(tmp_path: Path) -> None:
    """There is no graph file of a native model."""
    with pytest.raises(FluxdropError, match="there is nothing to compile") as caught:
        compile_bundle(load_bundle(str(native(tmp_path))))

    assert "model" == caught.value.kind


@pytest.mark.parametrize(
    ("engine", "reason"),
    [
        ("onnxruntime", "onnxruntime has no Flux"),
        ("julia", "There is no Julia on this machine"),
        ("auto", "There is no Julia on this machine"),
    ],
)
def test_engines_without_flux(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
    reason: str,
) -> None:
    """Without Julia no engine takes a native model; the error names the model, and what to do."""
    for name in ("FLUXDROP_JULIA", "FLUXDROP_JULIA_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FLUXDROP_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", "")

    error = refusal(native(tmp_path / "sums"), engine)

    said = "The model sums is a native Flux model, which needs the engine julia with Flux: "
    assert (said + reason, "model") == (error.message.rstrip("."), error.kind)
    assert "fluxdrop setup" in error.hint


@needs_julia
@pytest.mark.usefixtures("project")
def test_worker_without_flux(tmp_path: Path) -> None:
    """A Julia without Flux does not take a native model, and auto goes on to nothing else."""
    error = refusal(native(tmp_path / "sums", "error()"), "auto")

    assert "model" == error.kind
    assert "The model sums is a native Flux model" in error.message
    assert error.message.endswith("Flux is not installed in Julia's active project.")


@needs_julia
@pytest.mark.usefixtures("flux")
@pytest.mark.parametrize("engine", ["julia", "auto"])
def test_plain_layers(tmp_path: Path, engine: str) -> None:
    """Who asks for the plain layers is told that this is why a native model does not run."""
    error = refusal(native(tmp_path / "sums"), engine, julia_backend="plain")

    assert ("model", "Set julia_backend to auto.") == (error.kind, error.hint)
    assert "julia_backend is plain" in error.message


@needs_julia
@pytest.mark.usefixtures("flux")
def test_native(tmp_path: Path) -> None:
    """A native model gets WHCN, reads its weights from its own folder, and answers [N, K]."""
    with opened(native(tmp_path / "sums"), "auto") as running:
        found = running.predict(BATCH)
        info = running.info

    np.testing.assert_allclose(2.5 * BATCH.sum(axis=(2, 3)), found)
    assert ("julia", "flux", "cpu", None) == (info.engine, info.backend, info.device, info.note)


@needs_julia
@pytest.mark.usefixtures("flux")
def test_restart(tmp_path: Path) -> None:
    """A worker that died is replaced by one with the same native model; not if its weights changed, or
    if others may change it by now.
    """
    folder = native(tmp_path / "sums")

    with opened(folder) as running:
        first = running.predict(BATCH)
        kill(running)
        second = running.predict(BATCH)
        (folder / "weights.bson").write_text("3")
        kill(running)
        with pytest.raises(EngineDown, match=r"flux_model\.jl or its weights changed"):
            running.predict(BATCH)
        (folder / "weights.bson").write_text("2.5")
        third = running.predict(BATCH)
        folder.chmod(0o777)
        kill(running)
        with pytest.raises(EngineDown, match=f"is not run: {folder} may be written by everybody"):
            running.predict(BATCH)

    assert first.tolist() == second.tolist() == third.tolist()


def kill(engine: Engine) -> None:
    pid = engine.info.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


@needs_julia
@pytest.mark.usefixtures("flux")
@pytest.mark.parametrize(
    ("code", "words"),
    [
        ('\nerror("no weights")', "line 2: no weights"),
        ("build() = 1", "it does not define build_model()"),
        ('build_model() = x -> error("too large")', "too large"),
        ("build_model() = x -> vec(x)", "not a matrix of (labels, 1)"),
    ],
)
def test_code_that_fails(tmp_path: Path, code: str, words: str) -> None:
    """Code that fails, or gives no probabilities, is an error that names the file, whatever the engine."""
    folder = native(tmp_path / "sums", code)

    error = refusal(folder, "auto")

    assert "model" == error.kind
    assert (True, True) == (f"{folder}/flux_model.jl" in error.message, words in error.message)


@needs_julia
@pytest.mark.parametrize(
    ("packages", "words"),
    [
        ({}, "a GPU is demanded, and only Flux can use one: Flux is not installed"),
        ({"Flux": FLUX}, "there is none that works: none of CUDA (with cuDNN), AMDGPU and Metal"),
        ({"Flux": FLUX, "CUDA": "module CUDA end"}, "none of CUDA (with cuDNN), AMDGPU and Metal"),
        ({"Flux": FLUX, "AMDGPU": "module AMDGPU end"}, "AMDGPU: No functional GPU device found!"),
    ],
)
def test_no_gpu(project: Path, packages: dict[str, str], words: str) -> None:
    """Where a GPU is demanded and there is none, that is an error with the reason, and no other engine runs."""
    install(project, **{name: no_cache(code) for name, code in packages.items()})

    error = refusal(Path("round-or-angular"), "auto", device="gpu")

    assert (True, True) == (words in error.message, "exited with code 3" in error.message)


def no_cache(code: str) -> str:
    return code if "__precompile__" in code else f"__precompile__(false)\n{code}"


def test_gpu_of_onnxruntime() -> None:
    """onnxruntime is not asked for a GPU."""
    error = refusal(Path("round-or-angular"), "onnxruntime", device="gpu")

    assert ("config", True) == (error.kind, "device is gpu" in error.message)


@needs_julia
@pytest.mark.parametrize(
    ("device", "expected"), [("auto", "cuda"), ("gpu", "cuda"), ("cpu", "cpu")]
)
def test_gpu(project: Path, tmp_path: Path, device: str, expected: str) -> None:
    """A GPU that Flux finds, once its packages are loaded, is taken unless the CPU is asked for, and told."""
    names = {name: no_cache(f"module {name} end") for name in ("CUDA", "cuDNN")}
    install(project, Flux=FLUX, **names)

    with opened(native(tmp_path / "sums"), device=device) as running:
        found = running.predict(BATCH)
        info = running.info

    assert (expected, "flux") == (info.device, info.backend)
    np.testing.assert_allclose(2.5 * BATCH.sum(axis=(2, 3)), found)


@needs_julia
@pytest.mark.usefixtures("flux")
def test_add(root: Root, tmp_path: Path) -> None:
    """A folder that has run is added with its code and its weights and nothing else, and is used by its name."""
    source = native(tmp_path / "sums")
    (source / "notes.txt").write_text("of ours")
    added = add_model(root, source, config.Settings(), name=None, labels=None, options={})
    listed = fluxdrop("model", "list", "--root", root.path)
    used = fluxdrop("model", "use", "sums", "--root", root.path)

    with opened(added.bundle) as running:
        found = running.predict(BATCH)

    assert (None, "flux") == (added.difference, added.engine.backend)
    files = ["flux_model.jl", "model.toml", "weights.bson"]
    assert files == sorted(path.name for path in (root.models / "sums").iterdir())
    assert load_bundle(str(source)).sha256 == added.bundle.sha256
    np.testing.assert_allclose(2.5 * BATCH.sum(axis=(2, 3)), found)
    assert "sums (native Flux): 4x2 RGB, a, b, c" in listed.stdout
    assert (0, "sums\n") == (used.returncode, root.model_in_use.read_text())


@needs_julia
@pytest.mark.usefixtures("flux")
def test_add_from_options(root: Root, tmp_path: Path) -> None:
    """Without a model.toml the size is asked for, and labels and output are as the model has them."""
    source = native(tmp_path / "sums")
    (source / "model.toml").unlink()

    with pytest.raises(FluxdropError, match="does not declare the size") as caught:
        add_model(root, source, config.Settings(), name=None, labels=None, options={})
    options = {"size": [4, 2]}
    added = add_model(root, source, config.Settings(), name=None, labels=None, options=options)

    assert "--size" in caught.value.hint
    assert (["0", "1", "2"], "logits") == (added.bundle.spec.labels, added.bundle.spec.output)


@needs_julia
@pytest.mark.usefixtures("flux")
@pytest.mark.parametrize(
    ("end", "options", "output"),
    [
        ("y -> exp.(y) ./ sum(exp.(y); dims=1)", {}, "softmax"),
        ("y -> vcat(y, y)", {"output": "embedding"}, "embedding"),
        ("y -> 1 ./ (1 .+ exp.(-y))", {}, "--output multi-label if each"),
    ],
)
def test_kinds(root: Root, tmp_path: Path, end: str, options: dict[str, Any], output: str) -> None:
    """A native model gives each kind of answer; as nothing shows its end, more of them is asked for."""
    code = SUMS.replace("return x ->", f"last = {end}\n    return x -> last(").replace(
        "3, :)", "3, :))"
    )
    source = native(tmp_path / "sums", code, "[input]\nsize = [4, 2]\n")

    def add() -> AddedModel:
        return add_model(root, source, config.Settings(), name=None, labels=None, options=options)

    if " " in output:
        with pytest.raises(FluxdropError) as caught:
            add()
        assert output in caught.value.hint
    else:
        assert output == add().bundle.spec.output


@needs_julia
@pytest.mark.parametrize(
    ("has_flux", "code", "toml", "words"),
    [
        (False, SUMS, TOML, "which needs the engine julia with Flux: Flux is not installed"),
        (
            True,
            SUMS,
            TOML.replace('"a", ', ""),
            "gives 3 numbers a picture, and there are 2 labels",
        ),
        (True, "build_model() = 1 +", TOML, "sums/flux_model.jl cannot be run by Julia"),
        (True, SUMS, 'output_name = "y"\n' + TOML, "output_name is for model.onnx"),
    ],
)
def test_add_refuses(
    root: Root, project: Path, tmp_path: Path, has_flux: bool, code: str, toml: str, words: str
) -> None:
    """A native model that does not run, or not as its model.toml says, is one sentence, and nothing changes."""
    if has_flux:
        install(project, Flux=FLUX)
    source = native(tmp_path / "sums", code, toml)

    ended = fluxdrop("model", "add", source, "--root", root.path)

    assert (2, 1) == (ended.returncode, len(ended.stderr.strip().splitlines()))
    assert words in ended.stderr
    assert ".adding" not in ended.stderr
    assert [] == list(root.models.iterdir())


def test_nothing_to_check(tmp_path: Path) -> None:
    """check says that there is nothing to compare a native model with, and how to try it."""
    ended = fluxdrop("model", "check", native(tmp_path / "sums"))

    assert (2, True) == (
        ended.returncode,
        "there is no ONNX file to compare it with" in ended.stderr,
    )
