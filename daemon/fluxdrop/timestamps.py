"""Times as text: RFC 3339 for files and the index, and the forms that people write and read."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Literal

from fluxdrop.errors import FluxdropError

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def now() -> str:
    """Return the current time in RFC 3339, UTC, with milliseconds."""
    return rfc3339(datetime.now(UTC))


def rfc3339(
    moment: datetime, precision: Literal["seconds", "milliseconds"] = "milliseconds"
) -> str:
    """Return *moment*, which must have a time zone, in RFC 3339, UTC, cut to *precision*."""
    text = moment.astimezone(UTC).isoformat(timespec=precision)
    return text.removesuffix("+00:00") + "Z"


def parse_since(text: str, moment: datetime | None = None, option: str = "--since") -> datetime:
    """Parse the value of ``--since``.

    Args:
        text: A time before *moment* such as ``30s``, ``90m``, ``6h``, ``7d`` or ``2w``, or a date with or
            without a time; it is local if it has no zone.
        moment: The current time by default.
        option: What the error calls it.

    Raises:
        FluxdropError: *text* is neither.
    """
    ago = re.fullmatch(r"(\d{1,6})\s*([smhdw])", text.strip().lower())
    if ago:
        return (moment or datetime.now(UTC)) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        return datetime.fromisoformat(text.strip()).astimezone()
    except (ValueError, OverflowError):
        raise FluxdropError(
            f"{option} is {text!r}, which is neither a date nor an age",
            hint="Write 30m, 6h or 7d, or a date such as 2026-01-31 or 2026-01-31T18:00.",
        ) from None


def local(text: str) -> str:
    """Convert the RFC 3339 *text* to the local date and time, to the second; return other text as it is."""
    try:
        return f"{datetime.fromisoformat(text).astimezone():%Y-%m-%d %H:%M:%S}"
    except ValueError:
        return text


def ago(text: str, moment: datetime | None = None) -> str:
    """Return how long before *moment* (now) the RFC 3339 *text* was, in the two largest units.

    Text that is not RFC 3339 is returned as it is.
    """
    try:
        past = datetime.fromisoformat(text)
    except ValueError:
        return text
    seconds = max(0, int(((moment or datetime.now(UTC)) - past).total_seconds()))
    for size, unit, smaller, part in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if seconds >= size:
            rest = seconds % size // smaller
            return f"{seconds // size} {unit}" + (f" {rest} {part}" if rest else "")
    return f"{seconds} s"
