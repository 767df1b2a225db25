"""The items that stages pass to each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fluxdrop.config import Settings
from fluxdrop.config.tables import SortByLabel
from fluxdrop.errors import FluxdropError
from fluxdrop.generate.parameters import Generated
from fluxdrop.jobs.job import Job, StageName
from fluxdrop.predict.bundle import Bundle
from fluxdrop.predict.engine import Engine
from fluxdrop.publish.outcome import Picture
from fluxdrop.service.answer_set import AnswerSet

Fail = Callable[[Job, StageName, FluxdropError], None]
"""Ends a job as failed: takes the job, the stage at which it failed, and the reason."""


@dataclass(frozen=True, slots=True)
class PromptItem:
    """A job whose picture has to be generated."""

    job: Job


@dataclass(frozen=True, slots=True)
class PictureItem:
    """A job whose picture exists."""

    job: Job
    generated: Generated | None = None
    """How the picture was generated; None if it was dropped."""


class ResultOptions(NamedTuple):
    """What becomes of a result."""

    max_labels: int = 0
    """How many labels it lists at most; 0 for all."""
    sort_by_label: SortByLabel = "none"
    """How the picture appears below outputs/by-label/, too."""


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A model bundle with the engine that runs it."""

    bundle: Bundle
    engine: Engine


@dataclass(frozen=True, slots=True, eq=False)
class TensorItem:
    """A job whose picture was turned into a tensor for *model*."""

    job: Job
    model: Model
    picture: Picture
    tensor: NDArray[np.float32]
    answers: AnswerSet | None = None
    """Where the answer goes if other models answer, too; None if this one alone does."""
    number: int = 0
    """Which of `answers` it is."""


@dataclass(frozen=True, slots=True)
class OpenModel:
    """An order to open the model that *settings* name and then to use it."""

    settings: Settings
    job: ClassVar[None] = None


@dataclass(frozen=True, slots=True)
class WarmUp:
    """An order to open the models of the folders, after those that changed were closed."""

    reopen_all: bool
    """Whether those that did not change are closed, too, because their engine's settings did."""
    job: ClassVar[None] = None


@dataclass(frozen=True, slots=True)
class SwapModel:
    """An order to use *model* from here on.

    It passes through the stages in order, so that each picture is predicted by the model that its
    tensor was made for.
    """

    model: Model
    job: ClassVar[None] = None
