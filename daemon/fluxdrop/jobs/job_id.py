"""Job ids, which start with the time of the claim."""

from __future__ import annotations

import re
import secrets
import time
from datetime import UTC, datetime

from fluxdrop.timestamps import rfc3339

NEW_JOB_ID = r"[0-9]{8}T[0-9]{6}-[0-9a-f]{8}"
"""The pattern of what `new_job_id` returns."""

_JOB_ID = re.compile(r"[0-9A-Za-z-]{1,64}")


_numbers_used: set[str] = set()
"""The random parts of this second's ids."""
_second_of_numbers = ""


def new_job_id() -> str:
    """Return a new job id, which sorts by time.

    No two of a process are equal. Chance alone would draw a number twice in most seconds with 100,000 ids.
    """
    global _second_of_numbers
    second = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    if second != _second_of_numbers:
        _second_of_numbers = second
        _numbers_used.clear()
    while (number := secrets.token_hex(4)) in _numbers_used:
        pass
    _numbers_used.add(number)
    return f"{second}-{number}"


def claim_time(job_id: str) -> str:
    """Return the time of the claim that *job_id* starts with, in RFC 3339, to the second.

    It is the current time if the id starts with none, as that of a folder that fluxdrop did not name.
    """
    try:
        moment = datetime.fromisoformat(job_id.partition("-")[0]).replace(tzinfo=UTC)
    except ValueError:
        moment = datetime.now(UTC)
    return rfc3339(moment, "seconds")


def is_job_id(text: str) -> bool:
    """Return whether *text* can be a job's id. If so, it is also safe as a file name."""
    return _JOB_ID.fullmatch(text) is not None
