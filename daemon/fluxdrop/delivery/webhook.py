"""A receiver behind a URL: each record is POSTed, signed as Standard Webhooks says.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from fluxdrop import __version__
from fluxdrop.delivery.receiver import Away, Failed, NotTaken, Refused
from fluxdrop.errors import FluxdropError
from fluxdrop.printable import printable

SECRET_PREFIX = "whsec_"  # noqa: S105 - what secrets begin with
_SECRET_BYTES = range(24, 65)
_MAX_ANSWER_BYTES = 300
_MAX_REASON = 300
_MAX_ASKED_SECONDS = 3600.0
# 408, 425 and 429 ask for another try; 502, 503 and 504 come from a proxy whose receiver is away.
_AWAY_CODES = {408, 425, 429, 502, 503, 504}


def parse_secret(text: str, place: str) -> bytes:
    """Return the key in *text*: ``whsec_`` and then 24 to 64 bytes in base64.

    Raises:
        FluxdropError: It is none; the error names its *place* only. Kind ``config``.
    """
    try:
        key = base64.b64decode(text.strip().removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) not in _SECRET_BYTES:
        raise FluxdropError(
            f"{place} is no secret for hooks: that is {SECRET_PREFIX} and 24 to 64 bytes in base64",
            hint='Make one with: echo "whsec_$(head -c 32 /dev/urandom | base64)"',
            kind="config",
        )
    return key


def signature(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    """Return the header ``webhook-signature`` for a message."""
    content = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()


class Webhook:
    """The receiver at *url*; see `fluxdrop.delivery.receiver.Receiver`.

    Redirects are not followed, and proxies are not used.
    """

    def __init__(self, url: str, key: bytes | None, timeout_seconds: float) -> None:
        """Prepare to send; nothing is opened yet.

        Args:
            url: The URL, as `fluxdrop.config.hooks` allows it.
            key: Signs each message; None leaves them unsigned.
            timeout_seconds: The longest that one request may take, its answer included.
        """
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._is_tls = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port or (443 if self._is_tls else 80)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._key = key
        self._timeout = timeout_seconds
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._is_aborted = False

    def hand(self, job: str, data: bytes) -> None:
        """See `Receiver.hand`."""
        deadline = time.monotonic() + self._timeout
        try:
            with self._connection(deadline) as connection:
                connection.request("POST", self._target, data, self._headers(job, data))
                with connection.getresponse() as answer:
                    if answer.status // 100 != 2:
                        raise _not_taken(answer)
        except NotTaken:
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            if self._is_aborted:
                raise Failed("the daemon stopped") from error
            late = time.monotonic() >= deadline
            reason = f"no answer within {self._timeout:g} s" if late else _reason(error)
            raise Away(f"{self._host} port {self._port}: {reason}") from error

    def abort(self) -> None:
        """See `Receiver.abort`."""
        self._is_aborted = True
        self._hang_up()

    def _headers(self, job: str, data: bytes) -> dict[str, str]:
        # The same in each try: by it a receiver knows a record that it got already.
        message_id = f"msg_{job}"
        timestamp = str(int(time.time()))
        headers = {
            "content-type": "application/json",
            "user-agent": f"fluxdrop/{__version__}",
            "webhook-id": message_id,
            "webhook-timestamp": timestamp,
        }
        if self._key is not None:
            headers["webhook-signature"] = signature(self._key, message_id, timestamp, data)
        return headers

    @contextmanager
    def _connection(self, deadline: float) -> Iterator[http.client.HTTPConnection]:
        """Yield a connection that breaks at *deadline*, however slowly something still comes."""
        if self._is_aborted:
            raise Failed("the daemon stopped")
        made = socket.create_connection((self._host, self._port), timeout=self._timeout)
        # TLS takes the socket over; this descriptor still names the connection.
        with self._lock:
            self._socket = made.dup()
        timer = threading.Timer(max(0.0, deadline - time.monotonic()), self._hang_up)
        timer.daemon = True
        timer.start()
        if self._is_aborted:
            self._hang_up()
        kind = http.client.HTTPSConnection if self._is_tls else http.client.HTTPConnection
        connection = kind(self._host, self._port)
        try:
            if self._is_tls:
                context = ssl.create_default_context()
                made = context.wrap_socket(made, server_hostname=self._host)
            connection.sock = made
            yield connection
        finally:
            timer.cancel()
            connection.close()
            made.close()
            with self._lock:
                self._socket.close()
                self._socket = None

    def _hang_up(self) -> None:
        with self._lock, suppress(OSError):
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {error.verify_message}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # It may quote what the receiver sent.
    return printable(str(error)[:_MAX_REASON]) or type(error).__name__


def _not_taken(answer: http.client.HTTPResponse) -> NotTaken:
    """Return the error for *answer*, whose status is not of success."""
    status = answer.status
    problem = f"it answered {status} {printable(answer.reason[:_MAX_REASON])}".rstrip()
    if status // 100 == 3:
        where = printable((answer.getheader("location") or "elsewhere")[:_MAX_REASON])
        return Refused(f"{problem}: it redirects to {where}, which is not followed")
    with suppress(OSError, http.client.HTTPException, ValueError):
        said = printable(" ".join(answer.read(_MAX_ANSWER_BYTES).decode(errors="replace").split()))
        problem = f"{problem}: {said}" if said else problem
    if status in _AWAY_CODES:
        return Away(problem, _asked_seconds(answer.getheader("retry-after") or ""))
    return Failed(problem) if status // 100 == 5 else Refused(problem)


def _asked_seconds(text: str) -> float:
    """Return the seconds that a header ``retry-after`` asks to wait, an hour at most; 0 if it cannot be read."""
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return 0.0
    return min(max(seconds, 0.0), _MAX_ASKED_SECONDS)
