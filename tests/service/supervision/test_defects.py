"""Unexpected exceptions: how they are counted and logged."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from fluxdrop.service.supervision.defects import Defects
from fluxdrop.timestamps import rfc3339


def raised(call: Any, *arguments: object) -> Exception:
    """What *call* raises, with its traceback."""
    try:
        call(*arguments)
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def test_traceback_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The first of several equal defects is logged with its traceback, the others with their number only."""
    defects = Defects()
    for job in ("one", "two", "three"):
        defects.record("publish", raised(rfc3339, "no time"), job=job)

    where = "publish: AttributeError in rfc3339"
    told = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    assert {where: 3} == defects.counts()
    assert ["defect", "defect again", "defect again"] == [line["event"] for line in told]
    assert [True, False, False] == [bool(line.get("exc_info")) for line in told]
    assert [None, 2, 3] == [line.get("times") for line in told]
    assert ["one", "two", "three"] == [line["job"] for line in told]


def test_places() -> None:
    """Defects are counted by part, type and the function of fluxdrop's in which they occurred."""
    defects = Defects()
    defects.record("scan", raised(rfc3339, "no time"))
    defects.record("publish", raised(rfc3339, "no time"))
    defects.record("publish", raised(int, "no number"))
    defects.record("publish", KeyError("never raised"))

    assert {
        "scan: AttributeError in rfc3339": 1,
        "publish: AttributeError in rfc3339": 1,
        "publish: ValueError in raised": 1,
        "publish: KeyError": 1,
    } == defects.counts()


def test_counts_are_a_copy() -> None:
    """Who changes the counts that were returned does not change those that are kept."""
    defects = Defects()
    defects.record("scan", ValueError("odd"))
    defects.counts().clear()

    assert {"scan: ValueError": 1} == defects.counts()


def test_many_threads() -> None:
    """No defect is lost when several threads record at once."""
    defects = Defects()

    def record() -> None:
        for _ in range(50):
            defects.record("scan", ValueError("odd"))

    threads = [threading.Thread(target=record) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {"scan: ValueError": 200} == defects.counts()
