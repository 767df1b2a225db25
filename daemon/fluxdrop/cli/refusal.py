"""How a command ends that cannot go on: in one sentence, whatever was in its way."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback

from fluxdrop.errors import FluxdropError
from fluxdrop.passing import remedy_of

REFUSED = 2
DEFECT = 70
"""EX_SOFTWARE of sysexits.h."""


def refuse(error: Exception) -> int:
    """Say on stderr, and with --json on stdout, why the command ends; return its exit code.

    What a person can act on is a refusal. Anything else is a defect of fluxdrop: its traceback goes into a file.
    """
    refusal = _refusal(error)
    print(f"fluxdrop: {refusal}", file=sys.stderr)
    if "--json" in sys.argv:
        facts = {"kind": refusal.kind, "message": refusal.message, "hint": refusal.hint}
        print(json.dumps({"error": facts}, indent=2, ensure_ascii=False))
    return DEFECT if refusal.kind == "internal" else REFUSED


def _refusal(error: Exception) -> FluxdropError:
    if isinstance(error, FluxdropError):
        return error
    if isinstance(error, OSError):
        return _of_the_disk(error)
    what = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    return FluxdropError(
        f"This is a defect of fluxdrop and no fault of yours: {what}",
        hint=_kept(error),
        kind="internal",
    )


def _of_the_disk(error: OSError) -> FluxdropError:
    names = [
        os.fsdecode(name)
        for name in (error.filename, error.filename2)
        if isinstance(name, str | bytes)
    ]
    reason = error.strerror or str(error) or type(error).__name__
    message = f"{' and '.join(names)} cannot be used: {reason}" if names else reason
    return FluxdropError(message, hint=remedy_of(error), kind="disk")


def _kept(error: Exception) -> str:
    """Put the traceback of *error* into a file; the sentence that says which."""
    text = "".join(traceback.format_exception(error))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="fluxdrop-", suffix=".traceback", encoding="utf-8", delete=False
        ) as file:
            file.write(text)
    except OSError:
        return f"Report it with this:\n{text}"
    return f"Report it with what {file.name} says."
