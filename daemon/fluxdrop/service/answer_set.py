"""The answers of several models to one picture, which end their job together."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.answer import Answer
from fluxdrop.predict.bundle import Bundle
from fluxdrop.predict.engine import EngineInfo


class Given(NamedTuple):
    """One model's answer."""

    bundle: Bundle
    engine: EngineInfo
    answer: Answer
    milliseconds: float
    """The time that it took, as the picture's share of its batch."""


class AnswerSet:
    """Collects the answers of *count* models to one picture. Any thread may add one."""

    def __init__(self, count: int) -> None:
        self._lock = threading.Lock()
        self._answers: list[Given | FluxdropError | None] = [None] * count
        self._last: int | None = None

    def add(self, number: int, answer: Given | FluxdropError) -> Sequence[Given | FluxdropError]:
        """Add the answer of the model *number*, or why it has none.

        Returns:
            All answers, to the caller that adds the last one, also when it adds it once more; nothing
            to the others.
        """
        with self._lock:
            self._answers[number] = answer
            given = [one for one in self._answers if one is not None]
            if len(given) < len(self._answers):
                return []
            if self._last is None:
                self._last = number
            return given if self._last == number else []
