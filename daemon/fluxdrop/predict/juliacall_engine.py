"""The engine ``juliacall``: the worker's Julia code inside this process.

Julia's garbage collector waits for every thread that ever ran Julia code, even while such a thread is busy with Python
(PythonCall.jl's issue 578). So one thread, which stays for as long as the process does, makes every call into Julia:
it starts it, frees what Python holds of it, and ends it.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.predict.bundle import Bundle, needs_flux
from fluxdrop.predict.compiler.graph_file import fixed_batch
from fluxdrop.predict.engine import EngineInfo, in_batches_of
from fluxdrop.provision import JuliaInstall, data_dir
from fluxdrop.provision.find import depot_path, release
from fluxdrop.provision.juliapkg_setup import OLDEST_WITH_FLUX, juliapkg_project
from fluxdrop.provision.script import answer_of
from fluxdrop.resources import julia_folder

_CHECK_SECONDS = 120.0
_END_SECONDS = 10.0
_WAIT_SLICE = 0.25

T = TypeVar("T")

# The version of the PythonCall.jl that the project has, without loading it.
_VERSION_SCRIPT = """
using TOML
id = Base.identify_package("PythonCall")
path = id === nothing ? nothing : Base.locate_package(id)
version = path === nothing ? "" : TOML.parsefile(joinpath(dirname(dirname(path)), "Project.toml"))["version"]
println("fluxdrop-pythoncall|", version)
"""


class JuliacallEngine:
    """Runs a compiled model, or with no *graph* the bundle's native one, by juliacall.

    A forward pass has no deadline and nothing to restart: whatever ends Julia ends this process.
    """

    def __init__(
        self,
        settings: Settings,
        install: JuliaInstall,
        bundle: Bundle,
        graph: bytes | None,
        *,
        wait_hook: Callable[[], None] | None = None,
    ) -> None:
        self._bundle = bundle
        self._julia = julia = _julia_of(install)
        self._batch = fixed_batch(graph) if graph is not None else None
        self._info = julia.run(lambda: julia.choose(settings), wait_hook)
        if graph is None and self._info.backend != "flux":
            raise needs_flux(bundle, self._info.note or "")
        try:
            self._model = julia.run(lambda: julia.load(bundle, graph), wait_hook)
            # The first forward pass compiles; better now than while somebody waits for a picture.
            self.predict(np.zeros(bundle.spec.input.shape, dtype=np.float32))
        except FluxdropError as error:
            raise FluxdropError(
                f"{bundle.file} cannot be run by Julia: {error.message}", kind="model"
            ) from error

    @property
    def info(self) -> EngineInfo:
        """What runs."""
        return self._info

    def prepare(self) -> None:
        """Nothing to prepare: it is open since it was made."""

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Engine.predict`."""
        return in_batches_of(self._batch, self._run, batch)

    @property
    def trouble(self) -> str:
        """None: there is no process that could be away."""
        return ""

    def tend(self) -> None:
        """Nothing to look after."""

    def close(self) -> None:
        """Let go of the model; Julia stays."""
        self._julia.run(lambda: self._julia.forget(self._model))

    def _run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        result = self._julia.run(lambda: self._julia.predict(self._model, batch))
        if result.shape[:1] != batch.shape[:1]:
            raise FluxdropError(
                f"The model {self._bundle.name} gives an output of shape {result.shape} for"
                f" {len(batch)} pictures",
                kind="model",
            )
        return result


