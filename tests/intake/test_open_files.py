"""Files that a program still has open for writing: real descriptors, and a clock that the test turns."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from fluxdrop.config import Settings
from fluxdrop.files.layout import Root
from fluxdrop.intake.ready import Candidate, Hint, Readiness, ReadinessPolicy, Ready, Wait
from fluxdrop.intake.writers import Writers, is_open_by_lease
from support.pictures import png
from support.rights import without_rights
from support.station import Station

POLICY = ReadinessPolicy(settle=2.0, incomplete=60.0)
PICTURE = Image.effect_noise((40, 30), 90).convert("RGB")
HINTS = [None, Hint.CHANGED, Hint.WRITTEN, Hint.CLOSED, Hint.MOVED_IN]


def jpeg(**options: object) -> bytes:
    """A JPEG, as Pillow writes it."""
    out = io.BytesIO()
    PICTURE.save(out, "JPEG", **options)
    return out.getvalue()


JPEG = jpeg(quality=95)


def judge(
    path: Path,
    *seconds: float,
    hint: Hint | None = None,
    is_open: Callable[[int], bool | None] = is_open_by_lease,
) -> list[Readiness]:
    """The verdicts on the file *path*, so many *seconds* after an event told *hint* of it."""
    candidate = Candidate(path.name)
    if hint is not None:
        candidate.record_event(hint)
    clock = path.stat().st_ctime
    policy = replace(POLICY, is_open=is_open)
    fd = os.open(path.parent, os.O_RDONLY)
    try:
        return [candidate.judge(fd, policy, 1000 + after, clock + after) for after in seconds]
    finally:
        os.close(fd)


@pytest.mark.parametrize("hint", HINTS)
@pytest.mark.parametrize("name", ["a.txt", "a.jpg"])
def test_open_for_writing(tmp_path: Path, name: str, hint: Hint | None) -> None:
    """What somebody has open for writing waits for as long as an incomplete file, whatever an event told
    of it; then it is taken as it is.
    """
    path = tmp_path / name
    with path.open("wb") as file:
        file.write(JPEG)
        file.flush()
        early, late, last = judge(path, 0, 30, 60, hint=hint)

    assert isinstance(early, Wait)
    assert (Wait(2.0), Ready()) == (late, last)


def test_png_that_is_open(tmp_path: Path) -> None:
    """A PNG that is whole is taken at once, but not while somebody can still write to it."""
    path = tmp_path / "a.png"
    path.write_bytes(png(4, 4))
    with path.open("r+b"):
        early, late, last = judge(path, 0, 30, 60)
    (closed,) = judge(path, 0)

    assert isinstance(early, Wait)
    assert (Wait(2.0), Ready(), Ready()) == (late, last, closed)


@pytest.mark.parametrize("hint", HINTS)
def test_closed(tmp_path: Path, hint: Hint | None) -> None:
    """What nobody has open any more is taken when it has settled, even if no event told that it was closed."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"a red circle")
    with path.open("rb"):
        verdicts = judge(path, 0, 2, hint=hint)

    assert Ready() == verdicts[1]


@pytest.mark.parametrize(
    ("hint", "expected"), [(Hint.WRITTEN, Wait(2.0)), (Hint.CLOSED, Ready()), (None, Ready())]
)
def test_events_alone(tmp_path: Path, hint: Hint | None, expected: Readiness) -> None:
    """Where nothing else tells, a file that was written to and not closed counts as open."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"a red circle")

    verdicts = judge(path, 0, 30, 60, hint=hint, is_open=lambda _fd: None)

    assert (expected, Ready()) == (verdicts[1], verdicts[2])


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
@pytest.mark.parametrize("hint", HINTS)
def test_jpeg_is_ready_at_its_end(tmp_path: Path, hint: Hint | None, options: object) -> None:
    """A JPEG need not settle; one that is cut off waits, closed or not, and then fails for that reason."""
    whole, cut = tmp_path / "whole.jpg", tmp_path / "cut.jpg"
    data = jpeg(**options)  # type: ignore[arg-type]
    whole.write_bytes(data)
    cut.write_bytes(data[:-9])

    assert [Ready()] == judge(whole, 0, hint=hint)
    first, *_, last = judge(cut, 0, 2, 59, 60, hint=hint)
    assert isinstance(first, Wait)
    assert isinstance(last, Ready)
    assert f"it ends after {len(data) - 9} bytes" in last.fault


@pytest.mark.parametrize("missing", [1, 2])
def test_jpeg_without_end(tmp_path: Path, missing: int) -> None:
    """A JPEG that lacks the mark of its end alone is taken when it has settled."""
    path = tmp_path / "a.jpg"
    path.write_bytes(JPEG[:-missing])

    assert [Wait(2.0), Ready()] == judge(path, 0, 2, hint=Hint.CHANGED)


ASKER = """
import os, sys
from fluxdrop.intake.writers import Writers, is_open_by_lease
fd = os.open(sys.argv[1], os.O_RDONLY)
for line in sys.stdin:
    print(is_open_by_lease(fd), Writers().is_open(fd), flush=True)
