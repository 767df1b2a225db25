"""How soon the commands that people call most, and a worker, are there."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Literal

from benchmarks.table import Row, seconds, without_flux
from benchmarks.worker import has_flux
from fluxdrop.config import Settings
from fluxdrop.files.layout import Root
from fluxdrop.predict.bundle import load_bundle
from fluxdrop.predict.choose_engine import open_engine
from fluxdrop.provision import find_julia

_TIMES = 15
_WORKERS = 7
_READY_SECONDS = 180.0


def rows() -> Iterator[Row]:
    """Processes from their start to their end; a worker to its first answer, by then warmed up."""
    with tempfile.TemporaryDirectory() as folder:
        root = Root(Path(folder))
        root.create()
        bare = _process("-c", "import typer")
        for name, arguments in {
            "fluxdrop --help": ["--help"],
            "fluxdrop status": ["status", "--root", folder],
        }.items():
            taken = _process("-m", "fluxdrop", *arguments)
            yield Row(name, "<= 0.25", taken, "s", taken <= 0.25)
            ratio = taken / bare
            yield Row(f"{name}, against import typer", "<= 2.5", ratio, "x", ratio <= 2.5)
        root.graphs.mkdir(exist_ok=True)
        yield _worker("plain layers", "plain", root)
        yield _daemon(root)
        yield _worker("Flux", "auto", root)


def _worker(layers: str, backend: Literal["plain", "auto"], root: Root) -> Row:
    what, target = f"worker start to first answer, {layers}", "<= 3"
    if backend == "auto" and not has_flux():
        return without_flux(what, target)
    settings = Settings(engine="julia", julia_backend=backend)
    bundle = load_bundle(settings.model)

    def worker() -> None:
        # The first answer is the one to the warm-up.
        with closing(open_engine(settings, bundle, cache=root.graphs)):
            pass

    worker()
    taken = seconds(worker, _WORKERS)
    return Row(what, target, taken, "s", taken <= 3)


def _daemon(root: Root) -> Row:
    """A daemon with the embedded model, from its start to the READY=1 that it sends a service manager."""
    arguments = [sys.executable, "-m", "fluxdrop", "run", "--root", str(root.path)]
    notifications = str(root.path / "notify")
    settings = {"FLUXDROP_ENGINE": "julia", "FLUXDROP_JULIA_BACKEND": "plain"}
    environment = {**os.environ, **settings, "NOTIFY_SOCKET": notifications}

    def start() -> float:
        begun = perf_counter()
        daemon = subprocess.Popen(arguments, env=environment, stderr=subprocess.DEVNULL)
        try:
            while b"READY=1" not in listener.recv(4096):
                pass
            return perf_counter() - begun
        finally:
            daemon.terminate()
            daemon.wait()

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(notifications)
        listener.settimeout(_READY_SECONDS)
        start()
        taken = median(start() for _ in range(_WORKERS))
    julia = find_julia()
    is_new = julia is not None and tuple(map(int, julia.version.split(".")[:2])) >= (1, 10)
    bound = 2 if is_new else 3
    what = "second start of a daemon to READY, embedded model, plain layers"
    return Row(what, f"<= {bound}", taken, "s", taken <= bound)


def _process(*arguments: str) -> float:
    return seconds(
        lambda: subprocess.run([sys.executable, *arguments], capture_output=True), _TIMES
    )
