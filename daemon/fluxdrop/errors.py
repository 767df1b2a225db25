"""What fluxdrop raises: one class, so that a caller needs to know one."""

from __future__ import annotations


class FluxdropError(Exception):
    """Something a person can act on.

    *message* names the file or setting and says what is wrong; a missing full stop is added.
    *hint* says what to do about it, a sentence or a command. *kind* is a short, stable word for
    programs (it becomes ``error.kind`` in an error JSON).
    """

    def __init__(self, message: str, *, hint: str = "", kind: str = "error") -> None:
        super().__init__(message)
        self.message = _sentence(message)
        self.hint = hint.strip()
        self.kind = kind

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()


def _sentence(text: str) -> str:
    text = text.strip()
    return text if not text or text.endswith((".", "!", "?")) else f"{text}."
