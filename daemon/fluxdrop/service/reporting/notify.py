"""Notifications to the service manager: the protocol of sd_notify(3), without a library.

If $NOTIFY_SOCKET is not set, as in a daemon started by hand, nothing is sent.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping

from fluxdrop.logs import get_logger

log = get_logger("fluxdrop.daemon")

_SEND_SECONDS = 1.0
_MICROSECONDS = 1_000_000


class Notifier:
    """Sends notifications to the service manager. Any thread may use it."""

    def __init__(self, address: str = "", watchdog_seconds: float = 0.0) -> None:
        """Prepare to send; no socket is opened yet.

        Args:
            address: A socket's path, or an abstract name after an @; empty sends nothing.
            watchdog_seconds: How long the service manager waits for a sign of life; 0 means for
                ever.
        """
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog_seconds = watchdog_seconds
        self._fed_at = float("-inf")
        self._stuck = ""
        self._status = ""

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str] = os.environ) -> Notifier:
        """Return the notifier that the service manager asks for.

        Removes the variables from *environ*, as they are not meant for child processes.
        """
        address = environ.pop("NOTIFY_SOCKET", "")
        microseconds = environ.pop("WATCHDOG_USEC", "")
        pid = environ.pop("WATCHDOG_PID", "")
        is_ours = address and microseconds.isdigit() and pid in ("", str(os.getpid()))
        return cls(address, int(microseconds) / _MICROSECONDS if is_ours else 0.0)

    @property
    def max_silence_seconds(self) -> float:
        """How long the worker may owe a reply and still count as alive; infinite without a watchdog."""
        return self._watchdog_seconds / 4 or float("inf")

    def ready(self, max_reply_seconds: float) -> None:
        """Report that the service is up, or has read its configuration again.

        Extends a watchdog that is shorter than *max_reply_seconds*: a worker that is silent for
        that long is replaced by the daemon itself.
        """
        if 0.0 < self._watchdog_seconds < max_reply_seconds:
            self._send(f"WATCHDOG_USEC={int(max_reply_seconds * _MICROSECONDS)}")
        self._send("READY=1")

    def reloading(self) -> None:
        """Report that the service reads its configuration again; `ready` reports the end of it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Report that the service stops."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Show *text*, as one line, in ``systemctl status``."""
        # A newline in a file's name would start another message.
        line = " ".join(text.split())
        if line != self._status:
            self._status = line
            self._send(f"STATUS={line}")

    def feed(self, stuck: str) -> None:
        """Feed the watchdog, unless *stuck* names a part that makes no progress."""
        if not self._watchdog_seconds:
            return
        if stuck != self._stuck:
            self._stuck = stuck
            if stuck:
                log.error("the watchdog is not fed", reason=stuck)
            else:
                log.info("the watchdog is fed again")
        if not stuck and time.monotonic() - self._fed_at >= self._watchdog_seconds / 8:
            self._fed_at = time.monotonic()
            self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.settimeout(_SEND_SECONDS)
                channel.connect(self._address)
                channel.send(message.encode(errors="replace"))
        except OSError as error:
            log.warning("the service manager cannot be told", what=message, reason=str(error))
