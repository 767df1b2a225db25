"""The findings of checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

from fluxdrop.errors import FluxdropError

Severity = Literal["ok", "note", "broken"]


class Finding(NamedTuple):
    """One line of the report."""

    check: str
    """What was checked."""
    verdict: Severity
    """How it is. A ``note`` is worth knowing and keeps nothing from working."""
    says: str
    """What was found."""
    remedy: str = ""
    """What to do about it."""


Check = Callable[[], Iterable[Finding]]


def run(name: str, check: Check) -> Iterator[Finding]:
    """Yield the findings of *check*; a FluxdropError or OSError that it raises becomes a finding *name*."""
    try:
        yield from check()
    except FluxdropError as error:
        yield Finding(name, "broken", error.message, error.hint)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        remedy = "Run this as the user that serves the root, or mend the permissions."
        yield Finding(name, "broken", f"{error.strerror}{where}", remedy)
