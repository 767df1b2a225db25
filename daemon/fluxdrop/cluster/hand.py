"""The actor that makes pictures on a host: one for each GPU, or one on a host without any.

It owns the process that runs pipelines, as the daemon does on a machine of its own. This module imports Ray only to
fetch files; the broker makes an actor of `Hand`, and all its coroutines run on the actor's event loop.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

import fluxdrop
from fluxdrop.cluster.host_facts import disk_problem
from fluxdrop.cluster.host_pipelines import HostPipelines
from fluxdrop.cluster.messages import (
    DiedOutcome,
    LostOutcome,
    MadeOutcome,
    Pulse,
    RefusedOutcome,
    RunOrder,
    pack_outcome,
)
from fluxdrop.cluster.pipeline_cache import HostUnfit
from fluxdrop.errors import FluxdropError, Outage
from fluxdrop.generate.failures import cancelled
from fluxdrop.generate.lora import Lora
from fluxdrop.generate.messages import pack_images
from fluxdrop.generate.pipeline_process import PipelineProcess
from fluxdrop.processes.child import ChildDied

LEASE_SECONDS = 60.0
"""How long an actor lives without a ping: its host may be cut off from the station, which gave up on it."""
_HEALTH_SECONDS = 10.0


class Hand:
    """Makes the pictures of one run at a time."""

    def __init__(self, lease_seconds: float = LEASE_SECONDS) -> None:
        """Begin the lease. The process that runs pipelines is started by the first run."""
        forget_ray_threads()
        self._process: PipelineProcess | None = None
        self._pipelines: HostPipelines | None = None
        self._run = ""
        self._step = (0, 0)
        self._cancelled = _CancelMark()
        self._checked_at = time.monotonic()
        self._pinged_at = time.monotonic()
        # On Linux the child ends with the thread that started it, so all of it is done on one thread that stays.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="generator")
        watch = threading.Thread(target=self._watch_lease, args=(lease_seconds,), daemon=True)
        watch.start()

    async def version(self) -> str:
        """Return the version of the fluxdrop that this actor runs."""
        return fluxdrop.__version__

    async def ping(self) -> bytes:
        """Renew the lease; return the `Pulse` as JSON."""
        self._pinged_at = time.monotonic()
        if not self._run and self._pinged_at - self._checked_at > _HEALTH_SECONDS:
            self._checked_at = self._pinged_at
            self._thread.submit(self._check_health)
        step, steps = self._step
        return msgspec.json.encode(
            Pulse(run=self._run, step=step, steps=steps, problem=disk_problem())
        )

    async def cancel(self, run: str) -> None:
        """End *run* after its current step, if it is the one in progress."""
        if run == self._run:
            self._cancelled.set()

    async def run(self, order: bytes, server: Any) -> bytes:
        """Make the pictures of a `RunOrder`, given as JSON; return what `pack_outcome` makes of how it ended.

        *server* is Ray's handle of the actor with the station's files.
        """
        wanted = msgspec.json.decode(order, type=RunOrder)
        if self._run:
            # It could not be cancelled while it waits. The broker never does this.
            return pack_outcome(LostOutcome(run=wanted.id, host="", reason="it was busy"))
        self._run, self._step = wanted.id, (0, 0)
        self._cancelled.clear()
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._thread, self._outcome, wanted, server
            )
        finally:
            self._run = ""

    def _outcome(self, order: RunOrder, server: Any) -> bytes:
        try:
            return self._make(order, server)
        except (HostUnfit, Outage) as error:
            lost = LostOutcome(run=order.id, host="", reason=str(error), is_unfit=True)
            return pack_outcome(lost)
        except ChildDied as error:
            return pack_outcome(DiedOutcome(run=order.id, message=error.message, tail=error.tail))
        except FluxdropError as error:
            # A library cannot tell that it failed because the disk is full.
            problem = disk_problem() if error.kind != "cancelled" else ""
            if problem:
                return pack_outcome(LostOutcome(run=order.id, host="", reason=problem))
            return pack_outcome(
                RefusedOutcome(
                    run=order.id, message=error.message, hint=error.hint, kind=error.kind
                )
            )
        except Exception as error:
            reason = f"it failed there: {type(error).__name__}: {error}"
            return pack_outcome(LostOutcome(run=order.id, host="", reason=reason))

    def _make(self, order: RunOrder, server: Any) -> bytes:
        from fluxdrop.cluster.pipeline_transfer import pieces_from

        assert order.needs is not None
        if self._pipelines is None:
            self._pipelines = HostPipelines.of_this_host(self._check_cancelled)
        mark = str(self._cancelled.path)
        pictures = [msgspec.structs.replace(one, cancelled=mark) for one in order.pictures]
        if self._process is None:
            self._process = PipelineProcess(self._pipelines.limits(order.limits))
        with self._pipelines.holding(
            order.load, order.needs, lambda content: pieces_from(server, content)
        ) as (load, files):
            weights = [weight for _file, weight in order.loras]
            loras = [Lora(*one) for one in zip(files, weights, strict=True)]
            images = self._process.run(load, pictures, loras, self._note_step)
        digests = [hashlib.sha256(image.png).hexdigest() for image in images]
        return pack_outcome(MadeOutcome(run=order.id, sha256=digests), pack_images(images))

    def _check_cancelled(self) -> None:
        """Raise if the run in progress is cancelled, while its pipeline still comes."""
        if self._cancelled.path.exists():
            raise cancelled()

    def _note_step(self, step: int, steps: int) -> None:
        self._step = (step, steps)

    def _check_health(self) -> None:
        if self._process is not None:
            self._process.check_health()

    def _watch_lease(self, seconds: float) -> None:
        while time.monotonic() - self._pinged_at < seconds:
            time.sleep(seconds / 60)
        # The child is killed by the system as its parent ends. Ray would wait for what the actor is doing.
        os._exit(1)


class _CancelMark:
    """A file that the process looks for after each step.

    It is there only from a cancellation until its run ends: a hand mostly ends by being killed, and cannot clean up.
    Nobody can guess its name, so nobody else can put a file there.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.gettempdir(), f"fluxdrop-cancelled-{secrets.token_hex(16)}")

    def set(self) -> None:
        self.path.touch(mode=0o600)

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)


def forget_ray_threads() -> None:
    """Take back OMP_NUM_THREADS=1, which Ray sets for an actor without CPUs, unless the host has set it itself."""
    given = Path("/proc/self/environ").read_bytes().split(b"\0")
    if not any(entry.startswith(b"OMP_NUM_THREADS=") for entry in given):
        os.environ.pop("OMP_NUM_THREADS", None)
