"""A command that gets each record on its standard input."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from fluxdrop.delivery.receiver import Away, Failed
from fluxdrop.logs import get_logger
from fluxdrop.printable import printable

log = get_logger("fluxdrop.hooks")

_MAX_OUTPUT_BYTES = 4096
_CHUNK_BYTES = 1 << 16
_POLL_SECONDS = 0.05
# What a program needs to find its files and to speak the user's language. The daemon's other variables may be secret.
_VARIABLES = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR")


class Command:
    """Runs *words* for each record; see `fluxdrop.delivery.receiver.Receiver`.

    It is run without a shell, in the root, in a process group of its own that is killed when the command has ended or
    has taken too long. Exit code 0 means that the record was taken. What it prints goes to the log, up to 4 KiB.
    """

    def __init__(self, name: str, words: Sequence[str], root: Path, timeout_seconds: float) -> None:
        """Prepare to run it.

        Args:
            name: The hook's name, for the log.
            words: The program and its arguments.
            root: The folder in which it runs.
            timeout_seconds: The longest that it may run.
        """
        self._name = name
        self._words = list(words)
        self._root = root
        self._timeout = timeout_seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_aborted = False

    def hand(self, job: str, data: bytes) -> None:
        """See `Receiver.hand`."""
        with self._lock:
            if self._is_aborted:
                raise Failed("the daemon stopped")
            try:
                process = self._process = subprocess.Popen(
                    self._words,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    cwd=self._root,
                    env=self._environment(),
                    start_new_session=True,
                    bufsize=0,
                )
            except OSError as error:
                raise Away(f"{self._words[0]} cannot be started: {error.strerror}") from error
        try:
            is_late, output = self._talk(process, data)
        finally:
            code = self._end(process)
        if output:
            log.info("hook printed", hook=self._name, job=job, text=_text(output))
        if self._is_aborted:
            raise Failed("the daemon stopped")
        if is_late:
            raise Failed(f"{self._words[0]} took longer than {self._timeout:g} s")
        if code != 0:
            how = f"exit code {code}" if code > 0 else f"signal {-code}"
            raise Failed(f"{self._words[0]} ended with {how}")

    def abort(self) -> None:
        """See `Receiver.abort`."""
        with self._lock:
            self._is_aborted = True
            if self._process is not None:
                _kill_group(self._process.pid)

    def _environment(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if name in _VARIABLES or name.startswith("LC_")
        }
        return {**kept, "FLUXDROP_ROOT": str(self._root)}

    def _talk(self, process: subprocess.Popen[bytes], data: bytes) -> tuple[bool, bytes]:
        """Write *data* to *process* and read what it prints until it ends or its time is over.

        Returns:
            Whether its time was over, and the first bytes of its output.
        """
        assert process.stdin is not None
        assert process.stdout is not None
        deadline = time.monotonic() + self._timeout
        left, output = memoryview(data), b""
        with selectors.DefaultSelector() as selector:
            os.set_blocking(process.stdin.fileno(), False)
            os.set_blocking(process.stdout.fileno(), False)
            selector.register(process.stdin, selectors.EVENT_WRITE)
            selector.register(process.stdout, selectors.EVENT_READ)
            while not _has_ended(process.pid):
                if time.monotonic() >= deadline:
                    return True, output
                for key, _ in selector.select(_POLL_SECONDS):
                    if key.fileobj is process.stdin:
                        left = _write(process.stdin.fileno(), left)
                        if not left:
                            selector.unregister(process.stdin)
                            process.stdin.close()
                    else:
                        chunk = _read(process.stdout.fileno())
                        output = (output + chunk)[:_MAX_OUTPUT_BYTES]
                        if not chunk:
                            selector.unregister(process.stdout)
                if not selector.get_map():
                    time.sleep(_POLL_SECONDS)
            while len(output) < _MAX_OUTPUT_BYTES and (chunk := _read(process.stdout.fileno())):
                output = (output + chunk)[:_MAX_OUTPUT_BYTES]
        return False, output

    def _end(self, process: subprocess.Popen[bytes]) -> int:
        """Kill what is left of the group of *process*, and return the exit code of *process*."""
        with self._lock:
            self._process = None
            # It is not reaped yet, so no other group has its number.
            _kill_group(process.pid)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        return process.wait()


def _has_ended(pid: int) -> bool:
    """Return whether the child *pid* has ended; it is not reaped."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _write(fd: int, left: memoryview) -> memoryview:
    """Write some of *left*; return the rest, or nothing if nobody reads it."""
    try:
        return left[os.write(fd, left[:_CHUNK_BYTES]) :]
    except BlockingIOError:
        return left
    except BrokenPipeError:
        return left[:0]


def _read(fd: int) -> bytes:
    """Return what can be read now; nothing at the end or if there is nothing yet."""
    try:
        return os.read(fd, _CHUNK_BYTES)
    except BlockingIOError:
        return b""


def _text(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return printable(" | ".join(lines))
