"""Report the error that ends a command, in one sentence."""

from __future__ import annotations

import json
import os
import re
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
from fluxdrop.printable import printable

REFUSED = 2
"""The exit code for an error that the user can act on."""
DEFECT = 70
"""The exit code for a defect of fluxdrop: EX_SOFTWARE of sysexits.h."""
_SUFFIX = ".traceback"
_LINE_BREAKS = re.compile(r"\s*\n\s*")
_MAX_KEPT = 20


def refuse(error: Exception) -> int:
    """Print why the command ends to stderr, and with --json to stdout too; return its exit code.

    `FluxdropError` and OSError are reported with what the user can do. Anything else is a defect of
    fluxdrop, and its traceback is written to a file.

    Returns:
        `DEFECT` for a defect, else `REFUSED`.
    """
    refusal = _to_fluxdrop_error(error)
    print(f"fluxdrop: {_line(refusal)}", file=sys.stderr)
    if "--json" in sys.argv:
        print_as_json(refusal)
    return DEFECT if refusal.kind == "internal" else REFUSED


def _line(refusal: FluxdropError) -> str:
    """Return what *refusal* says on one line, as names and values in it may be those of strangers.

    The traceback of a defect stays as it is.
    """
    if refusal.kind == "internal":
        return str(refusal)
    return printable(_LINE_BREAKS.sub(" ", str(refusal)))


def print_as_json(error: FluxdropError) -> None:
    """Print *error* to stdout as a JSON object. Do nothing if nobody reads it."""
    facts = {"kind": error.kind, "message": error.message, "hint": error.hint}
    text = json.dumps({"error": facts}, indent=2, ensure_ascii=False)
    try:
        # Python has the bytes of an argument that are not UTF-8 as surrogates, which cannot be printed.
        print(text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"), flush=True)
    except BrokenPipeError:
        # Python would fail to flush it once more when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _to_fluxdrop_error(error: Exception) -> FluxdropError:
    if isinstance(error, FluxdropError):
        return error
    if isinstance(error, OSError):
        return _filesystem_error(error)
    return defect(error, _save_traceback(error))


def defect(error: Exception, hint: str) -> FluxdropError:
    """Return the error to report for *error*, which is a defect; *hint* says where its traceback is."""
    what = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    return FluxdropError(
        f"This is a defect of fluxdrop, not a mistake of yours: {what}", hint=hint, kind="internal"
    )


def _filesystem_error(error: OSError) -> FluxdropError:
    names = [
        os.fsdecode(name)
        for name in (error.filename, error.filename2)
        if isinstance(name, str | bytes)
    ]
    reason = error.strerror or str(error) or type(error).__name__
    message = f"{' and '.join(names)} cannot be used: {reason}" if names else reason
    return FluxdropError(message, hint=remedy_of(error), kind="disk")


def _save_traceback(error: Exception) -> str:
    """Write the traceback of *error* to a file; return the sentence that says which.

    The file is in the logs of the command's root if there is one that can be written, else in the
    temporary folder. If neither can be written, the sentence has the traceback.
    """
    text = "".join(traceback.format_exception(error))
    try:
        root = _root_of_command()
        if root is not None:
            path = root.logs / f"{new_job_id()}{_SUFFIX}"
            durable.write(path, text.encode("utf-8", "backslashreplace"), sync=False)
            _remove_old(root.logs)
            return f"Report it and attach {path}."
    except OSError:
        # The root may be read-only, or another user's.
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
    return f"Report it and attach {file.name}."


def _root_of_command() -> Root | None:
    """Return the root of --root, the environment or the working folder; None if there is none."""
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


def _remove_old(logs: Path) -> None:
    for old in sorted(logs.glob(f"*{_SUFFIX}"))[:-_MAX_KEPT]:
        old.unlink(missing_ok=True)
