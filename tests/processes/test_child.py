"""The supervised child: real processes that keep to the protocol, or do not."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from fluxdrop.processes.child import CallFailed, Child, ChildDied
from fluxdrop.processes.wire import Frame, FrameKind, pack_facts

pytestmark = pytest.mark.usefixtures("nothing_is_left")

PATIENCE = 30.0
SHORT = 0.3

PREAMBLE = """
import os, signal, struct, sys, time
fd_in, fd_out = int(sys.argv[2]), int(sys.argv[4])

def take(size):
    data = b""
    while len(data) < size:
        piece = os.read(fd_in, size - len(data))
        if not piece:
            sys.exit(0)
        data += piece
    return data

def receive():
    kind, request, length = struct.unpack("<6xHQQ", take(24))
    return kind, request, take(length)

def send(kind, request, payload=b""):
    data = struct.pack("<4sHHQQ", b"FXDP", 1, kind, request, len(payload)) + payload
    while data:
        data = data[os.write(fd_out, data):]

HELLO, PING, PONG, FAILURE, STOP, PROGRESS = 1, 7, 8, 6, 9, 21
"""

SERVE = """
send(HELLO, 0, b"julia=none\\n")
while True:
    kind, request, payload = receive()
    if kind == STOP:
        sys.exit(0)
    order = payload.decode()
    if order:
        exec(order)
    else:
        send(PONG, request, payload)
"""
"""A child that executes what PING carries and answers an empty one."""


def start(
    tmp_path: Path,
    body: str = SERVE,
    *,
    timeout: float = PATIENCE,
    wait_hook: Callable[[], None] | None = None,
) -> Child:
    """A Python process that runs *body*."""
    script = tmp_path / "child.py"
    script.write_text(PREAMBLE + textwrap.dedent(body))
    return Child(
        "worker",
        [sys.executable, "-u", str(script)],
        env=dict(os.environ),
        start_timeout=timeout,
        wait_hook=wait_hook,
    )


def ping(child: Child, order: str = "", timeout: float = PATIENCE) -> Frame:
    """Have *child* execute *order*, and await its PONG."""
    return child.call(FrameKind.PING, order.encode(), expect=FrameKind.PONG, timeout=timeout)


def gone(pid: int) -> bool:
    """Whether there is no process *pid*, not even a zombie."""
    return not psutil.pid_exists(pid)


def test_hello_and_call(tmp_path: Path) -> None:
    """A child is there when its HELLO is, answers calls, and ends with code 0 when it is stopped."""
    child = start(tmp_path)
    answers = [ping(child, f"send(PONG, request, b'{n}')").payload for n in range(3)]
    alive = child.alive()
    child.stop()

    assert {"julia": "none"} == child.hello
    assert [b"0", b"1", b"2"] == answers
    assert (True, False) == (alive, child.alive())
    assert 0 == child._process.returncode
    assert gone(child.pid)


def test_failure_is_not_death(tmp_path: Path) -> None:
    """FAILURE fails the one call, with the child's words; the next call is answered."""
    child = start(tmp_path)
    facts = pack_facts({"kind": "input", "message": "a shape", "hint": "reshape"})

    with pytest.raises(CallFailed) as caught:
        ping(child, f"send(FAILURE, request, {facts!r})")
    answer = ping(child)
    child.stop()

    error = caught.value
    assert ("input", "a shape.", "reshape") == (error.kind, error.message, error.hint)
    assert FrameKind.PONG is answer.kind


