"""The ids of jobs."""

from __future__ import annotations

import re
import secrets
import time

NEW_JOB_ID = r"[0-9]{8}T[0-9]{6}-[0-9a-f]{8}"
"""The pattern of what `new_job_id` returns."""

_JOB_ID = re.compile(r"[0-9A-Za-z-]{1,64}")


def new_job_id() -> str:
    """Return a new, unique job id, which sorts by time."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"


def is_job_id(text: str) -> bool:
    """Return whether *text* can be a job's id. If so, it is also safe as a file name."""
    return _JOB_ID.fullmatch(text) is not None
