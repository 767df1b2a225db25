"""What a receiver behind a URL gets, and what its answers mean."""

from __future__ import annotations

import base64
import hashlib
import hmac
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from fluxdrop.delivery.receiver import Away, Failed, NotTaken, Refused
from fluxdrop.delivery.webhook import Webhook, parse_secret, signature
from fluxdrop.errors import FluxdropError
from support.web_receiver import Answer, web_receiver

KEY = bytes(range(32))
JOB = "20260101T000000-00000000"


def test_message() -> None:
    """A record is the body of a POST, with an id that is the job's, the time, and a signature over all three that the
    reference of Standard Webhooks computes; a second try differs in nothing but the time."""
    with web_receiver(lambda _message, _number: Answer(204)) as receiver:
        webhook = Webhook(receiver.url, KEY, 30)
        webhook.hand(JOB, b'{"status": "done"}')
        webhook.hand(JOB, b'{"status": "done"}')

    first, second = receiver.messages
    assert ("/hook?lab=1", b'{"status": "done"}') == (first.path, first.body)
    assert "application/json" == first.headers["content-type"]
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == f"msg_{JOB}"
    signed = f"msg_{JOB}.{first.headers['webhook-timestamp']}.".encode() + first.body
    digest = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert f"v1,{digest}" == first.headers["webhook-signature"]


def test_signature_of_the_specification() -> None:
    """The signature is that of the example in the specification of Standard Webhooks."""
    key = parse_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "a test")

    signed = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')

    assert "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" == signed


@pytest.mark.parametrize(
    "text", ["", "whsec_", "password", "whsec_!!", base64.b64encode(b"x" * 23).decode()]
)
def test_no_secret(text: str) -> None:
    """What is no secret is refused with how to make one, and is not repeated."""
    with pytest.raises(FluxdropError) as caught:
        parse_secret(text, "/etc/secret")

    assert "/etc/secret is no secret for hooks" in caught.value.message
    assert not text or text not in caught.value.message.replace("whsec_ and", "")


def test_unsigned() -> None:
    """Without a secret, there is no signature."""
    with web_receiver(lambda _message, _number: Answer(200)) as receiver:
        Webhook(receiver.url, None, 30).hand(JOB, b"{}")

    assert "webhook-signature" not in receiver.messages[0].headers


@pytest.mark.parametrize(
    ("answer", "error", "says", "seconds"),
    [
        (Answer(400, body=b"no such \x1b lab"), Refused, "400 Bad Request: no such \ufffd lab", 0),
        (Answer(401), Refused, "it answered 401 Unauthorized", 0),
        (Answer(410), Refused, "it answered 410 Gone", 0),
        (Answer(302, {"location": "http://127.0.0.1:1/"}), Refused, "is not followed", 0),
        (Answer(500), Failed, "it answered 500 Internal Server Error", 0),
        (Answer(429, {"retry-after": "120"}), Away, "429", 120),
        (Answer(503, {"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}), Away, "503", 0),
        (Answer(503, {"retry-after": "1e99"}), Away, "503", 3600),
        (Answer(408, {"retry-after": "soon"}), Away, "408", 0),
    ],
)
def test_answers(answer: Answer, error: type[NotTaken], says: str, seconds: float) -> None:
    """A 4xx and a redirect are final, a 5xx is not, and 429, 503 and their like ask for a pause, an hour at most."""
    with (
        web_receiver(lambda _message, _number: answer) as receiver,
        pytest.raises(NotTaken) as caught,
    ):
        Webhook(receiver.url, KEY, 30).hand(JOB, b"{}")

    assert type(caught.value) is error
    assert says in caught.value.problem
    assert seconds == getattr(caught.value, "seconds", 0)
    assert 1 == len(receiver.messages)


@contextmanager
def listening(drip: bytes) -> Iterator[str]:
    """The URL of a server that sends *drip* again and again, and never an end."""
    stopped = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                while not stopped.wait(0.01):
                    connection.sendall(drip)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        stopped.set()
        thread.join()


@pytest.mark.parametrize("drip", [b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"H"])
def test_no_answer(drip: bytes) -> None:
    """A receiver that never answers, or that answers without an end, is away when the time is over."""
    with listening(drip) as url, pytest.raises(Away):
        Webhook(url, KEY, 0.2).hand(JOB, b"{}")


def test_answer_that_is_no_http() -> None:
    """What a receiver sends instead of an answer is told in short, and in printable characters."""
    with listening(b"\x00\x1b[31m" + b"x" * 60_000 + b"\r\n") as url, pytest.raises(Away) as caught:
        Webhook(url, KEY, 30).hand(JOB, b"{}")

    assert len(caught.value.problem) < 400
    assert caught.value.problem.isprintable()


def test_nobody_there() -> None:
    """A port at which nobody listens is named, with the reason."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    with pytest.raises(Away) as caught:
        Webhook(f"http://127.0.0.1:{port}/", KEY, 30).hand(JOB, b"{}")

    assert f"127.0.0.1 port {port}: Connection refused" == caught.value.problem


def test_abort() -> None:
    """A request in progress ends at once when the daemon stops."""
    with listening(b"") as url:
        webhook = Webhook(url, KEY, 300)
        timer = threading.Timer(0.1, webhook.abort)
        timer.start()
        with pytest.raises(Failed):
            webhook.hand(JOB, b"{}")
        timer.join()
