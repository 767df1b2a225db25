"""What other threads tell the main loop."""

from __future__ import annotations

import threading
from pathlib import Path

from fluxdrop.jobs.claim import NewJob
from fluxdrop.service.mailbox import Abandoned, Claimed, Mailbox

THREADS, MESSAGES = 8, 500


def test_many_post(tmp_path: Path) -> None:
    """Nothing that any thread posts is lost or comes twice, what one thread posts comes in its order, and each post
    wakes the main loop after its message is there."""
    mailbox = Mailbox()
    wakes: list[str] = []
    mailbox.wake = lambda: wakes.append(threading.current_thread().name)

    def post(thread: int) -> None:
        for number in range(MESSAGES):
            mailbox.post(Claimed([NewJob(tmp_path / f"{thread}-{number}")]))

    threads = [
        threading.Thread(target=post, args=(thread,), name=f"{thread}") for thread in range(THREADS)
    ]
    received: list[str] = []
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        received += [
            job.folder.name
            for one in mailbox.receive()
            if isinstance(one, Claimed)
            for job in one.jobs
        ]
    received += [
        job.folder.name for one in mailbox.receive() if isinstance(one, Claimed) for job in one.jobs
    ]

    for number in range(THREADS):
        mine = [name for name in received if name.startswith(f"{number}-")]
        assert [f"{number}-{message}" for message in range(MESSAGES)] == mine
        assert MESSAGES == wakes.count(f"{number}")


def test_wake_comes_behind_its_message() -> None:
    """Who is woken finds the message; who looks without a message does not wait."""
    mailbox = Mailbox()
    found: list[object] = []
    mailbox.wake = lambda: found.extend(mailbox.receive())
    mailbox.post(Abandoned("one"))
    mailbox.post(Abandoned("two"))

    assert [Abandoned("one"), Abandoned("two")] == found
    assert [] == list(mailbox.receive())
