"""The engine ``juliacall``: the worker's Julia code inside this process.

Julia's garbage collector waits for every thread that ever ran Julia code, even while such a thread is busy with Python
(PythonCall.jl's issue 578). So a single thread, which lives as long as the process, makes all calls into Julia: it
starts Julia, frees the Julia values that Python holds, and ends Julia.
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
from fluxdrop.predict.bundle import Bundle, flux_required_error
from fluxdrop.predict.compiler.graph_file import GraphFile
from fluxdrop.predict.engine import EngineInfo, label_rows, run_in_batches
from fluxdrop.provision import JuliaInstall, data_dir
from fluxdrop.provision.find import depot_path, release
from fluxdrop.provision.juliapkg_setup import OLDEST_WITH_FLUX, juliapkg_project
from fluxdrop.provision.script import answer_of
from fluxdrop.resources import julia_folder

_CHECK_SECONDS = 120.0
_EXIT_SECONDS = 10.0
_WAIT_SLICE = 0.25

T = TypeVar("T")

# Prints the version of PythonCall.jl in the project, without loading it.
_VERSION_SCRIPT = """
using TOML
id = Base.identify_package("PythonCall")
path = id === nothing ? nothing : Base.locate_package(id)
version = path === nothing ? "" : TOML.parsefile(joinpath(dirname(dirname(path)), "Project.toml"))["version"]
println("fluxdrop-pythoncall|", version)
"""


class JuliacallEngine:
    """Runs a model with juliacall, in this process.

    A forward pass has no deadline, and nothing can be restarted: what ends Julia ends this process.

    Args:
        settings: The backend and device to use.
        install: The Julia to run; the first engine of the process decides.
        bundle: The model.
        graph: Returns the compiled model; None to load the bundle's native Flux model.
        wait_hook: Called repeatedly while Julia loads the model; what it raises ends the wait.

    Raises:
        FluxdropError: When juliacall cannot be used, or Julia cannot run the model.
    """

    def __init__(
        self,
        settings: Settings,
        install: JuliaInstall,
        bundle: Bundle,
        graph: Callable[[], GraphFile] | None,
        *,
        wait_hook: Callable[[], None] | None = None,
    ) -> None:
        self._bundle = bundle
        compiled = graph() if graph is not None else None
        self._julia = julia = _shared_julia(install)
        self._batch = compiled.fixed_batch() if compiled is not None else None
        self._info = julia.run(lambda: julia.choose_backend(settings), wait_hook)
        if graph is None and self._info.flux is None:
            raise flux_required_error(bundle, self._info.note or "")
        try:
            self._model = julia.run(lambda: julia.load(bundle, compiled), wait_hook)
            # The first forward pass compiles: run it now and not with the first picture.
            self.predict(np.zeros(bundle.spec.input.shape, dtype=np.float32))
        except FluxdropError as error:
            raise FluxdropError(
                f"{bundle.file} cannot be run by Julia: {error.message}", kind="model"
            ) from error

    @property
    def info(self) -> EngineInfo:
        """What runs the model."""
        return self._info

    def prepare(self) -> None:
        """Do nothing: the constructor opened the model."""

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Engine.predict`."""
        return run_in_batches(self._batch, self._run, batch)

    @property
    def outage(self) -> str:
        """Always empty: there is no process that could be missing."""
        return ""

    def check_health(self) -> None:
        """Do nothing: there is no process to check."""

    def close(self) -> None:
        """Free the model; Julia keeps running."""
        self._julia.run(lambda: self._julia.unload(self._model))

    def _run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        output = self._julia.run(lambda: self._julia.predict(self._model, batch))
        result = label_rows(output, len(batch))
        if result.shape[:1] != batch.shape[:1]:
            raise FluxdropError(
                f"The model {self._bundle.name} gives an output of shape {result.shape} for"
                f" {len(batch)} pictures",
                kind="model",
            )
        return result


