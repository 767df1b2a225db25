"""The stage that turns pictures into tensors."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fluxdrop import failpoints
from fluxdrop.config import Settings, table_of
from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.files.regular import ALLOW, chunks, open_regular
from fluxdrop.generate.failures import cancelled
from fluxdrop.jobs.crash_suspects import CrashSuspects
from fluxdrop.jobs.fault import Fault
from fluxdrop.jobs.input_names import WHAT_TO_DROP
from fluxdrop.jobs.input_state import InputState, state_of
from fluxdrop.jobs.job import Job, file_sha256
from fluxdrop.jobs.store import Store
from fluxdrop.preprocess.deep import Deep
from fluxdrop.preprocess.geometry import Size
from fluxdrop.preprocess.picture import open_picture
from fluxdrop.preprocess.reduced import SCALES, Reduced, scale_for
from fluxdrop.preprocess.tensor import fit, normalise, npy, shown, to_preview
from fluxdrop.publish.outcome import Picture
from fluxdrop.service.items import Fail, Model, PictureItem, SwapModel, TensorItem, WarmUp
from fluxdrop.service.stages.decoded import Decoded, Decoding, View
from fluxdrop.service.stages.decoding_threads import (
    DecodingThreads,
    PixelBudget,
    end_all,
    result_of,
)
from fluxdrop.service.stages.handler import IDLE_CHECK_SECONDS, Batch, Handler
from fluxdrop.service.stages.model_choice import ModelChoice
from fluxdrop.service.stages.pending_jobs import PendingJobs
from fluxdrop.service.supervision.liveness import report_progress

_COPY_BYTES = 1 << 20
_LARGE_BYTES = 1 << 16
"""A picture file of this size is decoded on a thread of its own."""
# A stronger compression would take longer than all other steps of a small picture, and save little.
_PREVIEW: dict[str, Any] = {"format": "PNG", "compress_type": zlib.Z_RLE}


_Item = PictureItem | SwapModel | WarmUp
_Begun = Decoded | Decoding | SwapModel


class Preprocessing(Handler[_Item]):
    """Makes each picture's tensor for its folder's models, or for the model in use when its turn comes."""

    name = "preprocess"
    # The models that need too much memory end then.
    idle_check_seconds = IDLE_CHECK_SECONDS

    def __init__(
        self,
        settings: Settings,
        store: Store,
        pending: PendingJobs,
        suspects: CrashSuspects,
        choice: ModelChoice,
        *,
        forward: Callable[..., None],
        fail: Fail,
    ) -> None:
        """Set up the stage.

        Args:
            settings: The settings to begin with.
            store: The index, which counts the attempts.
            pending: The jobs that no stage has begun.
            suspects: Notes which job's picture is being decoded.
            choice: Chooses the models of each job.
            forward: Hands items to the stages of their models.
            fail: Ends a job as failed.
        """
        self.batch_size = settings.batch_size
        self._settings = settings
        self._store = store
        self._pending = pending
        self._suspects = suspects
        self._choice = choice
        self._forward = forward
        self._fail = fail
        self._threads = DecodingThreads()
        self._budget = PixelBudget(settings.max_pixels)
        self._decoded: dict[str, Decoded] = {}
        """The decoded pictures of the batch in hand, by job id.

        They are not decoded again when a full disk holds up the steps that follow.
        """

    def apply(self, settings: Settings) -> None:
        """Use *settings* from the next picture on. Any thread may call this."""
        self._settings = settings
        self._budget.most = settings.max_pixels
        self._choice.apply(settings)

    def can_take(self, item: _Item) -> bool:
        """See `Handler.can_take`: a picture waits for room in the stages of its models."""
        if not isinstance(item, PictureItem) or item.job.fault is not None:
            return True
        return self._choice.has_room(item.job)

    def group(self, item: _Item) -> Hashable:
        """See `Handler.group`: pictures for the same models are one batch for them, too."""
        return self._choice.names(item.job) if isinstance(item, PictureItem) else ()

    def handle(self, batch: Batch[_Item]) -> None:
        """See `Handler.handle`: up to `batch_size` items at a time are handed on together.

        The threads decode the next ones while the tensors of some are made.
        """
        items = batch.unsettled
        self._decoded = {key: self._decoded[key] for key in self._decoded.keys() & _job_ids(items)}
        begun: list[_Begun] = []
        try:
            self._begin_all(items, batch, begun)
            while items:
                outgoing = _decoded(begun, batch)
                done, uses_threads = items, any(isinstance(one, Decoding) for one in begun)
                begun = []
                items = batch.take_more(self.batch_size) if uses_threads else []
                self._begin_all(items, batch, begun)
                if outgoing:
                    self._forward(*self._make_tensors(outgoing))
                batch.settle(*done)
                for key in _job_ids(done):
                    self._decoded.pop(key, None)
        finally:
            # A job that is handled again must not be in hand on another thread.
            end_all([one.future for one in begun if isinstance(one, Decoding)])

    def _begin_all(
        self,
        items: Sequence[_Item],
        batch: Batch[_Item],
        begun: list[_Begun],
    ) -> None:
        """Begin *items*, and add them to *begun*."""
        self._count_attempts(items)
        for item in items:
            if isinstance(item, WarmUp):
                self._choice.warm_up(reopen_all=item.reopen_all)
                batch.settle(item)
                continue
            if isinstance(item, SwapModel):
                self._choice.use(item.model)
                begun.append(item)
                continue
            with batch.guard(item):
                begun.append(self._begin(item))

    def on_idle(self) -> None:
        """See `Handler.on_idle`."""
        self._choice.trim()
        self._threads.trim()

    def fail(self, item: _Item, error: FluxdropError) -> None:
        """See `Handler.fail`."""
        if isinstance(item, PictureItem):
            self._decoded.pop(item.job.id, None)
            self._fail(item.job, "intake" if item.job.fault else "preprocess", error)

    def close(self) -> None:
        """End the threads, and close the file of suspects."""
        self._threads.close()
        self._suspects.close()

    def _count_attempts(self, items: Sequence[_Item]) -> None:
        begun = [
            item.job
            for item in items
            if _is_new(item) and not (item.job.attempts or item.job.fault)
        ]
        if begun:
            attempts = self._store.begin_attempt([job.id for job in begun])
            for job in begun:
                job.attempts = attempts[job.id]

    def _begin(self, item: PictureItem) -> Decoded | Decoding:
        """Decode the picture of *item*, or have it decoded on another thread; not if an earlier try did.

        Raises:
            FluxdropError: The picture cannot be decoded, or the job was cancelled.
        """
        job = item.job
        decoded = self._decoded.get(job.id)
        if decoded is not None:
            return decoded
        if job.fault is not None:
            raise _fault_error(job.name, job.fault)
        if _is_new(item) and not self._pending.begin(job):
            raise cancelled()
        before = state_of(job.input)
        decode = partial(self._decode, item, self._choice.models(job), before)
        if _is_new(item) and before is not None and before.size >= _LARGE_BYTES:
            return Decoding(item, self._threads.submit(decode))
        return decode()

    def _decode(
        self, item: PictureItem, models: Sequence[Model], before: InputState | None
    ) -> Decoded:
        """Decode the picture of *item* for *models*; *before* is the state of its input. Any thread may call this.

        Raises:
            FluxdropError: The picture cannot be decoded.
        """
        job = item.job
        with job.timed("preprocess"), self._suspects.over([job]), self._budget.share() as reserve:
            decoded = self._decode_picture(item, models, reserve)
        self._decoded[job.id] = decoded
        if _is_new(item):
            job.input_state = before
            job.was_rewritten = state_of(job.input) != before
        failpoints.reach("decoding-ended")
        return decoded

    def _decode_picture(
        self, item: PictureItem, models: Sequence[Model], reserve: Callable[[int], None]
    ) -> Decoded:
        job = item.job
        source = job.input if item.generated is None else job.image
        failpoints.reach("decoding-begun")
        notes: list[str] = []
        image, file_format = open_picture(
            source,
            max_file_bytes=self._settings.max_file_bytes,
            max_pixels=self._settings.max_pixels,
            name=job.name if source == job.input else "",
            deep=True,
            notes=notes,
            reserve=reserve,
            shrink=self._shrink(job, models),
        )
        job.warnings += [note for note in notes if note not in job.warnings]
        if source == job.input and source.stat().st_nlink > 1:
            # Copy it: a result must not change when somebody writes to the file by its other name.
            _copy(source, job.image, self._settings.max_file_bytes, job.name)
            source = job.image
        digest = self._input_sha256(job) if source == job.input else file_sha256(source)
        if item.generated is None:
            # The picture is the source file itself, whose digest the result names, too.
            job.sha256 = digest
        picture = Picture(
            file=source,
            format=file_format,
            sha256=digest,
            width=image.width,
            height=image.height,
            shape=models[0].bundle.spec.input.shape,
            jpeg_scale=_scale(image, job),
            generated=item.generated,
        )
        views = []
        for number, model in enumerate(models):
            is_recorded = job.options.has_tensor and number == 0
            tensor = _recorded_tensor(job, model) if is_recorded else None
            spec = model.bundle.spec.input
            seen = fit(image, spec) if tensor is None else to_preview(tensor, spec)
            # Keep the source's metadata out of the preview.
            if isinstance(seen, Image.Image):
                seen.info.clear()
            views.append(View(model, seen, tensor))
        return Decoded(job, picture, views)

    def _shrink(self, job: Job, models: Sequence[Model]) -> Callable[[Size], float]:
        """Return what says how many times smaller the JPEG of *job* may be decoded, for all of *models*."""
        own = table_of(self._settings.folders, job.inbox_folder).fast_jpeg
        most = SCALES[0] if (self._settings.fast_jpeg if own is None else own) else 1
        specs = [model.bundle.spec.input for model in models]
        if job.options.has_tensor:
            # The others are to see what the first one saw.
            most, specs = job.options.jpeg_scale, specs[1:]
        return partial(scale_for, specs=specs, most=most)

    def _input_sha256(self, job: Job) -> str:
        # Its size was checked, but whoever dropped it may still have it open and write to it.
        return file_sha256(job.input, self._settings.max_file_bytes, job.name)

    def _make_tensors(self, items: Sequence[Decoded | SwapModel]) -> list[TensorItem | SwapModel]:
        """Make the tensors of *items* and write their files; return the items to hand on.

        Each step is done for all pictures before the next one, which suits a processor's caches
        better than all steps for one picture.
        """
        pictures = [item for item in items if isinstance(item, Decoded)]
        started = time.perf_counter()
        by_model: dict[int, list[View]] = {}
        for view in (view for item in pictures for view in item.views if view.tensor is None):
            by_model.setdefault(id(view.model), []).append(view)
        for new in by_model.values():
            tensors = normalise([view.seen for view in new], new[0].model.bundle.spec.input)
            for number, view in enumerate(new):
                view.tensor = tensors[number : number + 1]
        for item in pictures:
            if not item.job.options.has_tensor:
                # numpy's own writing does not report why a write fails.
                durable.put(item.job.tensor, npy(item.tensor))
                failpoints.reach("tensor-written")
                report_progress()
        for item in pictures:
            png = BytesIO()
            shown(item.views[0].seen).save(png, **_PREVIEW)
            durable.put(item.job.preview, png.getbuffer())
            failpoints.reach("preview-written")
            report_progress()
        milliseconds = (time.perf_counter() - started) * 1000 / max(1, len(pictures))
        for item in pictures:
            spent = item.job.timings_ms["preprocess"] + milliseconds
            item.job.timings_ms["preprocess"] = round(spent, 3)
        outgoing: list[TensorItem | SwapModel] = []
        for one in items:
            outgoing += one.prepared() if isinstance(one, Decoded) else [one]
        return outgoing


def _job_ids(items: Sequence[_Item]) -> set[str]:
    return {item.job.id for item in items if isinstance(item, PictureItem)}


def _decoded(
    begun: Sequence[_Begun],
    batch: Batch[_Item],
) -> list[Decoded | SwapModel]:
    """Wait until all of *begun* are decoded, and return them without those that fail."""
    decoded: list[Decoded | SwapModel] = []
    for one in begun:
        if not isinstance(one, Decoding):
            decoded.append(one)
            continue
        with batch.guard(one.item):
            decoded.append(result_of(one.future))
    return decoded


def _is_new(item: _Item) -> TypeGuard[PictureItem]:
    """Return whether this is the first stage of *item*."""
    return isinstance(item, PictureItem) and item.generated is None


def _fault_error(name: str, fault: Fault) -> FluxdropError:
    """Return the error for an input that the intake found to be faulty."""
    what, hint = {
        "unknown": (
            "is not a kind of file that fluxdrop takes",
            f"Drop {WHAT_TO_DROP}.",
        ),
        "unreadable": ("cannot be read", ALLOW),
        "incomplete": ("is not whole", "Copy or save it again and drop it once more."),
    }[fault.kind]
    return FluxdropError(f"{name} {what}: {fault.reason}", hint=hint, kind=fault.kind)


def _copy(source: Path, target: Path, max_bytes: int, name: str) -> None:
    with (
        open_regular(source, "unreadable", name) as reader,
        os.fdopen(durable.create(target), "wb") as writer,
    ):
        for chunk in chunks(reader, max_bytes, name, _COPY_BYTES):
            writer.write(chunk)


def _scale(image: Image.Image | Deep | Reduced, job: Job) -> int:
    """Return how many times smaller the *image* was decoded of which the tensor of *job* is made, or was."""
    if job.options.has_tensor:
        return job.options.jpeg_scale
    return image.scale if isinstance(image, Reduced) else 1


def _recorded_tensor(job: Job, model: Model) -> NDArray[np.float32]:
    try:
        with open_regular(job.tensor, "tensor") as file:
            tensor: NDArray[np.float32] = np.load(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise FluxdropError(f"The recorded tensor is damaged: {error}", kind="tensor") from error
    wanted = model.bundle.spec.input.shape
    if tensor.shape != wanted or tensor.dtype != np.float32:
        raise FluxdropError(
            f"The recorded tensor is {tensor.dtype} {list(tensor.shape)}, and the model"
            f" {model.bundle.name} wants float32 {list(wanted)}",
            hint="Replay it with --from preprocess.",
            kind="tensor",
        )
    return tensor
