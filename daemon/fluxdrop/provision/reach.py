"""Check within seconds whether servers answer.

Julia's package manager and juliapkg's download have no timeout: behind a firewall that drops packets
they would wait for minutes.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def unreachable(urls: Sequence[str], seconds: float = 5.0) -> str | None:
    """Return why not all of *urls* answer, without a full stop; None if they do.

    This takes about *seconds* at most, for all of them together.
    """
    answers: queue.SimpleQueue[tuple[str, str | None]] = queue.SimpleQueue()

    def ask(url: str) -> None:
        answers.put((url, _failure(url, seconds)))

    for url in urls:
        # Name resolution has no timeout, but a daemon thread can be left behind.
        threading.Thread(target=ask, args=(url,), daemon=True).start()
    end = time.monotonic() + seconds
    silent = list(urls)
    while silent:
        try:
            url, failure = answers.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            return f"the server {silent[0]} did not answer within {seconds:g} s"
        if failure is not None:
            return f"the server {url} cannot be reached ({failure})"
        silent.remove(url)
    return None


def _failure(url: str, seconds: float) -> str | None:
    from http.client import HTTPException
    from urllib.error import URLError
    from urllib.request import urlopen

    try:
        # GET, because not every mirror answers HEAD. The body is not read.
        with urlopen(url, timeout=seconds):  # noqa: S310
            return None
    except URLError as problem:
        reason = problem.reason
        return str(getattr(reason, "strerror", None) or reason)
    except (OSError, HTTPException, ValueError) as problem:
        return str(problem) or type(problem).__name__
