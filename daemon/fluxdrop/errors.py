"""The base class of fluxdrop's errors, and its subclass for errors that pass by themselves."""

from __future__ import annotations


class FluxdropError(Exception):
    """An error that a person can act on.

    Args:
        message: Names the file or setting and says what is wrong; a missing full stop is added.
        hint: What to do about it, a sentence or a command.
        kind: A short, stable word for programs; it is ``error.kind`` in an error JSON.
    """

    def __init__(self, message: str, *, hint: str = "", kind: str = "error") -> None:
        super().__init__(message)
        self.message = _sentence(message)
        self.hint = hint.strip()
        self.kind = kind

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()


class Outage(FluxdropError):
    """Something that the current work needs is not available. The work is not at fault, and waits."""


def internal(error: BaseException, over: str) -> FluxdropError:
    """Return the FluxdropError, kind ``internal``, for an unexpected exception.

    *error* ended the work on *over*, a file's name.
    """
    if isinstance(error, MemoryError):
        return FluxdropError(
            f"There was not enough memory for {over}",
            hint="Drop it once more when less runs on this machine, or drop a smaller one; max_pixels in"
            " fluxdrop.toml bounds what is tried.",
            kind="internal",
        )
    return FluxdropError(
        f"fluxdrop failed on {over}: {type(error).__name__}",
        hint="This is a defect of fluxdrop or of a library; the log has the traceback. The file is"
        " untouched: drop it once more to have it tried again.",
        kind="internal",
    )


def _sentence(text: str) -> str:
    text = text.strip()
    return text if not text or text.endswith((".", "!", "?")) else f"{text}."