class _Julia:
    """Julia in this process, and the thread that runs it.

    Only that thread may call the methods other than `run`. No Julia value leaves it: the engines refer to
    models by number.
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
        """Run *call* on Julia's thread and return its result; any thread may do so.

        *wait_hook* is called four times a second meanwhile; what it raises ends the wait, not the call.

        Raises:
            FluxdropError: When *call* raises anything.
        """
        future: Future[T] = Future()
        self._calls.put((future, call))
        while True:
            try:
                return future.result(_WAIT_SLICE if wait_hook else None)
            except TimeoutError:
                if wait_hook is not None:
                    wait_hook()

    def choose_backend(self, settings: Settings) -> EngineInfo:
        """Select the backend and device that *settings* ask for, and return what they are."""
        backend = self._worker.choose_backend(settings.julia_backend, settings.device)
        self._backend = backend
        return EngineInfo(
            engine="juliacall",
            backend=str(backend.name),
            version=self._version,
            flux=str(self._worker.flux_version(backend)) or None,
            device=str(backend.device.name),
            note=str(backend.note) or None,
        )

    def load(self, bundle: Bundle, graph: GraphFile | None) -> int:
        """Build the model in the selected backend and return its number."""
        if graph is None:
            model = self._worker.load_native(str(bundle.file), self._backend)
        else:
            model = self._worker.build_file(str(graph.path), self._backend)
        number = next(self._numbers)
        self._models[number] = model
        return number

    def unload(self, model: int) -> None:
        """Free the model with the number *model*, if there is one."""
        self._models.pop(model, None)

    def predict(self, model: int, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the output of *model* for *batch*.

        Julia reads *batch* without a copy, and other Python threads run meanwhile.
        """
        tensor = np.ascontiguousarray(batch, dtype=np.float32)
        answer = self._worker.predict_at_address._jl_call_nogil(
            self._models[model], tensor.ctypes.data, *tensor.shape
        )
        # Julia's array has the dimensions reversed. It is copied because only this thread may free it.
        return np.array(answer, dtype=np.float32, order="F", copy=True).T

    def _serve(self) -> None:
        """Run the calls one by one, for as long as the process lives."""
        while True:
            future, call = self._calls.get()
            result, failure = None, None
            try:
                result = call()
            except BaseException as error:
                # The exception and its traceback refer to Julia values, which this thread has to free.
                failure = self._to_fluxdrop_error(error)
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(failure)
            del future, call, result, failure

    def _to_fluxdrop_error(self, error: BaseException) -> FluxdropError:
        """Convert *error* to a FluxdropError that refers to no Julia value."""
        if isinstance(error, FluxdropError):
            return FluxdropError(error.message, hint=error.hint, kind=error.kind)
        if self._worker is not None and isinstance(error, self._juliacall.JuliaError):
            message, kind = (
                self._worker.one_line(error.exception),
                self._worker.kind(error.exception),
            )
            return FluxdropError(str(message), kind=str(kind))
        lines = str(error).strip().split("\n")
        return FluxdropError(f"juliacall: {lines[0] or type(error).__name__}", kind="julia")

    def _start(self) -> None:
        """Start Julia and include the worker's code."""
        import juliacall

        self._juliacall = juliacall
        self._exit_on_this_thread()
        module = juliacall.newmodule("fluxdrop")
        module.include(str(julia_folder() / "src" / "FluxdropWorker.jl"))
        self._worker = module.FluxdropWorker

    def _exit_on_this_thread(self) -> None:
        """Make Julia's exit hook run on this thread; juliacall would run it on the thread that ends Python."""
        library = self._juliacall.CONFIG["lib"]
        end = library.jl_atexit_hook

        def exit_on_this_thread(code: int) -> None:
            future: Future[None] = Future()
            self._calls.put((future, lambda: end(code)))
            with contextlib.suppress(TimeoutError, FluxdropError):
                future.result(_EXIT_SECONDS)

        library.jl_atexit_hook = exit_on_this_thread


_lock = threading.Lock()
_started: list[_Julia] = []


def _shared_julia(install: JuliaInstall) -> _Julia:
    """Return the Julia of this process, and start it at the first call."""
    with _lock:
        if not _started:
            _check_and_configure(install)
            _started.append(_Julia(install))
        return _started[0]


def _check_and_configure(install: JuliaInstall) -> None:
    """Check that juliacall can run *install*, and set the environment that makes it do so offline.

    Everything is checked before Julia starts: after a failed start the process cannot try again.

    Raises:
        FluxdropError: Kind ``julia``, when a package is missing or a version does not fit.
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
    wanted, found = importlib.metadata.version("juliacall"), _pythoncall_version(install, project)
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
    # The daemon handles Ctrl-C and SIGTERM. Julia works without its own handlers only with one thread.
    os.environ["PYTHON_JULIACALL_HANDLE_SIGNALS"] = "no"
    os.environ["PYTHON_JULIACALL_THREADS"] = "1"


def _pythoncall_version(install: JuliaInstall, project: Path) -> str:
    """Return the version of PythonCall.jl in *project*, or an empty string."""
    in_project = replace(install, project=project)
    return answer_of(in_project, _VERSION_SCRIPT, "fluxdrop-pythoncall", _CHECK_SECONDS)