def test_progress_extends_the_deadline(tmp_path: Path) -> None:
    """PROGRESS frames are passed on, and the time is counted anew after each."""
    child = start(tmp_path)
    order = """
for step in range(6):
    time.sleep(0.1)
    send(PROGRESS, request, bytes([step]))
send(PONG, request)
"""
    steps: list[int] = []
    child.call(
        FrameKind.PING,
        order.encode(),
        expect=FrameKind.PONG,
        timeout=0.5,
        on_progress=lambda frame: steps.append(frame.payload[0]),
    )
    child.stop()

    assert [0, 1, 2, 3, 4, 5] == steps


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ("print('out of', 'memory'); sys.exit(3)", "exited with code 3; its last line was: out of"),
        ("sys.exit('no Flux')", "exited with code 1; its last line was: no Flux"),
        ("os._exit(0)", "the worker exited with code 0"),
        ("os.kill(os.getpid(), 9)", "was ended by SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "was ended by SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGRTMIN + 5)", "was ended by signal 39"),
        ("os.close(fd_out); time.sleep(99)", "broke the protocol .*closed.* and was killed"),
        ("os.write(fd_out, b'Hello, I am libfoo. ' * 9); time.sleep(99)", "begins with b'Hell'"),
        ("send(PONG, request + 1); time.sleep(99)", "an answer to request 2, not 1"),
        ("send(HELLO, request); time.sleep(99)", "an answer of kind HELLO, not PONG"),
        ("send(PROGRESS, request); time.sleep(99)", "an answer of kind PROGRESS, not PONG"),
        ("send(FAILURE, request, b'no value'); time.sleep(99)", "'no value' has no value"),
        ("send(77, request); time.sleep(99)", "unknown kind 77"),
        ("os.write(fd_out, b'FXDP'); os._exit(4)", "exited with code 4"),
    ],
)
def test_death(tmp_path: Path, order: str, message: str) -> None:
    """A child that ends or breaks the protocol is ChildDied, which says how; it is reaped."""
    child = start(tmp_path)

    with pytest.raises(ChildDied, match=message) as caught:
        ping(child, order)

    assert "worker" == caught.value.kind
    assert gone(child.pid)


def test_hang(tmp_path: Path) -> None:
    """A child that does not answer in time is killed, whatever signals it ignores."""
    child = start(tmp_path)

    with pytest.raises(ChildDied, match=r"did not answer within 0\.3 s and was killed"):
        ping(child, "signal.signal(15, signal.SIG_IGN); time.sleep(99)", timeout=SHORT)

    assert gone(child.pid)


def test_hang_in_receive(tmp_path: Path) -> None:
    """A child that does not take a large request is killed at the deadline as well."""
    child = start(tmp_path, 'send(HELLO, 0, b"")\ntime.sleep(99)')

    with pytest.raises(ChildDied, match="did not answer"):
        child.call(FrameKind.PING, bytes(10_000_000), expect=FrameKind.PONG, timeout=SHORT)

    assert gone(child.pid)


def test_call_after_death(tmp_path: Path) -> None:
    """A call to a child that is dead already is ChildDied, too."""
    child = start(tmp_path)
    child.kill()
    child.kill()
    child.stop()

    with pytest.raises(ChildDied, match="was ended by SIGKILL"):
        ping(child)


def test_death_between_calls(tmp_path: Path) -> None:
    """A child that somebody killed while nobody called it is noticed, and ChildDied in a call."""
    child = start(tmp_path)
    os.kill(child.pid, signal.SIGKILL)

    with pytest.raises(ChildDied, match="was ended by SIGKILL"):
        ping(child)
    assert not child.alive()


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        ("sys.exit('no such package')", ChildDied, "exited with code 1; .*: no such package"),
        ("time.sleep(99)", ChildDied, "did not answer within"),
        ("send(HELLO, 0, b'rubbish'); time.sleep(99)", ChildDied, "'rubbish' has no value"),
        ("send(PONG, 0); time.sleep(99)", ChildDied, "kind PONG, not HELLO"),
        ("send(FAILURE, 0, b'message=old\\n'); time.sleep(99)", CallFailed, "old"),
    ],
)
def test_bad_start(tmp_path: Path, body: str, error: type[Exception], message: str) -> None:
    """A child that does not get as far as a HELLO leaves nothing behind but the reason."""
    timeout = SHORT if body == "time.sleep(99)" else PATIENCE
    with pytest.raises(error, match=message):
        start(tmp_path, body, timeout=timeout)


def test_no_such_program() -> None:
    """A program that cannot be started is ChildDied, which names it."""
    with pytest.raises(ChildDied, match=r"/no/julia: No such file"):
        Child("worker", ["/no/julia"], env={}, start_timeout=PATIENCE)


def test_noise(tmp_path: Path) -> None:
    """10 MB on each of stdout and stderr neither block a call nor get into its answer."""
    child = start(tmp_path)
    order = """
for stream in (sys.stdout, sys.stderr):
    for _ in range(100):
        stream.write("x" * 99_999 + "\\n")
print("the last word", flush=True)
send(PONG, request, b"done")
"""
    answer = ping(child, order)

    with pytest.raises(ChildDied, match="code 1; its last line was: the end") as caught:
        ping(child, "sys.exit('the end')")

    assert b"done" == answer.payload
    assert "the last word\nthe end" in caught.value.tail
    assert 40 == len(caught.value.tail.split("\n"))


