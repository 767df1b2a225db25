"""The requests of commands to the daemon that serves a root, and its answers.

A request is a file ID.request.json in .fluxdrop/requests/, moved there whole; its answer is .fluxdrop/answers/ID.json.
A replay is answered only when it is refused: otherwise the job ID is the answer.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from fluxdrop.decoders import decoder
from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.files.layout import REQUEST_SUFFIX, Root, holder
from fluxdrop.files.regular import open_regular
from fluxdrop.files.transient import remedy_of
from fluxdrop.jobs.job_id import NEW_JOB_ID, new_job_id

MAX_BYTES = 64 * 1024
"""The largest request, in bytes."""
MAX_JOBS = 500
"""The most jobs that one request may name."""

_NAME = re.compile(rf"({NEW_JOB_ID}){re.escape(REQUEST_SUFFIX)}")
_POLL_SECONDS = 0.1

Start = Literal["generate", "preprocess", "predict"]
"""The stage with which a replay begins: on the input that was dropped, the recorded picture or the recorded tensor."""

_JobId = Annotated[str, Meta(min_length=1, max_length=100)]
_ModelName = Annotated[str, Meta(min_length=1, max_length=255)]


class ReplayRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="replay"):
    """Do the job `job_id` again from the stage `start` on, with the installed `model` if one is named."""

    job_id: _JobId
    start: Start = "generate"
    model: _ModelName | None = None


class CancelRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="cancel"):
    """Cancel those of the jobs that are unfinished."""

    job_ids: Annotated[list[_JobId], Meta(max_length=MAX_JOBS)]


class ModelRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="model"):
    """Use the installed model `name` from now on."""

    name: _ModelName


Request = ReplayRequest | CancelRequest | ModelRequest


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What became of a request: the facts of an error, or all empty when it was done."""

    kind: str = ""
    message: str = ""
    hint: str = ""


_REQUEST: msgspec.json.Decoder[Request] = decoder(Request)
_ANSWER: msgspec.json.Decoder[Answer] = decoder(Answer)


def ask(root: Root, request: Request) -> str:
    """Leave *request* for the daemon of *root*, which reads it now or at its next start.

    Returns:
        The id of the request.

    Raises:
        FluxdropError: This user may not make requests, or the disk is full or not available.
    """
    name = new_job_id()
    # The daemon does not read dot files.
    unfinished = root.requests / f".{name}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(unfinished, flags, 0o600)
        try:
            # The daemon runs as another user where members of a group make requests.
            os.fchmod(fd, 0o644)
            os.write(fd, msgspec.json.encode(request))
            os.fsync(fd)
            unfinished.rename(_path(root, name))
            # A member of the group may not list the folder, and so cannot sync it.
            os.fsync(fd)
            with suppress(PermissionError):
                durable.sync_folder(root.requests)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
    except OSError as error:
        raise FluxdropError(
            f"{root.requests} takes no request: {error.strerror}",
            hint=(
                "Only the owner of the root may ask this of it, or the group that `fluxdrop init --group` let. "
                if isinstance(error, PermissionError)
                else ""
            )
            + remedy_of(error),
            kind="request",
        ) from error
    return name


def ask_and_wait(root: Root, request: Request, on_wait: Callable[[], None]) -> None:
    """Make *request* of the daemon that serves *root*, and wait for its answer.

    Args:
        root: The root.
        request: A request that is always answered, so no replay.
        on_wait: Called about ten times a second meanwhile.

    Raises:
        FluxdropError: The daemon refuses the request, none serves *root*, or it ends meanwhile.
    """
    served = holder(root)
    name = ask(root, request)
    while (answer := answer_to(root, name)) is None:
        # Another daemon may serve the root by now; what the first had read is lost.
        if served is None or holder(root) != served:
            with suppress(OSError):
                _path(root, name).unlink()
            raise FluxdropError(f"No daemon serves {root.path}", kind="not-running")
        on_wait()
        time.sleep(_POLL_SECONDS)
    if answer.kind:
        raise refusal(answer)


def ask_to_cancel(root: Root, job_ids: Sequence[str], on_wait: Callable[[], None]) -> None:
    """Cancel the jobs *job_ids*, any number of them. Takes and raises what `ask_and_wait` does."""
    for first in range(0, len(job_ids), MAX_JOBS):
        request = CancelRequest(list(job_ids[first : first + MAX_JOBS]))
        ask_and_wait(root, request, on_wait)


def answer_to(root: Root, request_id: str) -> Answer | None:
    """Return the answer to the request *request_id*; None while there is none.

    Raises:
        FluxdropError: The answer cannot be read.
    """
    path = root.answers / f"{request_id}.json"
    try:
        return _ANSWER.decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise FluxdropError(f"{path} cannot be read: {error}", kind="request") from error


def refusal(answer: Answer) -> FluxdropError:
    """Return the *answer*, which tells of an error, as that error."""
    return FluxdropError(answer.message, hint=answer.hint, kind=answer.kind)


def id_of(name: str) -> str | None:
    """Return the id of the request in a file called *name*; None if no request has such a name."""
    found = _NAME.fullmatch(name)
    return found[1] if found else None


def read_request(root: Root, request_id: str) -> Request:
    """Return the request *request_id*.

    All that is known of its file is its name, so this is where its kind, size and form are checked.

    Raises:
        FluxdropError: It is not a regular file, larger than `MAX_BYTES`, or no request that this version knows.
        OSError: The disk is full or not available.
    """
    with open_regular(_path(root, request_id), "request") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise FluxdropError(f"It is larger than {MAX_BYTES:,} bytes", kind="request")
    try:
        return _REQUEST.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, MemoryError) as error:
        raise FluxdropError(
            f"It is not a request that this version of fluxdrop understands: {error}",
            hint="Ask with the fluxdrop whose daemon runs.",
            kind="request",
        ) from error


def forget_request(root: Root, request_id: str) -> None:
    """Remove the request *request_id*, if it is there. Raises OSError."""
    _path(root, request_id).unlink(missing_ok=True)


def _path(root: Root, request_id: str) -> Path:
    return root.requests / f"{request_id}{REQUEST_SUFFIX}"
