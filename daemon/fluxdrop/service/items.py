"""What stages hand to each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.generate.request import Generated
from fluxdrop.jobs.job import Job, StageName
from fluxdrop.predict.bundle import Bundle
from fluxdrop.predict.engine import Engine
from fluxdrop.publish.outcome import Picture

Fail = Callable[[Job, StageName, FluxdropError], None]
"""Ends a job at a stage, for a reason."""


@dataclass(frozen=True, slots=True)
class PromptItem:
    """A job whose picture is to be made."""

    job: Job


@dataclass(frozen=True, slots=True)
class PictureItem:
    """A job whose picture is there; *generated* tells how it was made, if it was."""

    job: Job
    generated: Generated | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A bundle with the engine that runs it."""

    bundle: Bundle
    engine: Engine


@dataclass(frozen=True, slots=True, eq=False)
class TensorItem:
    """A job whose tensor for *model* is there."""

    job: Job
    model: Model
    picture: Picture
    tensor: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class OpenModel:
    """The model that *settings* name is to be opened and then used."""

    settings: Settings
    job: ClassVar[None] = None


@dataclass(frozen=True, slots=True)
class Retire:
    """*model* has come to its end. It passes through the stages in its turn, behind all that was
    prepared for it."""

    model: Model
    job: ClassVar[None] = None


@dataclass(frozen=True, slots=True)
class Swap:
    """From here on, *model* is used. It passes through the stages in its turn, so that each
    picture is predicted by the model that it was prepared for."""

    model: Model
    job: ClassVar[None] = None
