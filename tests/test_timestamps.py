"""Moments, as people write and read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from fluxdrop.errors import FluxdropError
from fluxdrop.timestamps import ago, local, parse_since, rfc3339

NOON = datetime(2026, 5, 10, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30s", NOON - timedelta(seconds=30)),
        ("90m", NOON - timedelta(minutes=90)),
        (" 6 H ", NOON - timedelta(hours=6)),
        ("7d", NOON - timedelta(days=7)),
        ("2w", NOON - timedelta(weeks=2)),
        ("2026-01-31", datetime(2026, 1, 31).astimezone()),
        ("2026-01-31T18:00", datetime(2026, 1, 31, 18).astimezone()),
        ("2026-01-31T18:00+02:00", datetime(2026, 1, 31, 16, tzinfo=UTC)),
    ],
)
def test_since(text: str, expected: datetime) -> None:
    """A time is so long ago, or a date in local time if it names no zone."""
    assert expected == parse_since(text, NOON)


@pytest.mark.parametrize("text", ["", "yesterday", "5", "-3h", "5y", "2026-13-01", "9999999d"])
def test_no_time(text: str) -> None:
    """Anything else is refused, with what can be written."""
    with pytest.raises(FluxdropError, match="Write 30m, 6h or 7d, or a date"):
        parse_since(text, NOON)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-5, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (61, "1 min 1 s"),
        (7260, "2 h 1 min"),
        (86400, "1 d"),
        (90000, "1 d 1 h"),
    ],
)
def test_ago(seconds: int, expected: str) -> None:
    """How long ago something was is told in its two largest units."""
    assert expected == ago(rfc3339(NOON - timedelta(seconds=seconds)), NOON)


def test_what_is_no_moment() -> None:
    """A moment that somebody wrote otherwise into a file is shown as it stands."""
    assert ("soon", "soon") == (ago("soon", NOON), local("soon"))