"""
HOLDER = "import sys; file = open(sys.argv[1], sys.argv[2]); print(flush=True); sys.stdin.read()"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_found_in_proc(tmp_path: Path) -> None:
    """Where a lease is not allowed, an own process that has the file open for writing is found; one that reads
    it, or that has another file of that name, is not.
    """
    without_leases = [*without_rights(), "setpriv", "--bounding-set", "-lease", sys.executable]
    path, other = tmp_path / "a.txt", tmp_path / "b" / "a.txt"
    other.parent.mkdir()
    for each in (path, other):
        each.write_bytes(b"a red circle")
        each.chmod(0o666)
        os.chown(each, 12345, 12345)
    answers = []
    with piped([*without_leases, "-c", ASKER, path]) as asker:
        for file, mode in ((path, "a"), (path, "r"), (other, "a")):
            with piped([*without_leases, "-c", HOLDER, file, mode]) as holder:
                holder.stdout.readline()  # type: ignore[union-attr]
                asker.stdin.write(b"\n")  # type: ignore[union-attr]
                asker.stdin.flush()  # type: ignore[union-attr]
                answers.append(asker.stdout.readline().decode().strip())  # type: ignore[union-attr]
                holder.communicate()
        asker.communicate()

    assert ["None True", "None None", "None None"] == answers


def piped(command: Sequence[object]) -> subprocess.Popen[bytes]:
    """Start *command* with pipes to it and from it."""
    arguments = [str(argument) for argument in command]
    return subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_lease(tmp_path: Path) -> None:
    """The kernel tells at once when a file is opened and closed, by this process or another."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"a red circle")
    writers = Writers()
    with path.open("rb") as reader:
        before = writers.is_open(reader.fileno())
        with path.open("ab"):
            meanwhile = writers.is_open(reader.fileno())
        after = writers.is_open(reader.fileno())

    assert (False, True, False) == (before, meanwhile, after)


@pytest.mark.parametrize("name", ["a.txt", "a.jpg", "a.png", "a.webp"])
def test_paused(root: Root, name: str) -> None:
    """A writer that pauses for longer than the settle time with the file open has it taken whole."""
    out = io.BytesIO()
    form = {".jpg": "JPEG", ".webp": "WEBP"}.get(name[1:], "PNG")
    PICTURE.save(out, form)
    data = b"a red circle\nSteps: 4, Seed: 7" if name == "a.txt" else out.getvalue()
    station = Station(root, Settings(settle_seconds=0.05, incomplete_seconds=30))
    with closing(station.intake):
        station.intake.step(timeout=0)
        with (root.inbox / name).open("wb", buffering=0) as file:
            file.write(data[: len(data) // 2])
            for _ in range(20):
                station.intake.step(timeout=0.02)
            paused = list(station.claims)
            file.write(data[len(data) // 2 :])

        assert {name: data} == station.take(1)
        assert [] == paused


@pytest.mark.parametrize("missing", [2, 10])
def test_jpeg_without_end_by_the_intake(root: Root, missing: int) -> None:
    """The intake has a JPEG without an end decoded by another process, and takes it whole, or in the end cut off."""
    station = Station(root, Settings(settle_seconds=0.05, incomplete_seconds=2))
    with closing(station.intake):
        station.drop("a.jpg", JPEG[:-missing])

        assert {"a.jpg": JPEG[:-missing]} == station.take(1)
        assert (missing > 2) is (station.claims[0] / "fault").exists()
