"""The graph files of models, each compiled once and kept.

The compiler needs onnx and onnxruntime, which take 40 MB of memory for good: it is imported only where a graph file is
missing, and a daemon has it run in a process of its own.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from fluxdrop.files.durable import write
from fluxdrop.predict.bundle import Bundle, load_bundle
from fluxdrop.predict.compiler.graph_file import GRAPH_VERSION, GraphFile, write_temporary

COMPILER_VERSION = 12
"""Increased whenever the compiler's output changes, so that no outdated cache entry is used."""

_MAX_SECONDS = 600.0


def compile_cached(bundle: Bundle, cache: Path | None) -> GraphFile:
    """Return the graph file of *bundle*: that in the folder *cache*, or a temporary one if it cannot be kept there.

    Raises:
        FluxdropError: As `compile_bundle` does.
        OSError: There is no place for a temporary file.
    """
    if cache is not None and (path := _path(bundle, cache)).is_file():
        return GraphFile(path)
    from fluxdrop.predict.compiler.compile import compile_bundle

    graph = compile_bundle(bundle)
    if cache is not None:
        with suppress(OSError):
            write(path, graph.parts())
            return GraphFile(path)
    return write_temporary(graph)


def compile_apart(bundle: Bundle, cache: Path) -> GraphFile:
    """Do what `compile_cached` does, but compile in a process of its own.

    If that fails, this process compiles after all, and raises the reason.
    """
    if not _path(bundle, cache).is_file():
        command = [sys.executable, "-P", "-m", __name__, str(bundle.folder), str(cache)]
        with suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_MAX_SECONDS,
                check=False,
            )
    return compile_cached(bundle, cache)


def _path(bundle: Bundle, cache: Path) -> Path:
    # What `fit_to_spec` reads from model.toml changes the graph, so it is part of the cache's key.
    spec = bundle.spec
    fit = repr((spec.input.shape, spec.columns, spec.labels, spec.output_name)).encode()
    digest = hashlib.sha256(fit).hexdigest()[:16]
    return cache / f"{bundle.sha256}-{digest}-{GRAPH_VERSION}.{COMPILER_VERSION}.graph"


if __name__ == "__main__":
    compile_cached(load_bundle(sys.argv[1]), Path(sys.argv[2]))
