"""The process that runs pipelines with torch, as seen by whoever starts it.

It is started when it is first needed. Because torch is in a process of its own, it is never imported by the
daemon, a crash affects nothing else, and `PipelineProcess.close` frees all its memory.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import msgspec

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.generate.lora import Lora
from fluxdrop.generate.messages import (
    DIED,
    Generate,
    GeneratedImage,
    Load,
    Loaded,
    PictureOrder,
    StepProgress,
    unpack_images,
)
from fluxdrop.processes.child import Child, ChildDied, call_failed
from fluxdrop.processes.wire import Frame, FrameKind, Pipe, WireError

_PACKAGES = ("torch", "diffusers", "transformers")

_PING_SECONDS = 15.0
_WAIT_SECONDS = 60.0
_POLL_SECONDS = 0.001

OnStep = Callable[[int, int, int], None]
"""Called with a run's number, the number of finished steps and that of all steps."""
Result = list[GeneratedImage] | FluxdropError
"""The pictures of a run in the order in which they were asked for, or why it cannot be done.

ChildDied if the process died that was to make these pictures, but no other.
"""

# Defaults for the child's environment; variables of the daemon's environment take precedence.
_ENVIRONMENT = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "DIFFUSERS_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    # Without a workspace of fixed size the results of cuBLAS are not reproducible.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    # OpenMP threads spin while they wait for each other. Beside a busy process, such as the worker, a
    # picture that is made by several threads (`fluxdrop.generate.threads`) then takes ten times as long.
    "OMP_WAIT_POLICY": "PASSIVE",
    # torch creates this folder at import, for compiled code, of which there is none here. An existing folder is
    # not changed.
    "TORCHINDUCTOR_CACHE_DIR": tempfile.gettempdir(),
    "PYTHONUNBUFFERED": "1",
}


class Limits(msgspec.Struct, frozen=True):
    """The settings ``generator_*`` that bound the process's time, in seconds, and its memory."""

    start_seconds: float
    step_seconds: float
    idle_seconds: float
    max_bytes: int


def limits_of(settings: Settings) -> Limits:
    """Return the limits that *settings* have."""
    return Limits(
        settings.generator_start_seconds,
        settings.generator_step_seconds,
        settings.generator_idle_seconds,
        settings.generator_max_bytes,
    )


class _RunInHand:
    """A run that the child has and did not answer."""

    def __init__(self, pictures: int) -> None:
        self.pictures = pictures
        self.is_begun = False


