"""Commands that get records."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from fluxdrop.delivery.command import Command
from fluxdrop.delivery.receiver import Away, Failed
from support.daemons import wait_for_end
from support.outlets import wait_until

JOB = "20260101T000000-00000000"
DATA = '{"prompt": "$(touch /tmp/x) `id` ; \\n größer"}'.encode()


def script(folder: Path, text: str) -> str:
    """The path of a new program in *folder*."""
    path = folder / "hook.sh"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def command(folder: Path, text: str, *words: str, seconds: float = 60) -> Command:
    """A hook that runs *text* in *folder*."""
    return Command("on_done", [script(folder, text), *words], folder, seconds)


def test_input_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record is the standard input and nothing else of the command, which gets its words as they are, in the root,
    without the daemon's secrets in its environment."""
    monkeypatch.setenv("FLUXDROP_HOOK_SECRET", "whsec_secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")

    command(tmp_path, 'cat > record; echo "$#,$1,$PWD" > words; env > env', "a b;$x").hand(
        JOB, DATA
    )

    assert DATA == (tmp_path / "record").read_bytes()
    assert f"1,a b;$x,{tmp_path}\n" == (tmp_path / "words").read_text()
    variables = (tmp_path / "env").read_text()
    assert "secret" not in variables.lower()
    assert {f"FLUXDROP_ROOT={tmp_path}", "LC_ALL=C.UTF-8"} <= set(variables.splitlines())


def test_output_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What it prints is logged on one line, however much it is, with a part of it only."""
    with caplog.at_level("INFO"):
        command(tmp_path, "echo one; echo two >&2; head -c 9999999 /dev/zero").hand(JOB, DATA)

    (line,) = [record.getMessage() for record in caplog.records]
    assert "one | two" in line
    assert len(line) < 10_000


def test_large_input_that_nobody_reads(tmp_path: Path) -> None:
    """A command that ends without reading its input has taken the record."""
    command(tmp_path, "exit 0").hand(JOB, b" " * 4_000_000)


def test_failure(tmp_path: Path) -> None:
    """Another exit code than 0, and an end by a signal, say that the record was not taken."""
    with pytest.raises(Failed) as by_code:
        command(tmp_path, "cat > /dev/null; exit 3").hand(JOB, DATA)
    with pytest.raises(Failed) as by_signal:
        command(tmp_path, "kill -9 $$").hand(JOB, DATA)

    assert by_code.value.problem.endswith("ended with exit code 3")
    assert by_signal.value.problem.endswith("ended with signal 9")


def test_hanging(tmp_path: Path) -> None:
    """A command that hangs is killed with all that it started, when its time is over."""
    with pytest.raises(Failed) as caught:
        command(tmp_path, "sleep 1000 & echo $! > pid; wait", seconds=0.5).hand(JOB, DATA)

    assert caught.value.problem.endswith("took longer than 0.5 s")
    wait_for_end(int((tmp_path / "pid").read_text()))


def test_what_is_left_running(tmp_path: Path) -> None:
    """What a command leaves running in its group, with its output open, holds nothing up, and is killed."""
    command(tmp_path, "sleep 1000 & echo $! > pid").hand(JOB, DATA)

    wait_for_end(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("name", ["no-such-program-of-fluxdrop", "./not-there", "/"])
def test_no_program(tmp_path: Path, name: str) -> None:
    """A program that is not there, or is none, is named, and its absence costs no record."""
    with pytest.raises(Away) as caught:
        Command("on_done", [name], tmp_path, 60).hand(JOB, DATA)

    assert f"{name} cannot be started" in caught.value.problem


def test_abort(tmp_path: Path) -> None:
    """A command that runs is killed when the daemon stops, and none is started later."""
    hanging = command(tmp_path, "echo $$ >> pids; exec sleep 1000")
    pids = tmp_path / "pids"

    def abort_when_running() -> None:
        wait_until(lambda: pids.exists() and pids.read_text().endswith("\n"), "running")
        hanging.abort()

    aborting = threading.Thread(target=abort_when_running)
    aborting.start()

    for _ in range(2):
        with pytest.raises(Failed) as caught:
            hanging.hand(JOB, DATA)
        assert "the daemon stopped" == caught.value.problem

    aborting.join()
    (pid,) = pids.read_text().split()
    wait_for_end(int(pid))
