"""A supervised child process that speaks frames: start, call with a deadline, end, reap.

Both helpers of the daemon are such children, the Julia worker and the image generator. The frames
travel on two dedicated descriptors; whatever the child or its libraries print goes to a thread that
drains it into the log.
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
from pathlib import Path
from typing import IO, TypeVar

from fluxdrop.errors import FluxdropError
from fluxdrop.logs import get_logger
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
_LINE_LIMIT = 2000
# Of a flood of output the log gets as much a second, and how much it did not get.
_LINES_A_SECOND = 200
# As much as anybody may ask for (pipe(7)): a whole batch of small pictures.
_PIPE_BYTES = 1 << 20
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

T = TypeVar("T")


starts: Counter[str] = Counter()
"""How many children of each name this process has started, for the metrics."""


class ChildDied(FluxdropError):
    """The child ended, hung past its deadline or broke the protocol; it is dead and reaped when
    this is raised.
    """

    def __init__(self, message: str, *, hint: str = "", tail: str = "") -> None:
        super().__init__(message, hint=hint, kind="worker")
        self.tail = tail


class CallFailed(FluxdropError):
    """The child refused or failed one request and lives on; *kind* is its word for the failure."""


class Child:
    """One child process, started at construction.

    *argv* is given ``--in FD --out FD``, the two descriptors as the child sees them. The
    constructor waits up to *start_timeout* seconds for HELLO; its facts are ``hello``. It inherits
    the descriptors *lent*, too. Calls are not thread-safe: one thread owns a child.
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
        self._settled = 0
        self._death: ChildDied | None = None
        child_in, our_out = _roomy_pipe()
        our_in, child_out = _roomy_pipe()
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
            self.hello = self._or_dead(
                start_timeout,
                lambda: unpack_facts(self._answer(FrameKind.HELLO, 0, start_timeout, None).payload),
            )
        except CallFailed:
            self.kill()
            raise
        starts[name] += 1
        self._log.info(
            "worker started",
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
        """Send one request and wait for its answer of kind *expect*.

        *timeout* (seconds) is counted anew after each PROGRESS frame. Raises CallFailed when the
        child answers with FAILURE, and ChildDied when it dies, hangs or breaks the protocol.
        """
        request = next(self._requests)

        def exchange() -> Frame:
            self._pipe.send(kind, request, *parts, timeout=timeout, wait_hook=self._wait_hook)
            return self._answer(expect, request, timeout, on_progress)

        return self._or_dead(timeout, exchange)

    def stop(self, grace: float = 2.0) -> None:
        """End the child: STOP and end of file, then SIGTERM, then SIGKILL, *grace* seconds apart;
        reap it.
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
        """End the child at once and reap it."""
        self._process.kill()
        self._process.wait()
        self._pipe.close()
        self._finish_output()

    def ping(self, timeout: float) -> None:
        """Have the child prove, by a round trip, that it would work. Raises ChildDied."""
        self.call(FrameKind.PING, expect=FrameKind.PONG, timeout=timeout)

    def reap(self) -> ChildDied:
        """Take leave of a child that ended while nobody called it; how it did. Of one that died in
        a call the log has it already.
        """
        return self._death or self._dead(PipeClosed("the pipe is closed"), 0.0)

    def give_up(self, error: WireError) -> ChildDied:
        """Take leave of a child of whose answer only the caller can tell that it is rubbish."""
        return self._dead(error, 0.0)

    def resident(self) -> int:
        """How many bytes of memory the child has; 0 where the system does not tell. Of
        proc_pid_statm(5).
        """
        try:
            fields = Path(f"/proc/{self.pid}/statm").read_text().split()
        except OSError:
            return 0
        return int(fields[1]) * _PAGE_BYTES

    def outgrown(self, limit: int) -> bool:
        """Whether the child has more than *limit* bytes of memory, and more than twice of what it
        had when this was first asked: one that needs so much by itself is not replaced for it.
        """
        resident = self.resident()
        self._settled = self._settled or resident
        if resident <= max(limit, 2 * self._settled):
            return False
        self._log.warning(
            "worker outgrown and replaced",
            pid=self.pid,
            megabytes=resident >> 20,
            limit=limit >> 20,
        )
        return True

    def alive(self) -> bool:
        """Whether the process still runs."""
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
                facts = unpack_facts(frame.payload)
                raise CallFailed(
                    facts.get("message", "no message"),
                    hint=facts.get("hint", ""),
                    kind=facts.get("kind", "compute"),
                )
            if frame.kind is FrameKind.PROGRESS and on_progress is not None:
                on_progress(frame)
            elif frame.kind is expect:
                return frame
            else:
                raise WireError(f"an answer of kind {frame.kind.name}, not {expect.name}")

    def _or_dead(self, timeout: float, exchange: Callable[[], T]) -> T:
        """End the child when *exchange* with it breaks off without an answer."""
        try:
            return exchange()
        except CallFailed:
            raise
        except WireError as error:
            raise self._dead(error, timeout) from error
        except BaseException:
            # The answer may still come and must not be taken for the next request's.
            self.kill()
            raise

    def _dead(self, error: WireError, timeout: float) -> ChildDied:
        if isinstance(error, PipeClosed):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1.0)
        code = self._process.poll()
        self.kill()
        if isinstance(error, DeadlineExceeded):
            what = f"the {self.name} did not answer within {timeout:g} s and was killed"
        elif code is None:
            what = f"the {self.name} broke the protocol ({error}) and was killed"
        elif code < 0:
            what = f"the {self.name} was ended by {_signal_name(-code)}"
        else:
            what = f"the {self.name} exited with code {code}"
        tail = "\n".join(self._tail)
        last = f"; its last line was: {self._tail[-1]}" if self._tail else ""
        self._log.warning("worker died", pid=self.pid, reason=what, tail=tail)
        self._death = ChildDied(what + last, tail=tail)
        return self._death

    def _drain_output(self, stream: IO[bytes]) -> None:
        second, lines = 0.0, 0
        with stream:
            for raw in iter(lambda: stream.readline(_LINE_LIMIT), b""):
                line = raw.decode(errors="replace").rstrip()
                if not line:
                    continue
                self._tail.append(line)
                if time.monotonic() - second > 1.0:
                    self._own_up(lines - _LINES_A_SECOND)
                    second, lines = time.monotonic(), 0
                lines += 1
                if lines <= _LINES_A_SECOND:
                    self._log.debug("worker output", pid=self.pid, line=line)
            self._own_up(lines - _LINES_A_SECOND)

    def _own_up(self, left_out: int) -> None:
        if left_out > 0:
            self._log.warning("worker prints more than is logged", pid=self.pid, left_out=left_out)

    def _finish_output(self) -> None:
        # A grandchild may hold the other end open; the thread is a daemon thread, so it is not
        # waited for longer.
        self._drain.join(1.0)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        # Most real-time signals have no name.
        return f"signal {number}"


def _roomy_pipe() -> tuple[int, int]:
    """A pipe's ends to read and to write; it takes many pictures before its writer has to wait."""
    read_fd, write_fd = os.pipe()
    with contextlib.suppress(OSError):
        # Who has many pipes may have no more room in them.
        fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return read_fd, write_fd
