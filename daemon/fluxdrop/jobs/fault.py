"""Why the intake says that a claimed file has to fail: a kind for programs and a reason for people."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

FaultKind = Literal["incomplete", "unknown", "unreadable"]


class Fault(NamedTuple):
    """What is wrong with a file of this *kind*, as the end of a sentence; in a job's folder it is its `text`."""

    kind: FaultKind
    reason: str

    @property
    def text(self) -> str:
        """As one line; `read_fault` reads it."""
        return f"{self.kind}: {self.reason}"


def read_fault(text: str) -> Fault:
    """The fault that *text* tells; of an earlier fluxdrop, which wrote the reason alone, an incomplete file's."""
    kind, _, reason = text.partition(": ")
    for known in get_args(FaultKind):
        if kind == known:
            return Fault(known, reason)
    return Fault("incomplete", text or "the intake said no more of it")
