"""The stage that turns pictures into tensors."""

from __future__ import annotations

import shutil
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fluxdrop import durable, faults
from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.jobs.danger import Danger
from fluxdrop.jobs.job import Job, file_sha256
from fluxdrop.jobs.store import Store
from fluxdrop.preprocess.picture import open_picture
from fluxdrop.preprocess.tensor import fit, normalise, npy, to_preview
from fluxdrop.publish.outcome import Picture
from fluxdrop.service.pulse import moved_on
from fluxdrop.service.waiting import Waiting
from fluxdrop.service.work import Fail, Model, Pictured, Prepared, Retire, Swap

# A stronger compression would take longer than all else of a small picture, and save little of it.
_PREVIEW: dict[str, Any] = {"format": "PNG", "compress_type": zlib.Z_RLE}
_SUFFIXES = {"JPEG": ".jpg", "WEBP": ".webp"}


@dataclass(slots=True)
class _Opened:
    """A job whose picture was decoded: *seen* is what the model sees of it, before it is a tensor."""

    job: Job
    model: Model
    picture: Picture
    seen: Image.Image
    tensor: NDArray[np.float32] | None

    def prepared(self) -> Prepared:
        assert self.tensor is not None
        return Prepared(self.job, self.model, self.picture, self.tensor)


class Preprocessing:
    """Hands on each picture's tensor, made for the model that is used when its turn comes."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        waiting: Waiting,
        danger: Danger,
        *,
        open_further: Callable[[str], Model],
        hand_on: Callable[[list[Prepared | Retire | Swap]], None],
        fail: Fail,
    ) -> None:
        self._settings = settings
        self._store = store
        self._waiting = waiting
        self._danger = danger
        self._open_further = open_further
        self._hand_on = hand_on
        self._opened: list[_Opened | Retire | Swap] = []
        self._fail = fail
        self.model: Model | None = None
        """The model in use; it is there before the first picture comes."""
        self.further: tuple[str, Model] | None = None
        """The model beside it that a job named last, and how that job named it."""

    def apply(self, settings: Settings) -> None:
        """Use these settings from the next picture on."""
        self._settings = settings

    def work(self, items: list[Pictured | Swap]) -> None:
        """Preprocess *items*, taking out what has failed or is open, and hand on all at once. What is open
        is finished by another call, if a disk is in the way of this one.
        """
        self._begin(items)
        while items:
            item = items[0]
            if isinstance(item, Swap):
                self.model = item.model
                self._opened.append(item)
            else:
                self._open(item)
            del items[0]
            moved_on()
        self._hand_on(self._finished())
        self._opened.clear()

    def close(self) -> None:
        """Let go of what it holds."""
        self._danger.close()

    def _begin(self, items: list[Pictured | Swap]) -> None:
        """Take out of *items* what was cancelled, and count an attempt at what has had none."""
        items[:] = [item for item in items if not _is_new(item) or self._waiting.begin(item.job)]
        begun = [item.job for item in items if _is_new(item) and not item.job.attempts]
        if begun:
            attempts = self._store.begin_attempt([job.id for job in begun])
            for job in begun:
                job.attempts = attempts[job.id]

    def _open(self, item: Pictured) -> None:
        try:
            with item.job.timed("preprocess"), self._danger.over([item.job]):
                opened = self._picture(item)
            faults.point("decoding-ended")
        except FluxdropError as error:
            self._fail(item.job, "preprocess", error)
        else:
            self._opened.append(opened)

    def _picture(self, item: Pictured) -> _Opened:
        job = item.job
        model = self._model_for(job)
        source = job.input if item.generated is None else job.image
        faults.point("decoding-begun")
        image, file_format = open_picture(
            source,
            max_file_bytes=self._settings.max_file_bytes,
            max_pixels=self._settings.max_pixels,
            name=job.name if source == job.input else "",
        )
        original = None
        if file_format != "PNG":
            image.save(job.image, format="PNG")
            faults.point("picture-converted")
            source, original = job.image, job.input
        elif source == job.input and source.stat().st_nlink > 1:
            # A result must not change when somebody writes to the file under its other name.
            shutil.copyfile(source, job.image)
            source = job.image
        digest = file_sha256(source)
        if item.generated is None and original is None:
            # The picture is the source itself, which the result names with its digest too.
            job.sha256 = digest
        spec = model.bundle.spec.input
        picture = Picture(
            file=source,
            sha256=digest,
            width=image.width,
            height=image.height,
            shape=spec.shape,
            original=original,
            original_suffix=_SUFFIXES.get(file_format, ""),
            generated=item.generated,
        )
        tensor = _recorded(job, model) if job.request.has_tensor else None
        seen = fit(image, spec) if tensor is None else to_preview(tensor, spec)
        # What the source says of itself stays with the source.
        seen.info.clear()
        return _Opened(job, model, picture, seen, tensor)

    def _finished(self) -> list[Prepared | Retire | Swap]:
        """What is open, with its tensor and with its files: one step for all pictures after the other,
        which a processor likes better than all steps for one picture.
        """
        pictures = [item for item in self._opened if isinstance(item, _Opened)]
        started = time.perf_counter()
        for model, group in groupby(pictures, key=lambda item: item.model):
            new = [item for item in group if item.tensor is None]
            if new:
                tensors = normalise([item.seen for item in new], model.bundle.spec.input)
                for number, item in enumerate(new):
                    item.tensor = tensors[number : number + 1]
        for item in pictures:
            if not item.job.request.has_tensor:
                # numpy's own writing says nothing of why a disk takes no more.
                durable.put(item.job.tensor, npy(item.prepared().tensor))
                faults.point("tensor-written")
                moved_on()
        for item in pictures:
            png = BytesIO()
            item.seen.save(png, **_PREVIEW)
            durable.put(item.job.preview, png.getbuffer())
            faults.point("preview-written")
            moved_on()
        milliseconds = (time.perf_counter() - started) * 1000 / max(1, len(pictures))
        for item in pictures:
            spent = item.job.timings_ms["preprocess"] + milliseconds
            item.job.timings_ms["preprocess"] = round(spent, 3)
        return [item.prepared() if isinstance(item, _Opened) else item for item in self._opened]

    def _model_for(self, job: Job) -> Model:
        assert self.model is not None
        name = job.request.model
        if name is None or name == self.model.bundle.name:
            return self.model
        if self.further is None or self.further[0] != name:
            model = self._open_further(name)
            if self.further is not None:
                self._opened.append(Retire(self.further[1]))
            self.further = name, model
        return self.further[1]


def _is_new(item: Pictured | Swap) -> TypeGuard[Pictured]:
    """Whether *item* meets its first stage here."""
    return isinstance(item, Pictured) and item.generated is None


def _recorded(job: Job, model: Model) -> NDArray[np.float32]:
    try:
        tensor: NDArray[np.float32] = np.load(job.tensor, allow_pickle=False)
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
