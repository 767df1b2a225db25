"""A process that decodes JPEGs without an end for the intake: a crash of the decoder ends only it."""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import sys
import time
from contextlib import suppress

_IDLE_SECONDS = 10.0
_MAX_DECODING_SECONDS = 60.0
_MAX_ANSWERS = 64
_WHOLE, _CUT = b"\1", b"\0"


class DecodingChild:
    """Answers whether all scans of a JPEG decode, one file at a time, without waiting. One thread owns it."""

    def __init__(self, max_pixels: int) -> None:
        """Prepare; the process is started when it is needed, and ends when it is idle.

        Args:
            max_pixels: The largest picture that is decoded.
        """
        self.max_pixels = max_pixels
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._asked: tuple[int, ...] = ()
        """Which file, in which version, the process has in hand; empty if none."""
        self._deadline = 0.0
        self._answers: dict[tuple[int, ...], bool] = {}
        """What it said of files, until somebody asks again."""

    def shows_all(self, fd: int) -> bool | None:
        """Return whether the JPEG open as *fd* decodes; None while that is not known: ask again a little later."""
        status = os.fstat(fd)
        version = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
        if self._asked:
            self._read_answer()
        if version in self._answers:
            return self._answers.pop(version)
        if not self._asked:
            self._ask(fd, version)
        return None

    def close(self) -> None:
        """End the process."""
        if self._socket is not None:
            self._socket.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._socket = None

    def _ask(self, fd: int, version: tuple[int, ...]) -> None:
        # An idle process ends by itself, at any moment.
        for _ in range(2):
            if self._process is None or self._process.poll() is not None:
                self._start()
            assert self._socket is not None
            try:
                socket.send_fds(self._socket, [str(self.max_pixels).encode()], [fd])
            except OSError:
                self.close()
                continue
            self._asked = version
            self._deadline = time.monotonic() + _MAX_DECODING_SECONDS
            return

    def _start(self) -> None:
        self.close()
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        self._socket.setblocking(False)

    def _read_answer(self) -> None:
        assert self._socket is not None
        try:
            # If nothing comes, the process died over the file.
            answer = self._socket.recv(1) == _WHOLE
        except BlockingIOError:
            if time.monotonic() < self._deadline:
                return
            self.close()
            answer = False
        except OSError:
            answer = False
        while len(self._answers) >= _MAX_ANSWERS:
            del self._answers[next(iter(self._answers))]
        self._answers[self._asked] = answer
        self._asked = ()


def main(fd: int) -> None:
    """Answer each descriptor of a JPEG that comes through the socket *fd*, until no more come."""
    from fluxdrop.intake.whole.jpeg import shows_all_scans

    with suppress(OSError):
        # Rather this process than the daemon, when there is no memory left.
        with open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
            file.write("1000")
        os.nice(10)
    with socket.socket(fileno=fd) as ours, selectors.DefaultSelector() as selector:
        selector.register(ours, selectors.EVENT_READ)
        while selector.select(_IDLE_SECONDS):
            message, files, _, _ = socket.recv_fds(ours, 64, 1)
            if not message:
                return
            is_whole = shows_all_scans(files[0], int(message))
            os.close(files[0])
            ours.send(_WHOLE if is_whole else _CUT)


if __name__ == "__main__":
    main(int(sys.argv[1]))