def test_flood(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of a flood of lines the log has some and the number of the others, together all of them; the
    tail has the last."""
    caplog.set_level("DEBUG", "fluxdrop")
    child = start(tmp_path)
    order = "print('\\n'.join(map(str, range(50_000))), flush=True); sys.exit('the end')"

    with pytest.raises(ChildDied) as caught:
        ping(child, order)

    told = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    logged = [line for line in told if line["event"] == "worker output"]
    left_out = sum(line.get("left_out", 0) for line in told)
    assert 50_001 == len(logged) + left_out
    assert len(logged) < 10_000
    assert caught.value.tail.endswith("49999\nthe end")


def test_ping(tmp_path: Path) -> None:
    """A child that was stopped gives no answer to a ping, and is ended for it."""
    child = start(tmp_path)
    child.ping(PATIENCE)
    os.kill(child.pid, signal.SIGSTOP)

    with pytest.raises(ChildDied, match="did not answer"):
        child.ping(SHORT)

    assert gone(child.pid)


def test_reap(tmp_path: Path) -> None:
    """A child that ended while nobody called it is told of as one that ended in a call."""
    child = start(tmp_path)
    os.kill(child.pid, signal.SIGKILL)

    assert "the worker was ended by SIGKILL." == child.reap().message
    assert gone(child.pid)


def test_memory_limit(tmp_path: Path) -> None:
    """A child exceeds the limit when it has more than the limit and more than twice what it first had."""
    child = start(tmp_path)
    limit = 1
    first = child.exceeds_memory_limit(limit)
    ping(child, f"hoard = b'x' * {2 * child.resident()}; send(PONG, request)")
    found = child.exceeds_memory_limit(limit), child.exceeds_memory_limit(1 << 40)
    child.stop()

    assert (False, True, False) == (first, *found)


def test_noise_that_is_not_text(tmp_path: Path) -> None:
    """Output that is not UTF-8 is kept as far as it can be read."""
    child = start(tmp_path)

    with pytest.raises(ChildDied) as caught:
        ping(child, "os.write(2, b'caf\\xe9\\n'); os._exit(1)")

    assert "caf\N{REPLACEMENT CHARACTER}" == caught.value.tail


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("send(HELLO, 0); take(24)", 0),
        ("send(HELLO, 0); take(24); take(24)", 0),
        ("send(HELLO, 0); time.sleep(99)", -signal.SIGTERM),
        ("signal.signal(15, signal.SIG_IGN); send(HELLO, 0); time.sleep(99)", -signal.SIGKILL),
    ],
    ids=["STOP", "end of file", "SIGTERM", "SIGKILL"],
)
def test_stop(tmp_path: Path, body: str, code: int) -> None:
    """`stop` sends STOP and end of file, then SIGTERM, then SIGKILL: it always ends the child."""
    child = start(tmp_path, body)

    child.stop(grace=SHORT)

    assert code == child._process.returncode
    assert gone(child.pid)


class StopAsked(Exception):
    """What a wait hook raises."""


@pytest.mark.parametrize("order", [b"time.sleep(99)", bytes(10_000_000)], ids=["answer", "send"])
def test_wait_hook(tmp_path: Path, order: bytes) -> None:
    """What the wait hook raises reaches the caller, and the child, whose answer nobody awaits any
    more, is ended.
    """
    asked = False

    def hook() -> None:
        if asked:
            raise StopAsked

    body = SERVE if len(order) < 99 else 'send(HELLO, 0, b"")\ntime.sleep(99)'
    child = start(tmp_path, body, wait_hook=hook)
    asked = True

    with pytest.raises(StopAsked):
        child.call(FrameKind.PING, order, expect=FrameKind.PONG, timeout=PATIENCE)

    assert gone(child.pid)


def test_wait_hook_at_start(tmp_path: Path) -> None:
    """A start can be interrupted as well."""

    def hook() -> None:
        raise StopAsked

    with pytest.raises(StopAsked):
        start(tmp_path, "time.sleep(99)", wait_hook=hook)


def test_only_the_pipe_is_inherited(tmp_path: Path) -> None:
    """A child has the two ends that are its own, and none of ours: so end of file reaches it."""
    first = start(tmp_path)
    second = start(tmp_path)

    fds = ping(second, "send(PONG, request, ','.join(os.listdir('/proc/self/fd')).encode())")
    second.stop()
    os.close(first._pipe._write_fd)
    first._pipe._write_fd = -1
    code = first._process.wait(PATIENCE)
    first.kill()

    # Three standard streams, two of the pipe, and one for reading the folder.
    assert 6 == len(fds.payload.split(b","))
    assert 0 == code
