"""Classify errors in the generator process, and convert them to the facts of a FAILURE frame.

A traceback is never sent.
"""

from __future__ import annotations

from fluxdrop.errors import FluxdropError


def out_of_memory(error: BaseException) -> bool:
    """Return whether *error* means that the machine's or the accelerator's memory ran out."""
    # torch raises OutOfMemoryError for accelerators, but a plain RuntimeError for the CPU.
    names = {cls.__name__ for cls in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def cancelled() -> FluxdropError:
    """Return the error, kind ``cancelled``, for a picture whose job was cancelled."""
    return FluxdropError(
        "It was cancelled.", hint="Drop it once more to have it done.", kind="cancelled"
    )


def device_lost(error: BaseException) -> bool:
    """Return whether *error* left the accelerator unusable for this process, as CUDA errors do."""
    return type(error).__name__ == "AcceleratorError"


def first_line(error: BaseException) -> str:
    """Return the first line of *error*'s message, or the name of its class if that is empty."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


def facts(error: Exception) -> dict[str, str]:
    """Return the facts of the FAILURE frame for *error*: ``kind``, ``message`` and ``hint``."""
    if isinstance(error, FluxdropError):
        return {"kind": error.kind, "message": error.message, "hint": error.hint}
    if out_of_memory(error):
        return {
            "kind": "memory",
            "message": "There is not enough memory for this picture.",
            "hint": "Ask for a smaller Size, or take a smaller pipeline.",
        }
    return {
        "kind": "compute",
        "message": f"The picture could not be made: {type(error).__name__}: {first_line(error)}",
        "hint": "The log has the traceback.",
    }
