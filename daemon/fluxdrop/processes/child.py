"""A supervised child process: start it, call it with a deadline, stop and reap it.

The Julia worker and the image generator are such children. Frames (`fluxdrop.processes.wire`) travel
on two descriptors of their own. A thread copies what the child and its libraries print to the log.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import signal
import subprocess
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import IO, TypeVar

from fluxdrop.errors import FluxdropError
from fluxdrop.logs import get_logger
from fluxdrop.processes.exit_status import exit_status
from fluxdrop.processes.procfs import children, resident_bytes
from fluxdrop.processes.wire import (
    DeadlineExceeded,
    Frame,
    FrameKind,
    Pipe,
    PipeClosed,
    WireError,
    unpack_facts,
)

_TAIL_LINES = 40
_MAX_LINE_BYTES = 2000
_SEND_SECONDS = 15.0
# Lines above this rate are not logged, only counted.
_MAX_LINES_PER_SECOND = 200
# The most that any user may set (pipe(7)); it holds a whole batch of small pictures.
_PIPE_BYTES = 1 << 20

T = TypeVar("T")


starts: Counter[str] = Counter()
"""The number of children that this process has started, by name, for the metrics."""


class ChildDied(FluxdropError):
    """The child ended, missed a deadline or broke the protocol.

    The child is dead and reaped when this is raised. *tail* is the end of its output.
    """

    def __init__(self, message: str, *, hint: str = "", tail: str = "") -> None:
        super().__init__(message, hint=hint, kind="worker")
        self.tail = tail


class CallFailed(FluxdropError):
    """The child refused or failed one request and goes on running; it chose the *kind*."""


def call_failed(frame: Frame) -> CallFailed:
    """Return what the FAILURE *frame* says."""
    facts = unpack_facts(frame.payload)
    return CallFailed(
        facts.get("message", "no message"),
        hint=facts.get("hint", ""),
        kind=facts.get("kind", "compute"),
    )


class Child:
    """One child process, started at construction. Not thread-safe: one thread owns it.

    The constructor waits for the frame HELLO, whose facts are then in `hello`.

    Args:
        name: The name for messages, the log and the metrics.
        argv: The command line; ``--in FD --out FD`` is appended, with the child's two descriptors.
        env: The whole environment.
        start_timeout: Seconds until HELLO has to be there.
        wait_hook: Called while a call waits (`Pipe`); what it raises kills the child.
        lent: More descriptors for the child to inherit.

    Raises:
        ChildDied: The child could not be started, or died before HELLO.
        CallFailed: The child answered with FAILURE instead of HELLO; it is dead then.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        start_timeout: float,
        wait_hook: Callable[[], None] | None = None,
        lent: tuple[int, ...] = (),
    ) -> None:
        self.name = name
        self._log = get_logger(f"fluxdrop.{name}")
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._requests = itertools.count(1)
        self._wait_hook = wait_hook
        self._baseline_bytes = 0
        self._death: ChildDied | None = None
        child_in, our_out = _large_pipe()
        our_in, child_out = _large_pipe()
        self._pipe = Pipe(our_in, our_out)
        started = time.monotonic()
        try:
            self._process = subprocess.Popen(
                [*argv, "--in", str(child_in), "--out", str(child_out)],
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(child_in, child_out, *lent),
            )
        except OSError as error:
            self._pipe.close()
            raise ChildDied(
                f"the {name} could not be started: {argv[0]}: {error.strerror}"
            ) from error
        finally:
            os.close(child_in)
            os.close(child_out)
        assert self._process.stdout is not None
        self._drain = threading.Thread(
            target=self._drain_output,
            args=(self._process.stdout,),
            name=f"{name}-output",
            daemon=True,
        )
        self._drain.start()
        try:
            self.hello = self._kill_on_failure(
                start_timeout,
                lambda: unpack_facts(self._answer(FrameKind.HELLO, 0, start_timeout, None).payload),
            )
        except CallFailed:
            self.kill()
            raise
        starts[name] += 1
        self._log.info(
            f"{name} started",
            pid=self.pid,
            seconds=round(time.monotonic() - started, 2),
            **{key: value for key, value in self.hello.items() if key != "pid" and value},
        )

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def call(
        self,
        kind: FrameKind,
        *parts: bytes | memoryview,
        expect: FrameKind,
        timeout: float,
        on_progress: Callable[[Frame], None] | None = None,
    ) -> Frame:
        """Send one request, wait for the answer and return it.

        Args:
            kind: The kind of the request.
            *parts: The payload, in parts.
            expect: The kind of the answer.
            timeout: Seconds until the answer; they start again after each PROGRESS frame.
            on_progress: Called with each PROGRESS frame.

        Raises:
            CallFailed: The child answered with FAILURE.
            ChildDied: The child died, missed the deadline or broke the protocol.
        """
        request = next(self._requests)

        def exchange() -> Frame:
            self._pipe.send(kind, request, *parts, timeout=timeout, wait_hook=self._wait_hook)
            return self._answer(expect, request, timeout, on_progress)

        return self._kill_on_failure(timeout, exchange)

    def send(self, kind: FrameKind, request: int, *parts: bytes | memoryview) -> None:
        """Send one frame, for a caller that has several requests in flight and reads with `receive`.

        Raises:
            ChildDied: The child died, or did not read the frame within 15 s.
        """
        self._kill_on_failure(
            _SEND_SECONDS,
            lambda: self._pipe.send(kind, request, *parts, timeout=_SEND_SECONDS),
        )

    def receive(self, timeout: float) -> Frame | None:
        """Return the next frame; None if none is whole within *timeout* seconds, which must be positive.

        Raises:
            ChildDied: The child died or broke the protocol.
        """

        def receive() -> Frame | None:
            try:
                return self._pipe.receive(timeout=timeout)
            except DeadlineExceeded:
                return None

        return self._kill_on_failure(timeout, receive)

    def kill_overdue(self, seconds: float) -> ChildDied:
        """Kill and reap a child that did not answer within *seconds*; return the error to raise."""
        return self._kill_and_log(DeadlineExceeded("no answer in time"), seconds)

    def stop(self, grace: float = 2.0) -> None:
        """Stop and reap the child: send STOP and close the pipe, then send SIGTERM, then SIGKILL.

        Each step gives the child *grace* seconds to end.
        """
        if self._process.poll() is None:
            with contextlib.suppress(WireError):
                self._pipe.send(FrameKind.STOP, 0, timeout=0.2)
        self._pipe.close()
        for send in (None, signal.SIGTERM, signal.SIGKILL):
            if send is not None:
                self._process.send_signal(send)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace)
                break
        else:
            self._process.wait()
        self._finish_output()

    def kill(self) -> None:
        """Kill the child with SIGKILL and reap it."""
        self._process.kill()
        self._process.wait()
        self._pipe.close()
        self._finish_output()

    def ping(self, timeout: float) -> None:
        """Send PING and wait *timeout* seconds for PONG. Raise ChildDied if it does not come."""
        self.call(FrameKind.PING, expect=FrameKind.PONG, timeout=timeout)

    def reap(self) -> ChildDied:
        """Reap a child that ended by itself; return how it ended.

        The death is logged, unless it was during a call, which has logged it already.
        """
        return self._death or self._kill_and_log(PipeClosed("the pipe is closed"), 0.0)

    def reject_reply(self, error: Exception) -> ChildDied:
        """Kill a child whose reply failed the caller's validation; return the error to raise."""
        return self._kill_and_log(error, 0.0)

    def resident(self) -> int:
        """Return the resident memory in bytes of the child and its children; 0 if it is unknown.

        A child of the child counts with what it has more than the child, with which it may share the rest.
        """
        shared = resident_bytes(self.pid)
        return shared + sum(max(0, resident_bytes(pid) - shared) for pid in children(self.pid))

    def exceeds_memory_limit(self, limit: int) -> bool:
        """Return whether the child's memory has grown above a limit; log it if so.

        The limit is *limit* bytes, or twice the memory at the first call if that is more: a child that
        needs so much from the start would not get smaller by being replaced.
        """
        resident = self.resident()
        self._baseline_bytes = self._baseline_bytes or resident
        if resident <= max(limit, 2 * self._baseline_bytes):
            return False
        self._log.warning(
            f"{self.name} over its memory limit",
            pid=self.pid,
            megabytes=resident >> 20,
            limit=limit >> 20,
        )
        return True

    def alive(self) -> bool:
        """Return whether the process is still running."""
        return self._process.poll() is None

    def _answer(
        self,
        expect: FrameKind,
        request: int,
        timeout: float,
        on_progress: Callable[[Frame], None] | None,
    ) -> Frame:
        while True:
            frame = self._pipe.receive(timeout=timeout, wait_hook=self._wait_hook)
            if frame.request != request:
                raise WireError(f"an answer to request {frame.request}, not {request}")
            if frame.kind is FrameKind.FAILURE:
                raise call_failed(frame)
            if frame.kind is FrameKind.PROGRESS and on_progress is not None:
                on_progress(frame)
            elif frame.kind is expect:
                return frame
            else:
                raise WireError(f"an answer of kind {frame.kind.name}, not {expect.name}")

    def _kill_on_failure(self, timeout: float, exchange: Callable[[], T]) -> T:
        """Return what *exchange* returns; kill the child if it raises anything but CallFailed."""
        try:
            return exchange()
        except CallFailed:
            raise
        except WireError as error:
            raise self._kill_and_log(error, timeout) from error
        except BaseException:
            # The answer may still come, and must not be taken for the answer to the next request.
            self.kill()
            raise

    def _kill_and_log(self, error: Exception, timeout: float) -> ChildDied:
        """Kill and reap the child, log why, and return the error to raise."""
        if isinstance(error, PipeClosed):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1.0)
        code = self._process.poll()
        self.kill()
        if isinstance(error, DeadlineExceeded):
            what = f"the {self.name} did not answer within {timeout:g} s and was killed"
        elif code is None:
            what = f"the {self.name} broke the protocol ({error}) and was killed"
        else:
            what = f"the {self.name} {exit_status(code)}"
        self._death = self.death(what)
        return self._death

    def death(self, what: str) -> ChildDied:
        """Log that the child, or a process of it, died; return the error that says so."""
        tail = "\n".join(self._tail)
        last = f"; its last line was: {self._tail[-1]}" if self._tail else ""
        self._log.warning(f"{self.name} died", pid=self.pid, reason=what, tail=tail)
        return ChildDied(what + last, tail=tail)

    def _drain_output(self, stream: IO[bytes]) -> None:
        second, lines = 0.0, 0
        with stream:
            for raw in iter(lambda: stream.readline(_MAX_LINE_BYTES), b""):
                line = raw.decode(errors="replace").rstrip()
                if not line:
                    continue
                self._tail.append(line)
                if time.monotonic() - second > 1.0:
                    self._log_dropped(lines - _MAX_LINES_PER_SECOND)
                    second, lines = time.monotonic(), 0
                lines += 1
                if lines <= _MAX_LINES_PER_SECOND:
                    self._log.debug(f"{self.name} output", pid=self.pid, line=line)
            self._log_dropped(lines - _MAX_LINES_PER_SECOND)

    def _log_dropped(self, left_out: int) -> None:
        if left_out > 0:
            self._log.warning(
                f"{self.name} prints more than is logged", pid=self.pid, left_out=left_out
            )

    def _finish_output(self) -> None:
        # A process that the child started may keep the pipe open. The thread is a daemon thread, so it
        # can be left behind.
        self._drain.join(1.0)


def _large_pipe() -> tuple[int, int]:
    """Return the read end and the write end of a pipe that holds many pictures."""
    read_fd, write_fd = os.pipe()
    with contextlib.suppress(OSError):
        # The kernel limits the memory of all pipes of a user; then the default size has to do.
        fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return read_fd, write_fd
