"""The process that runs pipelines with torch, as seen by whoever starts it.

It is started when it is first needed. Because torch is in a process of its own, it is never imported by the
daemon, a crash affects nothing else, and `PipelineProcess.close` frees all its memory.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

import msgspec

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.generate.lora import Lora
from fluxdrop.generate.messages import (
    Generate,
    GeneratedImage,
    Load,
    PictureOrder,
    StepProgress,
    unpack_images,
)
from fluxdrop.processes.child import Child, ChildDied
from fluxdrop.processes.wire import Frame, FrameKind, WireError

_PACKAGES = ("torch", "diffusers", "transformers")

_PING_SECONDS = 15.0

# Defaults for the child's environment; variables of the daemon's environment take precedence.
_ENVIRONMENT = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "DIFFUSERS_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    # Without a workspace of fixed size the results of cuBLAS are not reproducible.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    # OpenMP threads spin while they wait for each other. Beside a busy process, such as the
    # worker, a picture on the CPU then takes ten times as long.
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

    @property
    def pid(self) -> int | None:
        """The child's process id; None while there is no child."""
        return self._child.pid if self._child and self._child.alive() else None

    def run(
        self,
        load: Load,
        pictures: Sequence[PictureOrder],
        loras: Sequence[Lora],
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[GeneratedImage]:
        """Make *pictures* in one run of the pipeline that *load* describes.

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
        child = self._start()
        self._last_used = time.monotonic()

        def report_progress(frame: Frame) -> None:
            progress = msgspec.json.decode(frame.payload, type=StepProgress)
            if on_progress is not None:
                on_progress(progress.step, progress.steps)

        child.call(
            FrameKind.LOAD,
            msgspec.json.encode(load),
            expect=FrameKind.LOADED,
            timeout=self._limits.start_seconds,
        )
        files = [(str(lora.file), lora.weight) for lora in loras]
        answer = child.call(
            FrameKind.GENERATE,
            msgspec.json.encode(Generate(pictures=list(pictures), loras=files)),
            expect=FrameKind.IMAGE,
            timeout=self._limits.step_seconds,
            on_progress=report_progress,
        )
        self._last_used = time.monotonic()
        images = self._unpack(child, answer, len(pictures))
        if child.exceeds_memory_limit(self._limits.max_bytes):
            self.close()
        return images

    def check_health(self) -> None:
        """End a child that died, hangs or was stopped; called regularly while no picture is made.

        The next picture starts another.
        """
        if self._child is None:
            return
        if not self._child.alive():
            self._child.reap()
            self._child = None
        else:
            with contextlib.suppress(ChildDied):
                self._child.ping(_PING_SECONDS)

    def stop_if_idle(self) -> None:
        """Stop a child that was idle for ``generator_idle_seconds``, to free its memory."""
        if time.monotonic() - self._last_used > self._limits.idle_seconds:
            self.close()

    def close(self) -> None:
        """Stop the child and free its memory; a later call starts another."""
        child, self._child = self._child, None
        if child is not None:
            child.stop()

    def _start(self) -> Child:
        """Return the live child, or start another."""
        if self._child is not None and self._child.alive():
            return self._child
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
        self._child = Child(
            "generator",
            [sys.executable, "-P", "-m", "fluxdrop.generate.server", "--parent", str(os.getpid())],
            env={**_ENVIRONMENT, **os.environ},
            start_timeout=self._limits.start_seconds,
            wait_hook=self._wait_hook,
        )
        return self._child

    def _unpack(self, child: Child, answer: Frame, count: int) -> list[GeneratedImage]:
        """Unpack the pictures of *answer*; end the child if they are not *count* well-formed ones."""
        try:
            images = unpack_images(answer.payload)
            if len(images) != count:
                raise WireError(f"{len(images)} pictures for {count} orders")
        except WireError as error:
            raise child.reject_reply(error) from error
        return images
