"""Log lines of real processes: on stderr, on a terminal and in the root."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest


def logged(code: str, *, folder: Path | None = None, level: str = "info") -> tuple[str, str]:
    """What *code* brings to stdout and stderr of a process with logs configured."""
    place = f"Path({str(folder)!r})" if folder else "None"
    done = subprocess.run(
        [sys.executable, "-c", _program(f"logs.configure({level!r}, {place})", code)],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout, done.stderr


def _program(configure: str, code: str) -> str:
    preamble = f"""
import logging
from pathlib import Path
from fluxdrop import logs
log = logs.get_logger("fluxdrop.test")
{configure}
"""
    return preamble + textwrap.dedent(code)


def lines(text: str) -> list[dict[str, Any]]:
    """The JSON objects in *text*, one a line."""
    return [json.loads(line) for line in text.splitlines()]


def test_json_lines() -> None:
    """Where stderr is no terminal a log line is a JSON object with all that was bound to it."""
    out, err = logged("log.info('done', file='Süß 1.png', p=0.5, path=Path('a'))")
    (line,) = lines(err)

    assert "" == out
    assert line.pop("timestamp").endswith("Z")
    assert {
        "event": "done",
        "level": "info",
        "logger": "fluxdrop.test",
        "file": "Süß 1.png",
        "p": 0.5,
        "path": "PosixPath('a')",
    } == line


def test_exception() -> None:
    """An exception is one line as well, with its traceback."""
    code = """
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("stopped")
    """
    (line,) = lines(logged(code)[1])

    assert "ZeroDivisionError: division by zero" in line["exception"]


def test_terminal() -> None:
    """On a terminal a log line is coloured text."""
    main, side = pty.openpty()
    program = _program("logs.configure()", "log.info('done', file='a.png')")
    subprocess.run([sys.executable, "-c", program], stderr=side, check=True)
    os.close(side)
    text = os.read(main, 10_000).decode()
    os.close(main)

    assert "\x1b[" in text
    assert "done" in text
    assert "a.png" in text


@pytest.mark.parametrize(
    ("level", "expected"), [("debug", ["a", "b", "c"]), ("info", ["b", "c"]), ("error", ["c"])]
)
def test_level(tmp_path: Path, level: str, expected: list[str]) -> None:
    """stderr shows what its level lets through; the file in the root keeps everything."""
    code = "log.debug('a'); log.info('b'); log.error('c')"
    _, err = logged(code, folder=tmp_path, level=level)

    assert expected == [line["event"] for line in lines(err)]
    assert ["a", "b", "c"] == [
        line["event"] for line in lines((tmp_path / "fluxdrop.log").read_text())
    ]


def test_rotation(tmp_path: Path) -> None:
    """The file is renamed when it is full, and no line is lost over it."""
    code = "for n in range(40): log.debug('line', n=n, text='x' * 1_000_000)"
    logged(code, folder=tmp_path)
    files = sorted(tmp_path.iterdir(), key=lambda path: path.name, reverse=True)

    assert "fluxdrop.log fluxdrop.log.1 fluxdrop.log.2 fluxdrop.log.3 fluxdrop.log.4" == " ".join(
        path.name for path in reversed(files)
    )
    assert list(range(40)) == [
        line["n"] for path in files for line in lines(path.read_text(encoding="utf-8"))
    ]


def test_configured_twice(tmp_path: Path) -> None:
    """Configuring again replaces what was configured before."""
    again = f"logs.configure('info', Path({str(tmp_path)!r}))\n" * 2
    _, err = logged(again + "log.info('once')")

    assert ["once"] == [line["event"] for line in lines(err)]
    assert 1 == len((tmp_path / "fluxdrop.log").read_text().splitlines())


def test_watchdog(tmp_path: Path) -> None:
    """Of watchdog's log its warnings alone are shown, like our own."""
    code = """
    inotify = logging.getLogger("watchdog.observers.inotify_c")
    inotify.debug("removing a callback")
    inotify.warning("Inotify queue overflowed; filesystem events were lost")
    """
    _, err = logged(code, folder=tmp_path)

    expected = ["Inotify queue overflowed; filesystem events were lost"]
    for text in (err, (tmp_path / "fluxdrop.log").read_text()):
        assert expected == [line["event"] for line in lines(text)]


def test_before_configuration() -> None:
    """A command that configures no logs has its stdout to itself; warnings go to stderr."""
    program = _program("", "log.info('started'); log.warning('died', pid=7)")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert "" == done.stdout
    assert "started" not in done.stderr
    assert "died" in done.stderr
