"""The host's side of image generation: a process with torch, started when it is first needed.

So torch never enters the daemon, a crash of it harms nothing else, and `Generator.close` really
frees its memory.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from fluxdrop.child import Child
from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.generate import sources
from fluxdrop.generate.messages import Generate, Load, Progress
from fluxdrop.generate.request import Generated, GenerationRequest, check
from fluxdrop.wire import Frame, Kind

_PACKAGES = ("torch", "diffusers", "transformers")

# The child's environment, where the daemon's own names nothing else.
_ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "DIFFUSERS_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    # Without a workspace of fixed size cuBLAS may compute the same product differently next time.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    # Threads of OpenMP spin while they wait for each other; beside a busy process like the worker
    # that makes a picture on the CPU take ten times as long.
    "OMP_WAIT_POLICY": "PASSIVE",
    "PYTHONUNBUFFERED": "1",
}


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

    @property
    def pid(self) -> int | None:
        """The child's process id; None while there is none."""
        return self._child.pid if self._child and self._child.alive() else None

    def generate(
        self,
        request: GenerationRequest,
        target: Path,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Generated:
        """Make the picture *request* asks for and write it to *target*, a PNG with its infotext.

        *on_progress* gets the steps done and all steps. Raises FluxdropError for what cannot be
        made, with the kind ``prompt``, ``pipeline``, ``memory``, ``compute`` or ``generator``, and
        ChildDied when the child is lost; the next call starts another.
        """
        check(request)
        pipeline, warnings = self._choose_pipeline(request.pipeline)
        child = self._start()

        def progressed(frame: Frame) -> None:
            progress = msgspec.json.decode(frame.payload, type=Progress)
            if on_progress is not None:
                on_progress(progress.step, progress.steps)

        child.call(
            Kind.LOAD,
            msgspec.json.encode(Load(pipeline)),
            expect=Kind.LOADED,
            timeout=self._settings.generator_start_seconds,
        )
        answer = child.call(
            Kind.GENERATE,
            msgspec.json.encode(Generate(pipeline, request, str(target.absolute()))),
            expect=Kind.IMAGE,
            timeout=self._settings.generator_step_seconds,
            on_progress=progressed,
        )
        generated = msgspec.json.decode(answer.payload, type=Generated)
        return msgspec.structs.replace(generated, warnings=warnings + generated.warnings)

    def close(self) -> None:
        """End the child and free what it holds; a later call starts another."""
        child, self._child = self._child, None
        if child is not None:
            child.stop()

    def _choose_pipeline(self, asked: str | None) -> tuple[str, list[str]]:
        """The pipeline for the ``Model`` that a prompt file asks for.

        Anyone may drop a file, so it chooses among what this station has, never a folder or hub id
        of its own.
        """
        configured = self._settings.pipeline
        names = {name: name for name in sources.embedded()}
        names |= {configured: configured, _short(configured): configured}
        if asked is None:
            return configured, []
        if asked in names:
            return names[asked], []
        return configured, [
            f"Model {asked} is not a pipeline of this station; {_short(configured)} was used."
        ]

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
            self._child.kill()
        # -P: no torch.py is imported from the working folder, into which anyone may drop files.
        self._child = Child(
            "generator",
            [sys.executable, "-P", "-m", "fluxdrop.generate.server", "--parent", str(os.getpid())],
            env={**_ENVIRONMENT, **os.environ},
            start_timeout=self._settings.generator_start_seconds,
            wait_hook=self._wait_hook,
        )
        return self._child


def _short(pipeline: str) -> str:
    """A folder's name; a hub id without its revision; an embedded name as it is."""
    if Path(pipeline).expanduser().is_dir():
        return Path(pipeline).expanduser().resolve().name
    return pipeline.partition("@")[0]
