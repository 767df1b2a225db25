"""results.csv: whole lines, each result once, whatever happens."""

from __future__ import annotations

import csv
import io
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fluxdrop.delivery.results_csv import OUTLET, ResultsCsv, lines_of
from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.jobs import outbox as outbox_module
from fluxdrop.jobs.outbox import Debt
from fluxdrop.records.result import Record
from fluxdrop.tables.columns import NAMES
from fluxdrop.tables.csv_text import BOM
from support.gallery_records import failure, job_id, result
from support.outlets import end, outbox_of
from support.published import in_child

CHANGING = {"write", "truncate", "fsync", "replace", "open", "execute", "executemany", "unlink"}


def owe(record: Record, path: str) -> list[Debt]:
    """What a job owes to the table."""
    lines = lines_of(record, path)
    return [Debt(OUTLET, record.job_id, lines)] if lines else []


def update(root: Root, numbers: range = range(0), *, is_new: bool = False) -> None:
    """End the jobs *numbers*, and bring the table up to date, as a daemon that starts does."""
    with outbox_of(root, results_csv=int(is_new)) as (store, outbox):
        ended = [(result(f"{n}", n, prompt="=a\nb"), f"{n}") for n in numbers]
        end(root, store, outbox, ended, owe)
        ResultsCsv(root, store, outbox).update()


def rows(root: Root) -> list[dict[str, str]]:
    """The rows of the table."""
    text = root.results_csv.read_bytes().decode("utf-8-sig")
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def numbers_in(root: Root) -> list[int]:
    """The numbers of the jobs in the table."""
    return [int(row["job_id"][-8:], 16) for row in rows(root)]


def test_lines(root: Root) -> None:
    """Each result is a line, in the order of their ends, with the columns of an export and all probabilities as JSON;
    failures are not there."""
    with outbox_of(root, results_csv=0) as (store, outbox):
        table = ResultsCsv(root, store, outbox)
        for number in (2, 0, 1):
            end(root, store, outbox, [(result(f"{number}", number), f"{number}")], owe)
            table.update()
        end(root, store, outbox, [(failure("x.txt", 3), "x.txt")], owe)
        table.update()

    assert root.results_csv.read_bytes().startswith(BOM + b"job_id,status,")
    assert [2, 0, 1] == numbers_in(root)
    row = rows(root)[1]
    assert [*NAMES, "probabilities"] == list(row)
    assert ("angular", "0.75", '{"angular":0.75,"round":0.25}') == (
        row["label"],
        row["p"],
        row["probabilities"],
    )


def test_results_of_before(root: Root) -> None:
    """When it is switched on, the results that are there are written first; one that is gone or damaged is left out."""
    update(root, range(4))
    root.results_csv.unlink()
    (root.outputs / "1.json").unlink()
    (root.outputs / "2.json").write_text("{}")

    update(root, range(4, 6), is_new=True)

    assert [0, 3, 4, 5] == numbers_in(root)


def test_switched_off_for_a_while(root: Root) -> None:
    """Results of the time while it was off are there after it is switched on."""
    update(root, range(2))
    with outbox_of(root) as (store, outbox):
        end(root, store, outbox, [(result("2", 2), "2")], lambda _record, _path: [])

    update(root, range(3, 4), is_new=True)

    assert [0, 1, 2, 3] == numbers_in(root)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_text("job_id;status\r\n1;done\r\n"),
        lambda path: path.write_bytes(os.urandom(100_000)),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: (path.unlink(), path.symlink_to("/etc/passwd")),
        lambda path: [path.unlink(), *map(os.mkfifo, [path])],
    ],
    ids=["columns", "bytes", "folder", "symlink", "fifo"],
)
def test_something_else_has_its_name(root: Root, spoil: Callable[[Path], object]) -> None:
    """What is no table of these columns is moved aside, not followed and not lost; the table is written anew."""
    update(root, range(3))
    spoil(root.results_csv)
    spoilt = root.results_csv.lstat()

    update(root, range(3, 4))

    assert [0, 1, 2, 3] == numbers_in(root)
    aside = root.path / "results.csv-not-ours-1"
    assert (spoilt.st_ino, spoilt.st_size) == (aside.lstat().st_ino, aside.lstat().st_size)


