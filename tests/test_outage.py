"""Outages: when one begins and ends, and what the log and `status` are told of it."""

from __future__ import annotations

import errno
import os

import pytest

from fluxdrop.errors import FluxdropError, Outage
from fluxdrop.outage import OutageTracker
from support.stages import Once
from support.station import events


def full(path: str | None = None) -> OSError:
    """The error of a full disk, over *path*."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


@pytest.fixture(autouse=True)
def log_everything(caplog: pytest.LogCaptureFixture) -> None:
    """The end of an outage is logged at the level INFO."""
    caplog.set_level("INFO", "fluxdrop")


def test_one_outage(caplog: pytest.LogCaptureFixture) -> None:
    """An outage is logged once when it begins and once when it ends, however often it is met."""
    outage = OutageTracker("scan")
    for path in ("a", "b", "b"):
        outage.begin("it is full", path)
    told = str(outage), outage.ongoing
    outage.end()
    outage.end()

    assert ("scan: it is full (b)", True) == told
    assert ("", False) == (str(outage), outage.ongoing)
    assert ["outage begins", "outage ended"] == events(caplog)


def test_another_reason(caplog: pytest.LogCaptureFixture) -> None:
    """Another reason is another outage in the log, and `status` shows the latest."""
    outage = OutageTracker("claim")
    outage.begin("it is full", "inbox")
    outage.begin("it is gone")

    assert "claim: it is gone" == str(outage)
    assert ["outage begins"] * 2 == events(caplog)


def test_nothing_to_end(caplog: pytest.LogCaptureFixture) -> None:
    """Where there is no outage, its end is not logged."""
    OutageTracker("scan").end()

    assert [] == events(caplog)


def test_attempts(caplog: pytest.LogCaptureFixture) -> None:
    """Work that fails with a transient error begins an outage that names the file; success ends it."""
    outage = OutageTracker("heartbeat")
    work = Once(full("daemon.json"), full("daemon.json"))

    found = [(outage.attempt(work), str(outage)) for _ in range(3)]

    text = "heartbeat: No space left on device (daemon.json)"
    assert [(False, text), (False, text), (True, "")] == found
    assert ["outage begins", "outage ended"] == events(caplog)


def test_attempt_without_a_file() -> None:
    """An error that names no file, and an Outage, are told by their reason alone."""
    outage = OutageTracker("engine")
    found = []
    for error in (full(), Outage("The worker does not start", kind="worker")):
        assert not outage.attempt(Once(error))
        found.append(str(outage))

    assert ["engine: No space left on device", "engine: The worker does not start."] == found


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "gone"),
        FluxdropError("It is damaged"),
        ValueError("odd"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_error_that_is_not_transient(caplog: pytest.LogCaptureFixture, error: Exception) -> None:
    """Any other error is raised, and neither begins an outage nor ends one."""
    outage = OutageTracker("scan")
    outage.begin("it is full")
    with pytest.raises(type(error)):
        outage.attempt(Once(error))

    assert "scan: it is full" == str(outage)
    assert ["outage begins"] == events(caplog)


def test_what_the_caller_calls_transient() -> None:
    """The caller may say which errors are transient, more of them or fewer."""
    gone = FileNotFoundError(errno.ENOENT, "No such file or directory", "inbox")
    outage = OutageTracker("inbox")

    assert not outage.attempt(Once(gone), lambda _error: True)
    assert "inbox: No such file or directory (inbox)" == str(outage)
    with pytest.raises(OSError, match="No space"):
        outage.attempt(Once(full()), lambda _error: False)
