"""The rows that every benchmark gives."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import NamedTuple


class Row(NamedTuple):
    """One figure: *target* is what it should be, *met* whether it is.

    What cannot be measured here has neither, and *unit* says why.
    """

    what: str
    target: str
    figure: float | None
    unit: str
    met: bool | None

    def cells(self) -> tuple[str, str, str, str]:
        """What, target, figure with its unit, and verdict."""
        if self.figure is None:
            return self.what, self.target, "", self.unit
        figure = f"{self.figure:.3g} {self.unit}"
        return self.what, self.target, figure, "met" if self.met else "not met"


def without_flux(what: str, target: str) -> Row:
    """The row of what only a machine with Flux can measure."""
    return Row(what, target, None, "not measured: Flux is not here", None)


def seconds(work: Callable[[], object], times: int) -> float:
    """The median time of one call of *work* in *times* calls."""
    taken = []
    for _ in range(times):
        started = perf_counter()
        work()
        taken.append(perf_counter() - started)
    return median(taken)
