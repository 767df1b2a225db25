"""The stage that turns pictures into tensors."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import numpy as np

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.jobs.job import file_sha256
from fluxdrop.jobs.store import Store
from fluxdrop.preprocess.picture import open_picture
from fluxdrop.preprocess.tensor import to_preview, to_tensor
from fluxdrop.publish.outcome import Picture
from fluxdrop.service.work import Fail, Model, Pictured, Prepared, Swap

_SUFFIXES = {"JPEG": ".jpg", "WEBP": ".webp"}


class Preprocessing:
    """Hands on each picture's tensor, made for the model that is used when its turn comes."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        *,
        hand_on: Callable[[Prepared | Swap], None],
        fail: Fail,
    ) -> None:
        self._settings = settings
        self._store = store
        self._hand_on = hand_on
        self._fail = fail
        self.model: Model | None = None
        """The model in use; it is there before the first picture comes."""

    def work(self, items: list[Pictured | Swap]) -> None:
        """Preprocess each of *items*."""
        for item in items:
            if isinstance(item, Swap):
                self.model = item.model
                self._hand_on(item)
            else:
                self._work(item)

    def _work(self, item: Pictured) -> None:
        try:
            with item.job.timed("preprocess"):
                prepared = self._prepared(item)
        except FluxdropError as error:
            self._fail(item.job, "preprocess", error)
        else:
            self._hand_on(prepared)

    def _prepared(self, item: Pictured) -> Prepared:
        model, job = self.model, item.job
        assert model is not None
        if item.generated is None:
            job.attempts = self._store.begin_attempt([job.id])[job.id]
        source = job.input if item.generated is None else job.image
        image, file_format = open_picture(
            source,
            max_file_bytes=self._settings.max_file_bytes,
            max_pixels=self._settings.max_pixels,
        )
        original = None
        if file_format != "PNG":
            image.save(job.image, format="PNG")
            source, original = job.image, job.input
        elif source == job.input and source.stat().st_nlink > 1:
            # A result must not change when somebody writes to the file under its other name.
            shutil.copyfile(source, job.image)
            source = job.image
        spec = model.bundle.spec.input
        tensor = to_tensor(image, spec)
        np.save(job.tensor, tensor)
        to_preview(tensor, spec).save(job.preview, format="PNG")
        digest = file_sha256(source)
        if item.generated is None and original is None:
            # The picture is the source itself, which the result names with its digest too.
            job.sha256 = digest
        picture = Picture(
            file=source,
            sha256=digest,
            width=image.width,
            height=image.height,
            shape=tensor.shape,
            original=original,
            original_suffix=_SUFFIXES.get(file_format, ""),
            generated=item.generated,
        )
        return Prepared(job, model, picture, tensor)