def test_somebody_edits_it(root: Root) -> None:
    """Rows that somebody removed or added stay so; a last line without its end gets one, and no result is torn."""
    update(root, range(3))
    lines = root.results_csv.read_bytes().splitlines(keepends=True)
    root.results_csv.write_bytes(b"".join([lines[0], lines[-1]]) + b"mine,and mine")

    update(root, range(3, 5))

    assert ["mine", job_id(3), job_id(4)] == [row["job_id"] for row in rows(root)][-3:]


def test_more_than_there_is_room_for(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """When more is owed than there is room for, as on a disk that was full for long, nothing is missing later."""
    update(root, range(1))
    monkeypatch.setattr(outbox_module, "MAX_OWED", 2)

    update(root, range(1, 6))
    update(root, range(6, 7))

    assert list(range(7)) == sorted(numbers_in(root))
    assert 7 == len(numbers_in(root))


def test_many(root: Root) -> None:
    """More lines than are written at once are all there once."""
    update(root, range(503))

    assert list(range(503)) == numbers_in(root)


@pytest.mark.parametrize("torn", [b"", b"\0" * 5000], ids=["cut", "zeros"])
@pytest.mark.parametrize("lines", [0, 1, 2])
@pytest.mark.parametrize("part", [0, 1, 5, 40, 200])
def test_power_cut(root: Root, torn: bytes, lines: int, part: int) -> None:
    """Whatever part of the lines that are owed is on the disk, the rest follows, and none is there twice."""
    update(root, range(2))
    with outbox_of(root, results_csv=0) as (store, outbox):
        end(root, store, outbox, [(result(f"{n}", n), f"{n}") for n in range(2, 5)], owe)
        owed = outbox.oldest(OUTLET, 10)
    data = b"".join(one.data for one in owed[:lines]) + owed[lines].data[:part]
    with root.results_csv.open("ab") as file:
        file.write(data + torn)

    update(root)

    assert [0, 1, 2, 3, 4] == numbers_in(root)
    assert b"\0" not in root.results_csv.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("what", ["kill", "fail"])
@pytest.mark.parametrize("rebuilds", [False, True])
def test_at_every_call(what: str, rebuilds: bool) -> None:
    """Killed before any call that changes something, or failed at it by the disk, the next start has each result once,
    in whole lines, and at no time is a line torn that was whole."""

    def trapped(root: Root, at: int) -> int:
        calls = 0

        def note(_frame: Any, event: str, function: Any) -> None:
            nonlocal calls
            if event == "c_call" and function.__name__ in CHANGING:
                calls += 1
                if calls == at and what == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                elif calls == at:
                    raise OSError(5, "Input/output error")

        with outbox_of(root, results_csv=0) as (store, outbox):
            table = ResultsCsv(root, store, outbox)
            sys.setprofile(note)
            with suppress(OSError, FluxdropError):
                table.update()
            sys.setprofile(None)
            if what == "fail":
                table.update()
        return calls

    def prepared(folder: str) -> Root:
        root = Root(Path(folder))
        root.create()
        update(root, range(2))
        if rebuilds:
            root.results_csv.unlink()
        with outbox_of(root, results_csv=0) as (store, outbox):
            end(root, store, outbox, [(result(f"{n}", n), f"{n}") for n in range(2, 5)], owe)
        return root

    shm = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=shm) as folder:
        root = prepared(folder)
        count = in_child(lambda: trapped(root, -1))
    assert count > 5
    for at in range(1, count + 1):
        with tempfile.TemporaryDirectory(dir=shm) as folder:
            root = prepared(folder)
            ended = in_child(lambda root=root, at=at: trapped(root, at))  # type: ignore[misc]
            assert ended == -signal.SIGKILL if what == "kill" else ended >= 0
            update(root)
            assert [0, 1, 2, 3, 4] == numbers_in(root), f"at call {at}"
