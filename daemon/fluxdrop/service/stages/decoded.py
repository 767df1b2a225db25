"""Pictures between decoding and the making of their tensors."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fluxdrop.jobs.job import Job
from fluxdrop.preprocess.deep import Deep
from fluxdrop.publish.outcome import Picture
from fluxdrop.service.answer_set import AnswerSet
from fluxdrop.service.items import Model, PictureItem, TensorItem


@dataclass(slots=True)
class View:
    """A picture as one model sees it."""

    model: Model
    seen: Image.Image | Deep
    """The picture before it becomes a tensor."""
    tensor: NDArray[np.float32] | None
    """The tensor; None until it is made."""


@dataclass(slots=True)
class Decoded:
    """A job whose picture was decoded."""

    job: Job
    picture: Picture
    views: list[View]
    """One for each model that is to answer. The files in the job's folder are the first one's."""

    @property
    def tensor(self) -> NDArray[np.float32]:
        """The first model's tensor, which was made."""
        tensor = self.views[0].tensor
        assert tensor is not None
        return tensor

    def prepared(self) -> list[TensorItem]:
        """Return the items for the models' stages, once the tensors are made."""
        answers = AnswerSet(len(self.views)) if len(self.views) > 1 else None
        items = []
        for number, view in enumerate(self.views):
            assert view.tensor is not None
            items.append(
                TensorItem(self.job, view.model, self.picture, view.tensor, answers, number)
            )
        return items


@dataclass(slots=True)
class Decoding:
    """A picture that another thread decodes."""

    item: PictureItem
    future: Future[Decoded]
