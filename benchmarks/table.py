"""The rows that every benchmark gives."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import NamedTuple


class Row(NamedTuple):
    """One figure: *target* is what it should be, *met* whether it is."""

    what: str
    target: str
    figure: float
    unit: str
    met: bool


def seconds(work: Callable[[], object], times: int) -> float:
    """The median time of one call of *work* in *times* calls."""
    taken = []
    for _ in range(times):
        started = perf_counter()
        work()
        taken.append(perf_counter() - started)
    return median(taken)