class _Julia:
    """Julia in this process, and its thread.

    All methods but `run` are for that thread, and no value of Julia's leaves it: models are told by numbers.
    """

    def __init__(self, install: JuliaInstall) -> None:
        self._version = install.version
        self._juliacall: Any = None
        self._worker: Any = None
        self._backend: Any = None
        self._models: dict[int, Any] = {}
        self._numbers = count(1)
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        threading.Thread(target=self._serve, name="julia", daemon=True).start()
        self.run(self._start)

    def run(self, call: Callable[[], T], wait_hook: Callable[[], None] | None = None) -> T:
        """What *call* returns on Julia's thread. Raises FluxdropError for what it raises."""
        future: Future[T] = Future()
        self._calls.put((future, call))
        while True:
            try:
                return future.result(_WAIT_SLICE if wait_hook else None)
            except TimeoutError:
                if wait_hook is not None:
                    wait_hook()

    def choose(self, settings: Settings) -> EngineInfo:
        """Take the backend that *settings* ask for; what it is."""
        backend = self._worker.choose_backend(settings.julia_backend, settings.device)
        self._backend = backend
        return EngineInfo(
            engine="juliacall",
            backend=str(backend.name),
            version=self._version,
            flux=str(backend.flux) or None,
            device=str(backend.device.name),
            note=str(backend.note) or None,
        )

    def load(self, bundle: Bundle, graph: bytes | None) -> int:
        """Build the model in the backend that was chosen; its number."""
        if graph is None:
            model = self._worker.load_native(str(bundle.file), self._backend)
        else:
            data = np.frombuffer(graph, dtype=np.uint8)
            model = self._worker.build_at_address(data.ctypes.data, data.size, self._backend)
        number = next(self._numbers)
        self._models[number] = model
        return number

    def forget(self, model: int) -> None:
        """Let go of *model*."""
        self._models.pop(model, None)

    def predict(self, model: int, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """The answer of *model*; Julia reads *batch* where it lies, and other Python threads run meanwhile."""
        tensor = np.ascontiguousarray(batch, dtype=np.float32)
        answer = self._worker.predict_at_address._jl_call_nogil(
            self._models[model], tensor.ctypes.data, *tensor.shape
        )
        # Julia's array has the dimensions reversed; a copy, because Julia's own is freed on this thread.
        return np.array(answer, dtype=np.float32, order="F", copy=True).T

    def _serve(self) -> None:
        while True:
            future, call = self._calls.get()
            result, failure = None, None
            try:
                result = call()
            except BaseException as error:
                # The exception and its traceback hold on to values of Julia's, which are to be freed here.
                failure = self._in_words(error)
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(failure)
            del future, call, result, failure

    def _in_words(self, error: BaseException) -> FluxdropError:
        if isinstance(error, FluxdropError):
            return FluxdropError(error.message, hint=error.hint, kind=error.kind)
        if self._worker is not None and isinstance(error, self._juliacall.JuliaError):
            words, kind = self._worker.one_line(error.exception), self._worker.kind(error.exception)
            return FluxdropError(str(words), kind=str(kind))
        lines = str(error).strip().split("\n")
        return FluxdropError(f"juliacall: {lines[0] or type(error).__name__}", kind="julia")

    def _start(self) -> None:
        import juliacall

        self._juliacall = juliacall
        self._end_here()
        space = juliacall.newmodule("fluxdrop")
        space.include(str(julia_folder() / "src" / "FluxdropWorker.jl"))
        self._worker = space.FluxdropWorker

    def _end_here(self) -> None:
        """Have Julia end on this thread: juliacall would end it on the one that ends Python."""
        library = self._juliacall.CONFIG["lib"]
        end = library.jl_atexit_hook

        def end_here(code: int) -> None:
            future: Future[None] = Future()
            self._calls.put((future, lambda: end(code)))
            with contextlib.suppress(TimeoutError, FluxdropError):
                future.result(_END_SECONDS)

        library.jl_atexit_hook = end_here


_lock = threading.Lock()
_only: list[_Julia] = []


def _julia_of(install: JuliaInstall) -> _Julia:
    """The Julia of this process, started at the first call."""
    with _lock:
        if not _only:
            _prepare(install)
            _only.append(_Julia(install))
        return _only[0]


def _prepare(install: JuliaInstall) -> None:
    """Have juliacall take *install* and nothing from the network; raise where that cannot work.

    What fails only after Julia was started leaves the process unfit for another try.
    """
    if importlib.util.find_spec("juliacall") is None:
        raise FluxdropError(
            "The package juliacall is not installed",
            hint="Run: pip install 'fluxdrop[juliacall]'",
            kind="julia",
        )
    if release(install.version) < OLDEST_WITH_FLUX:
        raise FluxdropError(
            f"juliacall needs Julia 1.10 or newer, and {install.executable} is Julia {install.version}",
            hint="Name a newer one in FLUXDROP_JULIA, or set the engine to julia.",
            kind="julia",
        )
    project = install.project or juliapkg_project(data_dir())
    if not project.is_dir():
        raise FluxdropError(
            f"There is no Julia project with PythonCall.jl: {project} is not there",
            hint="Run `fluxdrop setup --force` where Julia's servers can be reached.",
            kind="julia",
        )
    wanted, found = importlib.metadata.version("juliacall"), _pythoncall(install, project)
    if found != wanted:
        raise FluxdropError(
            f"juliacall {wanted} needs PythonCall.jl {wanted}, and the Julia project {project} has"
            f" {found or 'none'}",
            hint="Run `fluxdrop setup --force` where Julia's servers can be reached.",
            kind="julia",
        )
    os.environ.setdefault("JULIA_DEPOT_PATH", depot_path(data_dir()))
    os.environ["PYTHON_JULIACALL_EXE"] = str(install.executable)
    os.environ["PYTHON_JULIACALL_PROJECT"] = str(project)
    os.environ["PYTHON_JULIACALL_STARTUP_FILE"] = "no"
    # Ctrl-C and SIGTERM are the daemon's; Julia can do without its own handlers with one thread only.
    os.environ["PYTHON_JULIACALL_HANDLE_SIGNALS"] = "no"
    os.environ["PYTHON_JULIACALL_THREADS"] = "1"


def _pythoncall(install: JuliaInstall, project: Path) -> str:
    """The version of PythonCall.jl in *project*, or an empty string."""
    there = replace(install, project=project)
    return answer_of(there, _VERSION_SCRIPT, "fluxdrop-pythoncall", _CHECK_SECONDS)
