"""A job, which turns one claimed input into a result, and the job's folder."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from fluxdrop.decoders import decoder
from fluxdrop.errors import FluxdropError
from fluxdrop.files.regular import chunks, open_regular
from fluxdrop.generate.parameters import PromptParameters
from fluxdrop.jobs.claim import FAULT, Claim, read_claim
from fluxdrop.jobs.fault import Fault, read_fault
from fluxdrop.jobs.input_names import InputKind, kind_of
from fluxdrop.jobs.input_state import InputState
from fluxdrop.jobs.job_id import claim_time
from fluxdrop.jobs.seeds import seed_among
from fluxdrop.jobs.store import Row
from fluxdrop.printable import printable

OPTIONS = "options.json"
_EARLIER_OPTIONS = "request.json"
"""The name of the same file in a job that an earlier fluxdrop left in hand."""
RECORD = "record.json"
CANCELLED = "cancelled"
TENSOR = "tensor.npy"
GENERATION = "generation.json"

_CHUNK_BYTES = 1 << 16
_MAX_FAULT_BYTES = 4096

StageName = Literal["intake", "generate", "preprocess", "predict", "publish"]


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which of the pictures that one file asks for a job makes.

    *number* counts from 1 up to *of*; *first* is the id of the job that makes the first picture.
    """

    number: int
    of: int
    first: str


JpegScale = Annotated[int, Meta(ge=1, le=8)]
"""How many times smaller than it is a JPEG was decoded, by the setting ``fast_jpeg``; 1 is all of it."""


class JobOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a job differs from that of a file which was just dropped: options.json in the job's folder."""

    replay_of: str | None = None
    generation: PromptParameters | None = None
    """Overrides the prompt file."""
    model: str | None = None
    """The model bundle to use instead of the one in use, a name or a folder."""
    has_tensor: bool = False
    """Whether the job's folder already has the tensor, so that preprocessing is skipped."""
    jpeg_scale: JpegScale = 1
    """That of the tensor which the job's folder has."""
    part: Part | None = None
    host_class: str | None = None
    """The class of the host that generated the picture before: one of that class can make the same bytes."""


_DECODER: msgspec.json.Decoder[JobOptions] = decoder(JobOptions)


def decode_options(data: bytes) -> JobOptions:
    """Decode the options of a job.

    Raises:
        msgspec.DecodeError: *data* is not JSON. The subclass ValidationError: it is not options.
    """
    return _DECODER.decode(data)


@dataclass(slots=True)
class Job:
    """An unfinished job. Its folder is authoritative; the attributes are derived or collected from it."""

    id: str
    folder: Path
    source: str
    """The input's path below inbox/, made printable."""
    input: Path
    kind: InputKind | Literal["unknown"]
    options: JobOptions
    created: str
    attempts: int = 0
    fault: Fault | None = None
    """Why the intake found that the job has to fail."""
    input_state: InputState | None = None
    """The state of the input when it was taken or, for a picture, decoded."""
    was_rewritten: bool = False
    """Whether the input was written to while it was read."""
    suspect: bool = False
    """Whether an earlier daemon died while it had this job in hand."""
    seed: int | None = None
    """The seed that was drawn for its picture (`fluxdrop.jobs.seeds`)."""
    inbox_folder: str | None = None
    """The name of the table ``[folders."NAME"]`` that applies to the input."""
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
        """The picture: generated, or copied from an input that has further names."""
        return self.folder / "image.png"

    @property
    def generation(self) -> Path:
        """How the picture was generated. The file appears only after the picture is complete."""
        return self.folder / GENERATION

    @property
    def tensor(self) -> Path:
        """The tensor that the model gets."""
        return self.folder / TENSOR

    @property
    def preview(self) -> Path:
        """The tensor as a picture for people."""
        return self.folder / "preview.png"

    def embedding(self, number: int = 0) -> Path:
        """Return the path of the vector that an embedding model gave, of several models that with this *number*."""
        return self.folder / f"embedding{number or ''}.npy"

    @property
    def record(self) -> Path:
        """The result or error JSON."""
        return self.folder / RECORD

    @property
    def cancelled(self) -> Path:
        """A file that exists if the job is cancelled."""
        return self.folder / CANCELLED

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Record the milliseconds that the body takes in `timings_ms` under *stage*."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.timings_ms[stage] = round((time.perf_counter() - started) * 1000, 3)


def open_job(folder: Path, claim: Claim | None = None) -> Job | None:
    """Open the job in *folder*; return None if there is no input in it.

    *claim* is read from the folder unless it is given.

    Raises:
        FluxdropError: The job's options.json is wrong, or is not a readable regular file.
    """
    claim = claim or read_claim(folder)
    if claim is None:
        return None
    options = JobOptions()
    path = next(
        (folder / name for name in (OPTIONS, _EARLIER_OPTIONS) if name in claim.others), None
    )
    if path is not None:
        try:
            with open_regular(path, "options") as file:
                options = decode_options(file.read())
        except msgspec.DecodeError as error:
            raise FluxdropError(f"{path} is wrong: {error}", kind="options") from error
    return Job(
        id=folder.name,
        folder=folder,
        source=printable(str(claim.source)),
        input=claim.input,
        kind=kind_of(claim.source.name) or "unknown",
        options=options,
        created=claim_time(folder.name),
        fault=_fault(folder / FAULT) if FAULT in claim.others else None,
        seed=seed_among(claim.others),
    )


def _fault(path: Path) -> Fault:
    with open_regular(path, "fault") as file:
        return read_fault(printable(os.fsdecode(file.read(_MAX_FAULT_BYTES))))


def claimed_row(job: Job) -> Row:
    """Return the index's row for *job* while it is unfinished."""
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
        replay_of=job.options.replay_of,
        created=job.created,
    )


def input_sha256(job: Job, max_bytes: int) -> str | None:
    """Return the SHA-256 of the untouched input of a failed job, in hex.

    It is None for an input that is not read: of unknown kind, larger than *max_bytes* or unreadable.
    """
    if job.kind == "unknown":
        return None
    try:
        return file_sha256(job.input, max_bytes) if job.input.lstat().st_size <= max_bytes else None
    except (OSError, FluxdropError):
        return None


def file_sha256(path: Path, max_bytes: int = sys.maxsize, name: str = "") -> str:
    """Return the SHA-256 of a file, in hex.

    Args:
        path: The file.
        max_bytes: The most bytes that it may have. Whoever dropped it may still write to it.
        name: What errors call it; its own name by default.

    Raises:
        FluxdropError: It is not a readable regular file, or is too large; kind ``unreadable``.
        OSError: The filesystem failed.
    """
    digest = hashlib.sha256()
    with open_regular(path, "unreadable", name) as file:
        # The buffer of `hashlib.file_digest` takes longer to make than a small file takes to read.
        for chunk in chunks(file, max_bytes, name or path.name, _CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
