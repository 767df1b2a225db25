"""What fluxdrop raises: one class, so that a caller needs to know one, and one below it for what passes."""

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


class Outage(FluxdropError):
    """Something that the work in hand needs is away, through no fault of that work: it waits."""


def internal(error: BaseException, over: str) -> FluxdropError:
    """What a person is told of the exception *error*, which nobody foresaw and which ended the work *over*
    something (a file's name)."""
    if isinstance(error, MemoryError):
        return FluxdropError(
            f"The memory did not suffice for {over}",
            hint="Drop it once more when less runs on this machine, or drop a smaller one; max_pixels in"
            " fluxdrop.toml bounds what is tried.",
            kind="internal",
        )
    return FluxdropError(
        f"fluxdrop failed over {over}: {type(error).__name__}",
        hint="This is a defect of fluxdrop or of a library; the log has the traceback. The file is"
        " untouched: drop it once more to have it tried again.",
        kind="internal",
    )


def _sentence(text: str) -> str:
    text = text.strip()
    return text if not text or text.endswith((".", "!", "?")) else f"{text}."
