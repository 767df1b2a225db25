"""Hands of a cluster as a test wants it: runs end when and as the test says."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence

import msgspec

from fluxdrop.generate.hands import HostStatus, Made, OnStep, Outcome, Run
from fluxdrop.generate.messages import GeneratedImage
from fluxdrop.generate.parameters import PromptParameters
from support import jobs

Answer = Callable[[Run], list[Outcome]]


class TestHands:
    """Hands with *slots* slots, which ask *answers*, one after the other, for the outcomes of the runs in hand.

    Each call of `finished` ends the run that was begun first; when no answer is left, it is made.
    """

    __test__ = False
    pid = 4711

    def __init__(self, png: bytes, slots: int, *answers: Answer) -> None:
        self.slots = slots
        self.outage: str | None = None
        self.begun: list[Run] = []
        """Every run that was begun."""
        self.in_hand: deque[Run] = deque()
        self.most = 0
        """How many runs were in hand at most."""
        self.cancelled: list[str] = []
        self.closes = 0
        self.on_wait: Callable[[], object] = lambda: None
        """Called when outcomes are waited for."""
        self._png = png
        self._answers = deque(answers)

    @property
    def room(self) -> int:
        """See `Hands.room`."""
        return 0 if self.outage else self.slots - len(self.in_hand)

    def batch_key(self, parameters: PromptParameters) -> Hashable:
        """See `Hands.batch_key`: pictures of the same size are made together."""
        return parameters.width

    def begin(self, run: Run) -> None:
        """See `Hands.begin`."""
        assert self.room > 0
        self.begun.append(run)
        self.in_hand.append(run)
        self.most = max(self.most, len(self.in_hand))

    def finished(self, timeout: float, on_step: OnStep) -> Sequence[Outcome]:
        """See `Hands.finished`."""
        del timeout
        self.on_wait()
        for run in self.in_hand:
            on_step(run.id, 1, 2)
        if not self.in_hand:
            return []
        run = self.in_hand.popleft()
        return self._answers.popleft()(run) if self._answers else [self.made(run)]

    def made(self, run: Run, host: str = "first") -> Made:
        """The outcome of *run* when *host* made it."""
        return Made(run.id, [self._image(order.parameters) for order in run.orders], host, "cpu")

    def cancel(self, run: str) -> None:
        """See `Hands.cancel`."""
        self.cancelled.append(run)

    def hosts(self) -> list[HostStatus]:
        """See `Hands.hosts`."""
        return [HostStatus(name="first", state="ready")]

    def tend(self) -> None:
        """See `Hands.tend`."""

    def close(self) -> None:
        """See `Hands.close`."""
        self.closes += 1

    def _image(self, parameters: PromptParameters) -> GeneratedImage:
        assert parameters.seed is not None
        used = msgspec.structs.replace(
            jobs.GENERATED.parameters, prompt=parameters.prompt, seed=parameters.seed
        )
        return GeneratedImage(self._png, msgspec.structs.replace(jobs.GENERATED, parameters=used))
