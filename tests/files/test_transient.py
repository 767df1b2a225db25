"""Which errors are transient, and what people are told of them."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from fluxdrop.errors import FluxdropError, Outage
from fluxdrop.files import transient


def os_error(number: int, path: str | None = None) -> OSError:
    """The error *number* of the system, over *path*."""
    return OSError(number, os.strerror(number), path)


def because_of(cause: Exception, message: str = "The index cannot be used") -> FluxdropError:
    """A FluxdropError for people, raised from *cause*."""
    error = FluxdropError(message)
    error.__cause__ = cause
    return error


def full_database(folder: Path) -> sqlite3.Error:
    """The error of an index that may not grow."""
    with closing(sqlite3.connect(folder / "a.sqlite3")) as db:
        db.execute("CREATE TABLE t (x)")
        db.execute("PRAGMA max_page_count = 2")
        with pytest.raises(sqlite3.OperationalError) as caught:
            db.execute("INSERT INTO t VALUES (zeroblob(100000))")
    return caught.value


def read_only_database(folder: Path) -> sqlite3.Error:
    """The error of an index that may not be written."""
    sqlite3.connect(folder / "b.sqlite3").close()
    with (
        closing(sqlite3.connect(f"file:{folder}/b.sqlite3?mode=ro", uri=True)) as db,
        pytest.raises(sqlite3.OperationalError) as caught,
    ):
        db.execute("CREATE TABLE t (x)")
    return caught.value


def faulty_sql(_folder: Path) -> sqlite3.Error:
    """The error of SQL that is wrong, whatever the disk does."""
    with (
        closing(sqlite3.connect(":memory:")) as db,
        pytest.raises(sqlite3.OperationalError) as caught,
    ):
        db.execute("nonsense")
    return caught.value


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (os_error(errno.ENOSPC), True),
        (os_error(errno.EDQUOT), True),
        (os_error(errno.EROFS), True),
        (os_error(errno.ESTALE), True),
        (os_error(errno.EACCES), True),
        (os_error(errno.EMFILE), True),
        (Outage("The worker does not start"), True),
        (os_error(errno.ENOENT), False),
        (os_error(errno.EINVAL), False),
        (OSError("no number"), False),
        (FluxdropError("It is damaged"), False),
        (because_of(os_error(errno.ENOSPC)), False),
        (MemoryError(), False),
    ],
    ids=repr,
)
def test_is_transient(error: Exception, expected: bool) -> None:
    """Full, absent and failing disks, missing permissions, too many open files and Outages are transient."""
    assert expected == transient.is_transient(error)


@pytest.mark.parametrize(
    ("error", "is_full", "is_full_or_away"),
    [
        (os_error(errno.ENOSPC), True, True),
        (os_error(errno.EDQUOT), True, True),
        (os_error(errno.EIO), False, True),
        (os_error(errno.EACCES), False, False),
        (ValueError("odd"), False, False),
    ],
    ids=repr,
)
@pytest.mark.parametrize("wrap", [lambda error: error, because_of], ids=["itself", "cause"])
def test_full_and_away(
    error: Exception, is_full: bool, is_full_or_away: bool, wrap: Callable[[Exception], Exception]
) -> None:
    """A full disk is told from one that is away, also as the cause of a FluxdropError; a missing permission is
    neither."""
    wrapped = wrap(error)

    assert (is_full, is_full_or_away) == (
        transient.is_full(wrapped),
        transient.is_full_or_away(wrapped),
    )


@pytest.mark.parametrize(
    ("make", "is_full", "is_full_or_away"),
    [(full_database, True, True), (read_only_database, False, True), (faulty_sql, False, False)],
)
def test_sqlite(
    tmp_path: Path, make: Callable[[Path], sqlite3.Error], is_full: bool, is_full_or_away: bool
) -> None:
    """SQLite's own errors of a full and a read-only disk are known, and no others are taken for them."""
    error = make(tmp_path)

    for found in (error, because_of(error)):
        assert is_full == transient.is_full(found)
        assert is_full_or_away == transient.is_full_or_away(found)


def test_no_error() -> None:
    """No error is no full disk."""
    assert not transient.is_full(None)


def test_reasons(tmp_path: Path) -> None:
    """A full disk has one text whichever library met it; any other error has the system's, without the file's name, or
    its own."""
    full = "No space left on device"
    expected: list[tuple[OSError | FluxdropError, str]] = [
        (os_error(errno.ENOSPC, "a.json"), full),
        (os_error(errno.EDQUOT), full),
        (because_of(full_database(tmp_path)), full),
        (because_of(os_error(errno.ENOSPC)), full),
        (os_error(errno.ESTALE, "a.json"), os.strerror(errno.ESTALE)),
        (because_of(os_error(errno.EIO)), os.strerror(errno.EIO)),
        (OSError("odd"), "odd"),
        (because_of(ValueError("odd")), "The index cannot be used."),
        (FluxdropError("It is damaged"), "It is damaged."),
    ]

    assert [text for _, text in expected] == [transient.reason_of(error) for error, _ in expected]


def test_remedies() -> None:
    """There is advice for a disk that is full or away and for a missing permission, and none where none is known."""
    advised = transient.FULL | transient.AWAY | {errno.EACCES, errno.EPERM, errno.EMFILE}

    assert all(transient.remedy_of(os_error(number)).endswith(".") for number in advised)
    assert "Make room there." == transient.remedy_of(os_error(errno.ENOSPC))
    assert "Mount it so" in transient.remedy_of(os_error(errno.EROFS))
    assert ["", ""] == [transient.remedy_of(one) for one in (os_error(errno.EINVAL), OSError("?"))]


def test_naming(tmp_path: Path) -> None:
    """An error of an open file gets the file's name; one that has a name, or no number, is left as it is."""
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(IsADirectoryError) as nameless, transient.naming(tmp_path):
            os.read(fd, 1)
    finally:
        os.close(fd)
    with pytest.raises(FileNotFoundError) as named, transient.naming(tmp_path):
        (tmp_path / "gone").read_bytes()
    with pytest.raises(OSError, match="odd") as odd, transient.naming(tmp_path):
        raise OSError("odd")

    names = [caught.value.filename for caught in (nameless, named, odd)]
    assert [str(tmp_path), str(tmp_path / "gone"), None] == names
