"""A real HTTP server that gets what hooks send."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import NamedTuple


class Message(NamedTuple):
    """A request that came."""

    path: str
    headers: dict[str, str]
    """By name in lower case."""
    body: bytes


class Answer(NamedTuple):
    """What the server answers."""

    status: int
    headers: Mapping[str, str] = MappingProxyType({})
    body: bytes = b""


class WebReceiver:
    """The server: its *url*, and the *messages* that came so far."""

    def __init__(self, answer: Callable[[Message, int], Answer]) -> None:
        self.messages: list[Message] = []
        self.taken: list[Message] = []
        """Those that were answered with success."""
        self._answer = answer
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook?lab=1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def ids(self) -> list[str]:
        """The ids of the messages that were taken."""
        return [message.headers["webhook-id"] for message in self.taken]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                message = Message(self.path, headers, body)
                with receiver._lock:
                    receiver.messages.append(message)
                    number = len(receiver.messages)
                answer = receiver._answer(message, number)
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)
                if answer.status // 100 == 2:
                    with receiver._lock:
                        receiver.taken.append(message)

            def log_message(self, *_arguments: object) -> None:
                pass

        return Handler


@contextmanager
def web_receiver(answer: Callable[[Message, int], Answer]) -> Iterator[WebReceiver]:
    """A server that answers each message, given with its number from 1, with what *answer* returns."""
    receiver = WebReceiver(answer)
    try:
        yield receiver
    finally:
        receiver.close()


def half(_message: Message, number: int) -> Answer:
    """Fail every second request, in the ways in which servers do."""
    return Answer(204) if number % 2 else Answer((500, 503, 429)[number // 2 % 3])