class PipelineProcess:
    """Makes pictures in a child process, which keeps one pipeline loaded.

    Only one thread may use it, and that thread must outlive it: on Linux the child ends with the
    thread that started it.

    Args:
        limits: The child's limits.
        wait_hook: Called several times a second while a picture is awaited; what it raises ends the
            wait and the child.
    """

    def __init__(self, limits: Limits, wait_hook: Callable[[], None] | None = None) -> None:
        self._limits = limits
        self._wait_hook = wait_hook
        self._child: Child | None = None
        self._last_used = 0.0
        self._runs: dict[int, _RunInHand] = {}
        """The runs in hand, by their numbers, in the order in which the child begins them."""
        self._numbers = itertools.count(1)
        self._last_heard = 0.0
        """When the first of the runs in hand became the first, or was last heard of."""
        self._last_hook = 0.0
        self._is_too_large = False
        self.slots = 1
        """How many runs the child can work on at once, as far as is known."""

    @property
    def pid(self) -> int | None:
        """The child's process id; None while there is no child."""
        return self._child.pid if self._child and self._child.alive() else None

    @property
    def room(self) -> int:
        """How many runs may be begun now."""
        return 0 if self._is_too_large else max(0, self.slots - len(self._runs))

    def run(
        self,
        load: Load,
        pictures: Sequence[PictureOrder],
        loras: Sequence[Lora],
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[GeneratedImage]:
        """Make *pictures* in one run of the pipeline that *load* describes, while no other run is in hand.

        Args:
            load: The pipeline, which is loaded unless it is the one in memory.
            pictures: At least one, which differ in their prompts and seeds only.
            loras: What is added to the pipeline's weights.
            on_progress: Called with the number of finished steps and of all steps.

        Raises:
            FluxdropError: Kind ``prompt``, ``pipeline``, ``memory``, ``compute``, ``cancelled`` or
                ``generator``, when a picture cannot be made.
            ChildDied: When the child ends or does not answer in time. The next call starts another.
        """

        def on_step(_number: int, step: int, steps: int) -> None:
            if on_progress is not None:
                on_progress(step, steps)

        number = self.begin(load, pictures, loras)
        while not (ended := self.finished(_WAIT_SECONDS, on_step)):
            pass
        result = ended[number]
        if isinstance(result, FluxdropError):
            raise result
        return result

    def begin(self, load: Load, pictures: Sequence[PictureOrder], loras: Sequence[Lora]) -> int:
        """Begin a run as `run` does, and return its number; call this only while there is `room`.

        Raises:
            FluxdropError: Kind ``generator``.
            ChildDied: The child ended, and all the runs in hand with it.
        """
        files = [(str(lora.file), lora.weight) for lora in loras]
        order = Generate(load=load, pictures=list(pictures), loras=files)
        number = next(self._numbers)
        with self._losing_runs():
            self._start().send(FrameKind.GENERATE, number, msgspec.json.encode(order))
        self._last_used = time.monotonic()
        if not self._runs:
            self._last_heard = self._last_used
        self._runs[number] = _RunInHand(len(pictures))
        return number

    def finished(self, timeout: float, on_step: OnStep) -> dict[int, Result]:
        """Wait until a run in hand has ended.

        Args:
            timeout: Seconds to wait.
            on_step: Called with a run's number, the number of finished steps and that of all steps.

        Returns:
            What became of the run, by its number; empty if no run is in hand, or none ended in time.

        Raises:
            ChildDied: The child ended or did not answer in time, and all the runs in hand ended with it.
        """
        end = time.monotonic() + timeout
        with self._losing_runs():
            while self._runs:
                child = self._child
                assert child is not None
                frame = self._next_frame(child, end)
                if frame is None:
                    break
                result = self._result(child, frame, on_step)
                if result is not None:
                    self._drop(child, frame.request)
                    return {frame.request: result}
        return {}

    @contextmanager
    def _losing_runs(self) -> Iterator[None]:
        """Within its ``with`` statement, an error is the end of the child, if there is one, and of its runs."""
        try:
            yield
        except BaseException:
            self._runs = {}
            self._is_too_large = False
            raise

    def _next_frame(self, child: Child, end: float) -> Frame | None:
        """Return the child's next frame; None if there is none until *end*, a time of the monotonic clock."""
        first = next(iter(self._runs.values()))
        patience = self._limits.step_seconds if first.is_begun else self._limits.start_seconds
        overdue = self._last_heard + patience
        while True:
            left = min(end, overdue) - time.monotonic()
            frame = child.receive(min(max(left, _POLL_SECONDS), Pipe.wait_slice))
            if time.monotonic() - self._last_hook >= Pipe.wait_slice:
                self._call(child, self._wait_hook)
                self._last_hook = time.monotonic()
            if frame is not None:
                return frame
            if time.monotonic() >= overdue:
                raise child.kill_overdue(patience)
            if time.monotonic() >= end:
                return None

    def _call(self, child: Child, hook: Callable[[], None] | None) -> None:
        """Call *hook*, if there is one; kill the child if it raises, as nobody waits for its answers any more."""
        try:
            if hook is not None:
                hook()
        except BaseException:
            child.kill()
            raise

    def _result(self, child: Child, frame: Frame, on_step: OnStep) -> Result | None:
        """Return what *frame* says became of its run; None if the run goes on."""
        try:
            run = self._runs.get(frame.request)
            if run is None:
                raise WireError(f"an answer to request {frame.request}, which is not in hand")
            if run is next(iter(self._runs.values())):
                self._last_heard = time.monotonic()
            match frame.kind:
                case FrameKind.LOADED:
                    run.is_begun = True
                    self.slots = msgspec.json.decode(frame.payload, type=Loaded).slots
                    return None
                case FrameKind.PROGRESS:
                    progress = msgspec.json.decode(frame.payload, type=StepProgress)
                case FrameKind.FAILURE:
                    failure = call_failed(frame)
                    return child.death(failure.message) if failure.kind == DIED else failure
                case FrameKind.IMAGE:
                    images = unpack_images(frame.payload)
                    if len(images) != run.pictures:
                        raise WireError(f"{len(images)} pictures for {run.pictures} orders")
                    return images
                case _:
                    raise WireError(f"an answer of kind {frame.kind.name}")
        except (WireError, msgspec.DecodeError) as error:
            raise child.reject_reply(error) from error
        self._call(child, lambda: on_step(frame.request, progress.step, progress.steps))
        return None

    def _drop(self, child: Child, number: int) -> None:
        """Drop the run *number*, which has ended. Stop a child that has grown too large, once no run is in hand."""
        self._last_used = time.monotonic()
        if number == next(iter(self._runs)):
            self._last_heard = self._last_used
        del self._runs[number]
        if child.exceeds_memory_limit(self._limits.max_bytes):
            self._is_too_large = True
        if self._is_too_large and not self._runs:
            self.close()

    def check_health(self) -> None:
        """End a child that died, hangs or was stopped; called regularly while no picture is made.

        The next picture starts another.
        """
        if self._child is None or self._runs:
            return
        if not self._child.alive():
            self._child.reap()
            self._child = None
        else:
            with contextlib.suppress(ChildDied):
                self._child.ping(_PING_SECONDS)

    def stop_if_idle(self) -> None:
        """Stop a child that was idle for ``generator_idle_seconds``, to free its memory."""
        if not self._runs and time.monotonic() - self._last_used > self._limits.idle_seconds:
            self.close()

    def close(self) -> None:
        """Stop the child, whose runs come to nothing, and free its memory; a later call starts another."""
        child, self._child = self._child, None
        self._runs = {}
        self._is_too_large = False
        if child is not None:
            child.stop()

    def _start(self) -> Child:
        """Return the live child, or start another; raise ChildDied if the last one died with runs in hand."""
        if self._child is not None and self._child.alive():
            return self._child
        if self._runs:
            assert self._child is not None
            raise self._child.reap()
        missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
        if missing:
            raise FluxdropError(
                "Making pictures from prompts needs the packages of the extra 'generate';"
                f" not installed: {', '.join(missing)}.",
                hint="pip install 'fluxdrop[generate]'",
                kind="generator",
            )
        if self._child is not None:
            self._child.reap()
        # -P keeps the working folder, into which anyone may drop a torch.py, off the import path.
        self.slots = 1
        self._child = Child(
            "generator",
            [sys.executable, "-P", "-m", "fluxdrop.generate.server", "--parent", str(os.getpid())],
            env={**_ENVIRONMENT, **os.environ},
            start_timeout=self._limits.start_seconds,
            wait_hook=self._wait_hook,
        )
        return self._child
