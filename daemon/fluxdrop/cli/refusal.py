"""How a command ends that cannot go on: in one sentence, whatever was in its way."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from itertools import pairwise
from pathlib import Path

from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.files.layout import Root, find_root
from fluxdrop.files.transient import remedy_of
from fluxdrop.jobs.job_id import new_job_id

REFUSED = 2
DEFECT = 70
"""EX_SOFTWARE of sysexits.h."""
_SUFFIX = ".traceback"
_MOST_KEPT = 20


def refuse(error: Exception) -> int:
    """Say on stderr, and with --json on stdout, why the command ends; return its exit code.

    What a person can act on is a refusal. Anything else is a defect of fluxdrop: its traceback goes into a file.
    """
    refusal = _refusal(error)
    print(f"fluxdrop: {refusal}", file=sys.stderr)
    if "--json" in sys.argv:
        facts = {"kind": refusal.kind, "message": refusal.message, "hint": refusal.hint}
        try:
            print(json.dumps({"error": facts}, indent=2, ensure_ascii=False), flush=True)
        except BrokenPipeError:
            # Python would fail to flush it once more when it exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return DEFECT if refusal.kind == "internal" else REFUSED


def _refusal(error: Exception) -> FluxdropError:
    if isinstance(error, FluxdropError):
        return error
    if isinstance(error, OSError):
        return _of_the_disk(error)
    return defect(error, _kept(error))


def defect(error: Exception, hint: str) -> FluxdropError:
    """What a person is told of *error*, which nobody foresaw; *hint* says where its traceback is."""
    what = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    return FluxdropError(
        f"This is a defect of fluxdrop and no fault of yours: {what}", hint=hint, kind="internal"
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
    """Put the traceback of *error* into a file, of the root that the command works on if that takes one; the sentence
    that says which."""
    text = "".join(traceback.format_exception(error))
    try:
        root = _root()
        if root is not None:
            path = root.logs / f"{new_job_id()}{_SUFFIX}"
            durable.write(path, text.encode("utf-8", "backslashreplace"), sync=False)
            _forget_old(root.logs)
            return f"Report it with what {path} says."
    except OSError:
        # As of a root that is read-only, or another user's.
        pass
    try:
        with tempfile.NamedTemporaryFile(
            "w",
            prefix="fluxdrop-",
            suffix=_SUFFIX,
            encoding="utf-8",
            errors="backslashreplace",
            delete=False,
        ) as file:
            file.write(text)
    except OSError:
        return f"Report it with this:\n{text}"
    return f"Report it with what {file.name} says."


def _root() -> Root | None:
    """The root that the command works on, as its options and its environment say; None where there is none."""
    given = None
    for word, after in pairwise([*sys.argv, ""]):
        if word == "--root":
            given = Path(after)
        elif word.startswith("--root="):
            given = Path(word.removeprefix("--root="))
    try:
        return find_root(given, without_inbox=True)
    except (FluxdropError, ValueError):
        return None


def _forget_old(logs: Path) -> None:
    for old in sorted(logs.glob(f"*{_SUFFIX}"))[:-_MOST_KEPT]:
        old.unlink(missing_ok=True)
