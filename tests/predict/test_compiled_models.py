"""Native code that is kept for a model, so that a worker need not compile it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from fluxdrop.config import Settings
from fluxdrop.predict.bundle import Bundle, load_bundle
from fluxdrop.predict.compiled_models import compile_model, compiled_models_folder
from fluxdrop.predict.compiler.cache import compile_cached
from fluxdrop.predict.compiler.graph_file import GraphFile
from fluxdrop.predict.worker import Worker
from fluxdrop.provision.find import data_dir, depot_path, find_julia, release
from support.needs import JULIA, needs_julia

pytestmark = pytest.mark.slow

KEEPS = JULIA is not None and release(JULIA.version) >= (1, 9)
BATCH = np.random.default_rng(1).standard_normal((2, 1, 64, 64), dtype=np.float32)


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """The embedded model; a data folder of the test's, whose depot is stacked on the one in use."""
    found = find_julia()
    assert found is not None
    depots = os.environ.get("JULIA_DEPOT_PATH") or depot_path(data_dir())
    monkeypatch.setenv("JULIA_DEPOT_PATH", f"{tmp_path / 'depot'}:{depots}")
    monkeypatch.setenv("FLUXDROP_JULIA", str(found.executable))
    if found.project is not None:
        monkeypatch.setenv("FLUXDROP_JULIA_PROJECT", str(found.project))
    monkeypatch.setenv("FLUXDROP_DATA_DIR", str(tmp_path / "data"))
    return load_bundle("round-or-angular")


def served(
    graph: Path,
) -> tuple[dict[str, str], np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """What a new worker says of *graph* when it has loaded it, and its answer to the batch."""
    install = find_julia()
    assert install is not None
    worker = Worker(Settings(), install)
    try:
        return worker.load(GraphFile(graph), 300), worker.predict(BATCH, 300)
    finally:
        worker.stop()


@needs_julia
@pytest.mark.skipif(not KEEPS, reason="Julia keeps native code since 1.9")
def test_kept(bundle: Bundle, tmp_path: Path) -> None:
    """A worker loads the code that is kept for its model, answers the same, and no other model uses it."""
    graph = compile_cached(bundle, tmp_path).path
    before, expected = served(graph)
    kept = compile_model(bundle, Settings(), tmp_path)
    after, found = served(graph)
    another = tmp_path / "another"
    another.write_bytes(graph.read_bytes().replace(b"epsilon=1e-05", b"epsilon=2e-05") + bytes(64))
    other, _ = served(another)

    assert kept
    assert ("compiled" in before, "compiled" in after, "compiled" in other) == (False, True, False)
    assert np.array_equal(expected, found)


@needs_julia
@pytest.mark.skipif(not KEEPS, reason="Julia keeps native code since 1.9")
def test_kept_already(bundle: Bundle, tmp_path: Path) -> None:
    """Code that is kept is not compiled again, as where a model is used after it was added."""
    assert compile_model(bundle, Settings(), tmp_path)
    (source,) = compiled_models_folder().glob("*/src/*.jl")
    written = source.stat().st_mtime_ns

    assert compile_model(bundle, Settings(), tmp_path)
    assert written == source.stat().st_mtime_ns


@needs_julia
@pytest.mark.skipif(not KEEPS, reason="Julia keeps native code since 1.9")
def test_spoiled(bundle: Bundle, tmp_path: Path) -> None:
    """What is kept and cannot be used is passed over: the model is compiled at the start."""
    assert compile_model(bundle, Settings(), tmp_path)
    (source,) = compiled_models_folder().glob("*/src/*.jl")
    source.write_text('error("spoiled")')

    facts, _ = served(compile_cached(bundle, tmp_path).path)

    assert "compiled" not in facts


@needs_julia
@pytest.mark.skipif(KEEPS, reason="Julia keeps native code since 1.9")
def test_old_julia(bundle: Bundle, tmp_path: Path) -> None:
    """A Julia that keeps no native code is not asked to."""
    assert not compile_model(bundle, Settings(), tmp_path)
    assert not compiled_models_folder().exists()


@needs_julia
def test_folder_that_cannot_be_made(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that cannot be compiled ahead is no error."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("FLUXDROP_DATA_DIR", str(tmp_path / "file/data"))

    assert not compile_model(bundle, Settings(), tmp_path)
