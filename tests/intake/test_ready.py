"""When a dropped file is whole: real files, and a clock that the test turns."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fluxdrop.intake.ready import Candidate, Gone, Hint, Readiness, ReadinessPolicy, Ready, Wait
from fluxdrop.jobs.input_names import WHAT_TO_DROP

POLICY = ReadinessPolicy(settle=2.0, incomplete=60.0)
PNG = (Path(__file__).parents[2] / "examples" / "round_circle_01.png").read_bytes()
UNKNOWN = f"unknown: its name is not that of {WHAT_TO_DROP}"


class Dropped:
    """A file and its candidate; the clock is at 0 when the file is first written."""

    def __init__(self, folder: Path, name: str, data: bytes, hint: Hint | None = None) -> None:
        self.path = folder / name
        self.candidate = Candidate(name)
        self.write(data, hint)
        self.began = self.path.stat().st_ctime

    def write(self, data: bytes, hint: Hint | None = None) -> None:
        """Make *data* its contents; *hint* is the event that tells of it, if one does."""
        before = self.path.stat().st_mtime_ns if self.path.exists() else 0
        self.path.write_bytes(data)
        if before:
            # Two writes of a test can fall into one tick of the filesystem's clock.
            os.utime(self.path, ns=(before, before + 1_000_000))
        if hint is not None:
            self.candidate.record_event(hint)

    def judge(self, seconds: float, *, trust_clock: bool = True) -> Readiness:
        """The verdict at *seconds*."""
        policy = ReadinessPolicy(POLICY.settle, POLICY.incomplete, trust_clock)
        fd = os.open(self.path.parent, os.O_RDONLY)
        try:
            return self.candidate.judge(fd, policy, 1000.0 + seconds, self.began + seconds)
        finally:
            os.close(fd)


@pytest.mark.parametrize("hint", [None, Hint.CHANGED, Hint.CLOSED, Hint.MOVED_IN])
def test_png_is_ready_when_it_is_complete(tmp_path: Path, hint: Hint | None) -> None:
    """A complete PNG is not waited for, however it came."""
    dropped = Dropped(tmp_path, "a.png", PNG, hint)

    assert Ready() == dropped.judge(0)


def test_png_too_large_to_be_taken(tmp_path: Path) -> None:
    """A PNG over the limit is not read to its end: it is ready, to be refused, when it stands still."""
    dropped = Dropped(tmp_path, "a.png", PNG)
    os.truncate(dropped.path, POLICY.max_bytes + 1)
    verdicts = [dropped.judge(0), dropped.judge(2)]

    assert [Wait(2.0), Ready()] == verdicts


def test_png_in_pieces(tmp_path: Path) -> None:
    """A PNG that grows for longer than any deadline waits as long as it grows, and is ready with
    its last byte.
    """
    dropped = Dropped(tmp_path, "a.png", b"")
    cuts = range(1, len(PNG), 53)
    verdicts = []
    for step, cut in enumerate(cuts):
        dropped.write(PNG[:cut], Hint.CHANGED)
        verdicts.append(dropped.judge(59.0 * step))
    dropped.write(PNG, Hint.CHANGED)

    assert [Wait(60.0)] * len(cuts) == verdicts
    assert Ready() == dropped.judge(59.0 * len(cuts))


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (PNG[:4], "it ends after 4 bytes, before its IEND chunk"),
        (PNG[:-1], f"its IEND chunk is cut off at byte {len(PNG) - 1}"),
        (PNG[:-20] + bytes([PNG[-20] ^ 1]) + PNG[-19:], "checksum"),
        (b"", "it is empty"),
    ],
    ids=["signature", "cut", "damaged", "empty"],
)
@pytest.mark.parametrize("hint", [Hint.CHANGED, Hint.CLOSED, Hint.MOVED_IN])
def test_incomplete_picture_fails_at_the_deadline(
    tmp_path: Path, data: bytes, fault: str, hint: Hint
) -> None:
    """A picture that is not whole waits for the rest, closed or not, and then fails for a reason."""
    dropped = Dropped(tmp_path, "a.png", data, hint)
    first, second, last = dropped.judge(0), dropped.judge(59), dropped.judge(60)

    assert (Wait(60.0), Wait(1.0)) == (first, second)
    assert isinstance(last, Ready)
    assert fault in last.fault


def test_rewritten_png_is_looked_at_from_its_beginning(tmp_path: Path) -> None:
    """A PNG of which another version was seen in part is judged by what it holds in the end."""
    stale = PNG[:33] + b"\x7f\xff\xff\xffIDAT" + bytes(200)
    dropped = Dropped(tmp_path, "a.png", stale, Hint.CHANGED)
    first = dropped.judge(0)
    dropped.write(PNG, Hint.CLOSED)

    assert (Wait(60.0), Ready()) == (first, dropped.judge(1))


@pytest.mark.parametrize(
    ("name", "hint", "needed"),
    [
        *((name, None, 2.0) for name in ("a.txt", "a.jpg", "a.png")),
        *((name, Hint.CHANGED, 2.0) for name in ("a.txt", "a.jpg", "a.png")),
        *((name, Hint.MOVED_IN, 0.0) for name in ("a.txt", "a.jpg", "a.png")),
        ("a.txt", Hint.CLOSED, 2.0),
        ("a.jpg", Hint.CLOSED, 1.0),
        ("a.png", Hint.CLOSED, 1.0),
    ],
)
def test_settle(tmp_path: Path, name: str, hint: Hint | None, needed: float) -> None:
    """What does not say where it ends is ready when it was moved in, or stood still for the settle
    time; half of it for a picture that was closed. So is a .png that is no PNG.
    """
    dropped = Dropped(tmp_path, name, b"a red circle", hint)
    verdicts = [dropped.judge(seconds) for seconds in (0, needed / 2, needed)]

    assert [Wait(needed), Wait(needed / 2), Ready()] == (
        verdicts if needed else [Wait(0.0), Wait(0.0), verdicts[2]]
    )


@pytest.mark.parametrize("hint", [Hint.CHANGED, Hint.CLOSED])
def test_event_resets(tmp_path: Path, hint: Hint) -> None:
    """An event counts as a change although the file looks the same."""
    dropped = Dropped(tmp_path, "a.jpg", b"a red circle", Hint.CHANGED)
    before = dropped.judge(1.5)
    dropped.candidate.record_event(hint)
    needed = 2.0 if hint is Hint.CHANGED else 1.0
    after = [dropped.judge(seconds) for seconds in (3.5, 3.5 + needed)]

    assert Wait(2.0) == before
    assert [Wait(needed), Ready()] == after


@pytest.mark.parametrize(
    "data",
    [b"{", b'{"prompt": "a red', b'{"steps": 1', b'[{"prompt": "a red circle"},', b"[tru"],
)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf", b"\n "])
@pytest.mark.parametrize("hint", [Hint.CLOSED, Hint.MOVED_IN])
def test_json_that_ends_early(tmp_path: Path, data: bytes, mark: bytes, hint: Hint) -> None:
    """A prompt that is the beginning of JSON waits for the rest until the deadline, and is read then."""
    dropped = Dropped(tmp_path, "a.txt", mark + data, hint)

    assert [Wait(60.0), Ready()] == [dropped.judge(0), dropped.judge(60)]


@pytest.mark.parametrize(
    "data",
    [
        b'{"prompt": "a red circle"}',
        b"{a|b} circle",
        b"[a red circle",
        b"[1girl",
        b'{"a": "\xff"}',
        b"[" * 100_000 + b"x",
        "{".encode("utf-16"),
    ],
)
def test_what_is_not_the_beginning_of_json(tmp_path: Path, data: bytes) -> None:
    """A prompt that is whole JSON, or none, settles like any other."""
    dropped = Dropped(tmp_path, "a.txt", data, Hint.CLOSED)

    assert [Wait(2.0), Ready()] == [dropped.judge(0), dropped.judge(2)]


def test_silent_change_resets(tmp_path: Path) -> None:
    """A change of which no event told starts the settle time again."""
    dropped = Dropped(tmp_path, "a.txt", b"a red", Hint.CHANGED)
    before = dropped.judge(0)
    dropped.write(b"a red circle")
    after = [dropped.judge(seconds) for seconds in (1.5, 3.0, 3.5)]

    assert Wait(2.0) == before
    assert [Wait(2.0), Wait(0.5), Ready()] == after


def test_moved_in_and_written_on(tmp_path: Path) -> None:
    """A file that was empty when it was moved in and is filled afterwards settles like any other."""
    dropped = Dropped(tmp_path, "a.txt", b"", Hint.MOVED_IN)
    before = dropped.judge(0)
    dropped.write(b"a red circle")

    assert Wait(60.0) == before
    assert [Wait(2.0), Ready()] == [dropped.judge(1), dropped.judge(3)]


@pytest.mark.parametrize(
    ("hint", "trust_clock", "expected"),
    [(None, True, Ready()), (None, False, Wait(2.0)), (Hint.CHANGED, True, Wait(2.0))],
    ids=["found", "found on a network share", "told by an event"],
)
def test_age(tmp_path: Path, hint: Hint | None, trust_clock: bool, expected: Readiness) -> None:
    """Only a file that a scan finds has stood still for as long as its times say, and only where
    the clock that set them is ours.
    """
    dropped = Dropped(tmp_path, "a.txt", b"a red circle", hint)

    assert expected == dropped.judge(3600, trust_clock=trust_clock)


def test_times_in_the_future(tmp_path: Path) -> None:
    """A file from the future settles like one of now."""
    dropped = Dropped(tmp_path, "a.txt", b"a red circle")
    dropped.began -= 3600

    assert [Wait(2.0), Ready()] == [dropped.judge(0), dropped.judge(2)]


@pytest.mark.parametrize("data", [b"%PDF", b""])
def test_unknown_suffix(tmp_path: Path, data: bytes) -> None:
    """What fluxdrop does not take may be renamed until the deadline, and then fails by its name."""
    dropped = Dropped(tmp_path, "a.pdf", data, Hint.MOVED_IN)

    assert [Wait(60.0), Ready(UNKNOWN)] == [dropped.judge(0), dropped.judge(60)]


def test_gone(tmp_path: Path) -> None:
    """A file that is not there any more is gone."""
    dropped = Dropped(tmp_path, "a.txt", b"a red circle")
    dropped.path.unlink()

    assert Gone() == dropped.judge(0)


@pytest.mark.parametrize("kind", ["symlink", "dangling", "fifo", "socket", "folder"])
def test_irregular(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """What is not a regular file is never opened, read or followed; a FIFO does not block."""
    dropped = Dropped(tmp_path, "a.png", PNG)
    target = dropped.path.rename(tmp_path / "elsewhere")
    match kind:
        case "symlink":
            dropped.path.symlink_to(target)
        case "dangling":
            dropped.path.symlink_to("nowhere")
        case "fifo":
            os.mkfifo(dropped.path)
        case "socket":
            # The path of a socket must be short.
            monkeypatch.chdir(tmp_path)
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(dropped.path.name)
        case _:
            dropped.path.mkdir()

    assert Gone(irregular=True) == dropped.judge(0)


NOBODY = """
import os, sys
from fluxdrop.intake.ready import Candidate, ReadinessPolicy
fd = os.open(sys.argv[1], os.O_RDONLY)
if os.geteuid() == 0:
    os.setegid(65534)
    os.seteuid(65534)
candidate = Candidate("a.txt")
clock = os.stat("a.txt", dir_fd=fd).st_ctime
for seconds in (0, 60):
    print(candidate.judge(fd, ReadinessPolicy(2, 60), seconds, clock + seconds))
"""


def test_unreadable(tmp_path: Path) -> None:
    """A file that the daemon may not read waits for its permissions, and then fails for the lack of
    them.
    """
    dropped = Dropped(tmp_path, "a.txt", b"a red circle")
    dropped.path.chmod(0)
    tmp_path.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", NOBODY, tmp_path], capture_output=True, text=True, check=True
    )

    assert [
        "Wait(seconds=60.0)",
        "Ready(fault='unreadable: the daemon has no permission to read it')",
    ] == done.stdout.splitlines()


@pytest.mark.parametrize("rewritten", [True, False])
def test_unchanged(tmp_path: Path, rewritten: bool) -> None:
    """A candidate tells whether its file is still the one that was judged."""
    dropped = Dropped(tmp_path, "a.png", PNG)
    dropped.judge(0)
    if rewritten:
        dropped.write(PNG)
    dropped.path.rename(tmp_path / "b.png")

    assert rewritten is not dropped.candidate.unchanged((tmp_path / "b.png").stat())
