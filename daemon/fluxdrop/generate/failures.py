"""What went wrong in the generator process, as a FAILURE frame's facts: never a traceback."""

from __future__ import annotations

from fluxdrop.errors import FluxdropError


def out_of_memory(error: BaseException) -> bool:
    """Whether *error* says that the machine's or the accelerator's memory ran out."""
    # torch has a class of its own for accelerators, but a plain RuntimeError for the CPU.
    names = {cls.__name__ for cls in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def cancelled() -> FluxdropError:
    """What ends a picture that is not wanted any more."""
    return FluxdropError(
        "It was cancelled.", hint="Drop it once more to have it done.", kind="cancelled"
    )


def device_lost(error: BaseException) -> bool:
    """Whether *error* left the accelerator unusable for this process, as CUDA's own errors do."""
    return type(error).__name__ == "AcceleratorError"


def first_line(error: BaseException) -> str:
    """The first line of what *error* says, or its class where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


def facts(error: Exception) -> dict[str, str]:
    """The facts of the FAILURE frame that answers a request with *error*."""
    if isinstance(error, FluxdropError):
        return {"kind": error.kind, "message": error.message, "hint": error.hint}
    if out_of_memory(error):
        return {
            "kind": "memory",
            "message": "The memory does not suffice for this picture.",
            "hint": "Ask for a smaller Size, or take a smaller pipeline.",
        }
    return {
        "kind": "compute",
        "message": f"The picture could not be made: {type(error).__name__}: {first_line(error)}",
        "hint": "The log has the traceback.",
    }
