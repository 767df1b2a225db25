"""One job: a claimed input on its way to a result, and the folder that holds all of it."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from fluxdrop.decoders import decoder
from fluxdrop.errors import FluxdropError
from fluxdrop.files.regular import chunks, open_regular
from fluxdrop.generate.request import GenerationRequest
from fluxdrop.jobs.claim import FAULT, Claim, read_claim
from fluxdrop.jobs.fault import Fault, read_fault
from fluxdrop.jobs.input_names import InputKind, kind_of
from fluxdrop.jobs.store import Row
from fluxdrop.printable import printable
from fluxdrop.timestamps import rfc3339

REQUEST = "request.json"
RECORD = "record.json"
CANCELLED = "cancelled"
TENSOR = "tensor.npy"

_CHUNK = 1 << 16
_LONGEST_FAULT = 4096

StageName = Literal["intake", "generate", "preprocess", "predict", "publish"]


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which of the pictures that one file asks for a job makes, counted from 1; *first* is the id
    of the job that makes the first of them."""

    number: int
    of: int
    first: str


class JobRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a command asks beyond the input itself; request.json in the job's folder."""

    replay_of: str | None = None
    generation: GenerationRequest | None = None
    """Wins over what the prompt file says."""
    model: str | None = None
    """The bundle that is to judge the picture, a name or a folder, instead of the one in use."""
    has_tensor: bool = False
    """Whether the tensor lies in the job's folder already, and is not to be made of the picture."""
    part: Part | None = None


_DECODER: msgspec.json.Decoder[JobRequest] = decoder(JobRequest)


def decode_request(data: bytes) -> JobRequest:
    """The request in *data*. Raises msgspec.DecodeError or its subclass ValidationError."""
    return _DECODER.decode(data)


@dataclass(slots=True)
class Job:
    """A job in hand. Its folder is the truth of it; the rest is derived or gathered on the way."""

    id: str
    folder: Path
    source: str
    """The input's path below inbox/, with undecodable bytes and control characters replaced."""
    input: Path
    kind: InputKind | Literal["unknown"]
    request: JobRequest
    created: str
    attempts: int = 0
    fault: Fault | None = None
    """Why the intake says that it has to fail."""
    suspect: bool = False
    """Whether the daemon died over it before."""
    sha256: str | None = None
    prompt: str | None = None
    warnings: list[str] = field(default_factory=list)
    timings_ms: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The input's name in the inbox."""
        return self.source.rpartition("/")[2]

    @property
    def image(self) -> Path:
        """The picture that the job is about: generated, or converted from one that is no PNG."""
        return self.folder / "image.png"

    @property
    def generation(self) -> Path:
        """How the picture was generated; there only after the picture is whole."""
        return self.folder / "generation.json"

    @property
    def tensor(self) -> Path:
        """What the model sees."""
        return self.folder / TENSOR

    @property
    def preview(self) -> Path:
        """What the model sees, to look at."""
        return self.folder / "preview.png"

    @property
    def record(self) -> Path:
        """The result or error JSON."""
        return self.folder / RECORD

    @property
    def cancelled(self) -> Path:
        """There when the job is not wanted any more."""
        return self.folder / CANCELLED

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Take the time that the body takes as *stage*'s, in milliseconds."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.timings_ms[stage] = round((time.perf_counter() - started) * 1000, 3)


def open_job(folder: Path, claim: Claim | None = None) -> Job | None:
    """The job whose *claim*, read from there if it is not given, is in *folder*; None when that holds no input.

    Raises FluxdropError for a request.json that cannot be read.
    """
    claim = claim or read_claim(folder)
    if claim is None:
        return None
    request = JobRequest()
    if REQUEST in claim.others:
        try:
            with open_regular(folder / REQUEST, "request") as file:
                request = decode_request(file.read())
        except msgspec.DecodeError as error:
            raise FluxdropError(f"{folder / REQUEST} is wrong: {error}", kind="request") from error
    return Job(
        id=folder.name,
        folder=folder,
        source=printable(str(claim.source)),
        input=claim.input,
        kind=kind_of(claim.source.name) or "unknown",
        request=request,
        created=_created(folder),
        fault=_fault(folder / FAULT) if FAULT in claim.others else None,
    )


def _fault(path: Path) -> Fault:
    with open_regular(path, "request") as file:
        return read_fault(printable(os.fsdecode(file.read(_LONGEST_FAULT))))


def claimed_row(job: Job) -> Row:
    """What the index has of *job* while it is in hand."""
    try:
        inode = job.input.lstat().st_ino
    except OSError:
        inode = None
    return Row(
        id=job.id,
        state="claimed",
        kind=job.kind,
        source=job.source,
        inode=inode,
        replay_of=job.request.replay_of,
        created=job.created,
    )


def input_sha256(job: Job, most: int) -> str | None:
    """The SHA-256 of the untouched input of *job*, for one that failed; None where it is not to be read: of a
    kind that is not taken, larger than *most* bytes, or not readable."""
    if job.kind == "unknown":
        return None
    try:
        return file_sha256(job.input, most) if job.input.lstat().st_size <= most else None
    except (OSError, FluxdropError):
        return None


def file_sha256(path: Path, most: int = sys.maxsize, name: str = "") -> str:
    """The SHA-256 of the file *path*, which errors call *name*, in hex. Raises what `open_regular` raises, and
    FluxdropError when it has more than *most* bytes: whoever dropped it may still write to it."""
    digest = hashlib.sha256()
    with open_regular(path, "unreadable", name) as file:
        # `hashlib.file_digest` makes a buffer that takes longer than a small file.
        for chunk in chunks(file, most, name or path.name, _CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _created(folder: Path) -> str:
    # The folder is named at the claim, so it knows this also after a restart without its index.
    try:
        moment = datetime.fromisoformat(folder.name.partition("-")[0]).replace(tzinfo=UTC)
    except ValueError:
        moment = datetime.now(UTC)
    return rfc3339(moment)
