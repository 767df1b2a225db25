"""A server on the loopback that speaks as much of the Hugging Face hub's protocol as downloading a model takes."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serving_hub(folder: Path, repository: str) -> Iterator[tuple[str, list[str]]]:
    """Serve *folder* as the model *repository*; yield the address for HF_ENDPOINT, and the files that were fetched."""
    fetched: list[str] = []
    files = {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()
    }

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(whole=False)

        def do_GET(self) -> None:
            self._answer(whole=True)

        def _answer(self, *, whole: bool) -> None:
            path = self.path.partition("?")[0]
            resolve = f"/{repository}/resolve/{COMMIT}/"
            headers = {"X-Repo-Commit": COMMIT}
            if path.startswith(resolve) and path.removeprefix(resolve) in files:
                name = path.removeprefix(resolve)
                body = files[name].read_bytes()
                headers["ETag"] = f'"{hashlib.sha1(body).hexdigest()}"'
                if whole:
                    fetched.append(name)
            elif path in (
                f"/api/models/{repository}",
                f"/api/models/{repository}/revision/{COMMIT}",
            ):
                siblings = [{"rfilename": name} for name in files]
                body = json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings}).encode()
            else:
                body = b"{}"
                headers["X-Error-Code"] = "RepoNotFound"
                self.send_response(404)
                self._finish(headers, body, whole)
                return
            self.send_response(200)
            self._finish(headers, body, whole)

        def _finish(self, headers: dict[str, str], body: bytes, whole: bool) -> None:
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if whole:
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", fetched
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
