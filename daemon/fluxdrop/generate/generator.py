"""The host's side of image generation: a process with torch, started when it is first needed.

So torch never enters the daemon, a crash of it harms nothing else, and `Generator.close` really
frees its memory.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.generate.choice import choose
from fluxdrop.generate.lora import split_tags
from fluxdrop.generate.messages import (
    Generate,
    GeneratedImage,
    Load,
    PictureOrder,
    StepProgress,
    unpack_images,
)
from fluxdrop.generate.request import GenerationRequest, check
from fluxdrop.processes.child import Child, ChildDied
from fluxdrop.processes.wire import Frame, FrameKind, WireError

_PACKAGES = ("torch", "diffusers", "transformers")

_PING_SECONDS = 15.0

# The child's environment, where the daemon's own names nothing else.
_ENVIRONMENT = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "DIFFUSERS_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    # Without a workspace of fixed size cuBLAS may compute the same product differently next time.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    # Threads of OpenMP spin while they wait for each other; beside a busy process like the worker
    # that makes a picture on the CPU take ten times as long.
    "OMP_WAIT_POLICY": "PASSIVE",
    # torch makes this folder at its import, in which it would keep what it compiles, which here is nothing; one that
    # is there already is left as it is.
    "TORCHINDUCTOR_CACHE_DIR": tempfile.gettempdir(),
    "PYTHONUNBUFFERED": "1",
}


class GenerationOrder(NamedTuple):
    """A picture to be made, unless the file *cancelled* is there before it is done."""

    request: GenerationRequest
    cancelled: Path | None = None


class Generator:
    """Makes pictures in a child process.

    One thread uses it, and must outlive it: on Linux the child ends with the thread that started
    it. *wait_hook* is called several times a second while a picture is awaited; what it raises ends
    the wait and the child.
    """

    def __init__(self, settings: Settings, wait_hook: Callable[[], None] | None = None) -> None:
        self._settings = settings
        self._wait_hook = wait_hook
        self._child: Child | None = None
        self._used = 0.0

    @property
    def pid(self) -> int | None:
        """The child's process id; None while there is none."""
        return self._child.pid if self._child and self._child.alive() else None

    def generate(
        self,
        orders: Sequence[GenerationOrder],
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[GeneratedImage]:
        """Make the pictures of *orders*, which share their `batch_key`, in one run.

        *on_progress* gets the steps done and all steps. Raises FluxdropError for what cannot be
        made, with the kind ``prompt``, ``pipeline``, ``memory``, ``compute``, ``cancelled`` or
        ``generator``, and ChildDied when the child is lost; the next call starts another.
        """
        for order in orders:
            check(order.request)
        name, table, warnings = choose(self._settings, orders[0].request.pipeline)
        tagged = [split_tags(order.request.prompt, self._settings.loras) for order in orders]
        child = self._start()
        self._used = time.monotonic()

        def progressed(frame: Frame) -> None:
            progress = msgspec.json.decode(frame.payload, type=StepProgress)
            if on_progress is not None:
                on_progress(progress.step, progress.steps)

        child.call(
            FrameKind.LOAD,
            msgspec.json.encode(Load(name=name, table=table)),
            expect=FrameKind.LOADED,
            timeout=self._settings.generator_start_seconds,
        )
        pictures = [
            PictureOrder(
                request=order.request,
                prompt=prompt,
                cancelled=str(order.cancelled.absolute()) if order.cancelled else None,
            )
            for order, (prompt, _loras, _warnings) in zip(orders, tagged, strict=True)
        ]
        loras = [(str(lora.file), lora.weight) for lora in tagged[0][1]]
        answer = child.call(
            FrameKind.GENERATE,
            msgspec.json.encode(Generate(pictures=pictures, loras=loras)),
            expect=FrameKind.IMAGE,
            timeout=self._settings.generator_step_seconds,
            on_progress=progressed,
        )
        self._used = time.monotonic()
        images = self._unpacked(child, answer, len(orders))
        if child.outgrown(self._settings.generator_max_bytes):
            self.close()
        return [
            GeneratedImage(
                png, msgspec.structs.replace(one, warnings=warnings + more + one.warnings)
            )
            for (png, one), (_prompt, _loras, more) in zip(images, tagged, strict=True)
        ]

    def _unpacked(self, child: Child, answer: Frame, count: int) -> list[GeneratedImage]:
        try:
            images = unpack_images(answer.payload)
            if len(images) != count:
                raise WireError(f"{len(images)} pictures for {count} orders")
        except WireError as error:
            raise child.give_up(error) from error
        return images

    def batch_key(self, request: GenerationRequest) -> Hashable:
        """Equal for requests that one run of a pipeline can answer; raises as `generate` does."""
        check(request)
        name, _table, _warnings = choose(self._settings, request.pipeline)
        _prompt, loras, _warnings = split_tags(request.prompt, self._settings.loras)
        rest = msgspec.structs.replace(
            request, prompt="", negative_prompt="", seed=None, pipeline=None
        )
        return name, tuple(loras), msgspec.structs.astuple(rest)

    def tend(self) -> None:
        """Look after the child, now and then while no picture is made.

        One that was idle for long gives its memory back; one that died, hangs or was stopped is
        ended. The next picture starts another.
        """
        if self._child is None:
            return
        if not self._child.alive():
            self._child.reap()
            self._child = None
        elif time.monotonic() - self._used > self._settings.generator_idle_seconds:
            self.close()
        else:
            with contextlib.suppress(ChildDied):
                self._child.ping(_PING_SECONDS)

    def close(self) -> None:
        """End the child and free what it holds; a later call starts another."""
        child, self._child = self._child, None
        if child is not None:
            child.stop()

    def _start(self) -> Child:
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
        # -P: no torch.py is imported from the working folder, into which anyone may drop files.
        self._child = Child(
            "generator",
            [sys.executable, "-P", "-m", "fluxdrop.generate.server", "--parent", str(os.getpid())],
            env={**_ENVIRONMENT, **os.environ},
            start_timeout=self._settings.generator_start_seconds,
            wait_hook=self._wait_hook,
        )
        return self._child
