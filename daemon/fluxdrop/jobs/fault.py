"""Why the intake found that a claimed file has to fail: a kind for programs, a reason for people."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

FaultKind = Literal["incomplete", "unknown", "unreadable"]


class Fault(NamedTuple):
    """What is wrong with a file. The job's folder has its `text` in the file ``fault``."""

    kind: FaultKind
    reason: str
    """The end of a sentence."""

    @property
    def text(self) -> str:
        """The fault as one line, which `read_fault` reads."""
        return f"{self.kind}: {self.reason}"


def read_fault(text: str) -> Fault:
    """Parse the *text* of a fault.

    An earlier fluxdrop wrote the reason alone; then the kind is ``incomplete``.
    """
    kind, _, reason = text.partition(": ")
    for known in get_args(FaultKind):
        if kind == known:
            return Fault(known, reason)
    return Fault("incomplete", text or "the intake said no more of it")
