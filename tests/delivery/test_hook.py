"""The thread of a hook: each record arrives at least once, whatever the receiver does."""

from __future__ import annotations

import random
import socket
import threading
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from fluxdrop.delivery.command import Command
from fluxdrop.delivery.hook import Hook
from fluxdrop.delivery.receiver import Receiver
from fluxdrop.delivery.webhook import Webhook
from fluxdrop.files.layout import Root
from fluxdrop.jobs.outbox import Debt, Outbox
from fluxdrop.jobs.store import Store
from fluxdrop.records.result import Record
from support.gallery_records import job_id, result
from support.outlets import end, outbox_of, wait_until
from support.web_receiver import Answer, Message, half, web_receiver


def owe(record: Record, _path: str) -> list[Debt]:
    """What a job owes to on_done."""
    return [Debt("on_done", record.job_id, msgspec.json.encode(record))]


def end_jobs(root: Root, store: Store, outbox: Outbox, count: int, first: int = 0) -> list[str]:
    """End *count* jobs; their ids."""
    numbers = range(first, first + count)
    end(root, store, outbox, [(result(f"{n}", n), f"{n}") for n in numbers], owe)
    return [job_id(n) for n in numbers]


def hook_of(receiver: Receiver, outbox: Outbox) -> Hook:
    """A hook that loses no time, and has begun."""
    hook = Hook("on_done", receiver, outbox, first_pause_seconds=0.01)
    hook.start()
    return hook


def test_half_of_the_answers_fail(root: Root) -> None:
    """Of a server that fails half of its answers, each record is taken; those that come later, too."""
    with web_receiver(half) as receiver, outbox_of(root, on_done=0) as (store, outbox):
        ids = end_jobs(root, store, outbox, 20)
        hook = hook_of(Webhook(receiver.url, b"k" * 24, 30), outbox)
        wait_until(lambda: len(set(receiver.ids())) == 20, "20 records")
        ids += end_jobs(root, store, outbox, 5, 20)
        hook.wake()
        wait_until(lambda: outbox.balances()["on_done"].owed == 0, "all taken")
        hook.close()

    assert {f"msg_{job}" for job in ids} == set(receiver.ids())
    assert ids[7] in [msgspec.json.decode(message.body)["job_id"] for message in receiver.taken]
    assert (25, "") == (hook.taken, hook.problem)


def test_a_receiver_that_starts_later(root: Root, tmp_path: Path) -> None:
    """While nobody listens, nothing is lost, the reason is told, and an ending hook leaves all to the next."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with outbox_of(root, on_done=0) as (store, outbox):
        end_jobs(root, store, outbox, 3)
        hook = hook_of(Webhook(f"http://127.0.0.1:{port}/", None, 30), outbox)
        wait_until(lambda: hook.problem, "a problem")
        hook.close(drain_seconds=1000)
        assert "Connection refused" in outbox.balances()["on_done"].problem

    with (
        web_receiver(lambda _message, _number: Answer(200)) as receiver,
        outbox_of(root, on_done=0) as (_, later),
    ):
        hook = hook_of(Webhook(receiver.url, None, 30), later)
        hook.close(drain_seconds=1000)

    assert Counter(f"msg_{job_id(n)}" for n in range(3)) == Counter(receiver.ids())


def test_a_record_that_is_refused(root: Root, caplog: pytest.LogCaptureFixture) -> None:
    """A 4xx drops its record, which the log names and the balance counts; the others are taken."""

    def answer(message: Message, _number: int) -> Answer:
        return Answer(422 if job_id(1) in message.headers["webhook-id"] else 200)

    with web_receiver(answer) as receiver, outbox_of(root, on_done=0) as (store, outbox):
        end_jobs(root, store, outbox, 3)
        hook = hook_of(Webhook(receiver.url, None, 30), outbox)
        hook.close(drain_seconds=1000)
        balance = outbox.balances()["on_done"]

    assert [f"msg_{job_id(0)}", f"msg_{job_id(2)}"] == receiver.ids()
    assert (0, 1) == (balance.owed, balance.refused)
    assert any(job_id(1) in record.getMessage() for record in caplog.records)


def test_one_record_fails_always(root: Root) -> None:
    """A record at which the receiver breaks is tried again and again, and holds no other up."""

    def answer(message: Message, _number: int) -> Answer:
        return Answer(500 if job_id(0) in message.headers["webhook-id"] else 200)

    with web_receiver(answer) as receiver, outbox_of(root, on_done=0) as (store, outbox):
        end_jobs(root, store, outbox, 10)
        hook = hook_of(Webhook(receiver.url, None, 30), outbox)
        wait_until(lambda: len(receiver.taken) == 9, "the others")
        wait_until(lambda: len(receiver.messages) >= 12, "three tries")
        hook.close()

        assert (1, 9) == (outbox.balances()["on_done"].owed, len(receiver.taken))


def test_a_command_that_fails_at_first(root: Root, tmp_path: Path) -> None:
    """A command that fails, or is not there yet, gets each record when it works."""
    program = tmp_path / "hook.sh"
    with outbox_of(root, on_done=0) as (store, outbox):
        end_jobs(root, store, outbox, 3)
        hook = hook_of(Command("on_done", [str(program)], tmp_path, 60), outbox)
        wait_until(lambda: "No such file" in hook.problem, "it is not there")
        text = "#!/bin/sh\necho x >> tries\n[ $(wc -l < tries) -gt 2 ] || exit 1\ncat >> taken\n"
        (tmp_path / "unfinished").write_text(text)
        (tmp_path / "unfinished").chmod(0o755)
        (tmp_path / "unfinished").rename(program)
        wait_until(lambda: outbox.balances()["on_done"].owed == 0, "all taken")
        hook.close()

    taken = (tmp_path / "taken").read_text()
    assert [1, 1, 1] == [taken.count(job_id(n)) for n in range(3)]


def test_close_while_the_receiver_hangs(root: Root, tmp_path: Path) -> None:
    """A receiver that does not answer is hung up on when the daemon stops; its record stays owed."""
    with socket.create_server(("127.0.0.1", 0)) as server, outbox_of(root, on_done=0) as made:
        store, outbox = made
        end_jobs(root, store, outbox, 1)
        hook = hook_of(Webhook(f"http://127.0.0.1:{server.getsockname()[1]}/", None, 3600), outbox)
        connection, _ = server.accept()
        with connection:
            hook.close()

        assert "on_done" not in {thread.name for thread in threading.enumerate()}
        assert 1 == outbox.balances()["on_done"].owed


def test_pauses() -> None:
    """A pause doubles with each try, differs from others, and is five minutes at most."""
    random.seed(1)
    hook = Hook("on_done", Webhook("http://127.0.0.1/", None, 1), None)  # type: ignore[arg-type]

    pauses = [[hook._pause(tries) for _ in range(50)] for tries in (0, 3, 100)]

    assert [True] * 3 == [
        low <= min(some) < max(some) <= 2 * low
        for some, low in zip(pauses, (0.5, 4, 150), strict=True)
    ]
