"""What a check finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

from fluxdrop.errors import FluxdropError

Severity = Literal["ok", "note", "broken"]


class Finding(NamedTuple):
    """One line: what was looked at, how it is, and what to do about it.

    ``note`` is something to know that keeps nothing from working.
    """

    check: str
    verdict: Severity
    says: str
    remedy: str = ""


Check = Callable[[], Iterable[Finding]]


def run(name: str, check: Check) -> Iterator[Finding]:
    """What *check* finds; where it cannot even look, that is a finding as well."""
    try:
        yield from check()
    except FluxdropError as error:
        yield Finding(name, "broken", error.message, error.hint)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        remedy = "Run this as the user that serves the root, or mend the permissions."
        yield Finding(name, "broken", f"{error.strerror}{where}", remedy)
