"""Compiling a model in a process of its own, as a daemon does: with real models, and what this process keeps of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.bundle import load_bundle
from fluxdrop.predict.compiler.cache import compile_apart, compile_cached
from fluxdrop.resources import models_folder

_SCRIPT = """
import sys
from pathlib import Path
from fluxdrop.predict.bundle import load_bundle
from fluxdrop.predict.compiler.cache import compile_apart
import fluxdrop.service.daemon
print(compile_apart(load_bundle("round-or-angular"), Path(sys.argv[1])).path)
print(sorted({"onnx", "onnxruntime", "torch"} & set(sys.modules)))
"""


def test_nothing_stays(tmp_path: Path) -> None:
    """A process that has the embedded model compiled apart, as the daemon does, has imported neither onnx nor
    onnxruntime, and the graph file is the same as ever."""
    command = [sys.executable, "-c", _SCRIPT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    path, modules = done.stdout.split("\n")[:2]
    graph = compile_cached(load_bundle("round-or-angular"), None)
    assert ("[]", graph.path.read_bytes()) == (modules, Path(path).read_bytes())
    assert Path(path).parent == tmp_path


def test_reason(tmp_path: Path) -> None:
    """For a model that cannot be compiled, the error is that of compiling it here, and names the file."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"no model")
    (folder / "model.toml").write_bytes(
        (models_folder() / "round-or-angular" / "model.toml").read_bytes()
    )

    with pytest.raises(FluxdropError, match=r"model\.onnx is not a valid ONNX model"):
        compile_apart(load_bundle(str(folder)), tmp_path)


def test_no_place(tmp_path: Path) -> None:
    """Where the cache cannot be written the graph file is a temporary one."""
    found = compile_apart(load_bundle("round-or-angular"), tmp_path / "missing" / "folder")
    assert found.path.is_file()
    assert not found.path.is_relative_to(tmp_path)
