"""The hands of this machine: one generator process."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from fluxdrop import failpoints
from fluxdrop.errors import FluxdropError
from fluxdrop.generate.generator import Generator
from fluxdrop.generate.hands import Died, HostStatus, Made, OnStep, Outcome, Refused, Run
from fluxdrop.generate.messages import GeneratedImage
from fluxdrop.generate.parameters import PromptParameters
from fluxdrop.processes.child import ChildDied


class LocalHands:
    """See `fluxdrop.generate.hands.Hands`."""

    def __init__(self, generator: Generator) -> None:
        """Use *generator*, which belongs to these hands from now on."""
        self._generator = generator
        self._runs: dict[int, Run] = {}
        """The runs in hand, by the generator's numbers."""
        self._ended: list[Outcome] = []
        """Outcomes of runs that could not be begun."""

    @property
    def pid(self) -> int | None:
        """See `Hands.pid`: the generator's."""
        return self._generator.pid

    @property
    def slots(self) -> int:
        """See `Hands.slots`."""
        return self._generator.slots

    @property
    def room(self) -> int:
        """See `Hands.room`."""
        if any(run.alone for run in self._runs.values()):
            return 0
        return max(0, self._generator.room - len(self._ended))

    @property
    def outage(self) -> None:
        """See `Hands.outage`."""
        return

    def batch_key(self, parameters: PromptParameters) -> Hashable:
        """See `Hands.batch_key`."""
        return self._generator.batch_key(parameters)

    def begin(self, run: Run) -> None:
        """See `Hands.begin`."""
        try:
            failpoints.reach("generation-begun")
            self._runs[self._generator.begin(run.orders)] = run
        except ChildDied as error:
            self._ended += [Died(one.id, error) for one in (*self._runs.values(), run)]
            self._runs = {}
        except FluxdropError as error:
            self._ended.append(Refused(run.id, error))

    def finished(self, timeout: float, on_step: OnStep) -> Sequence[Outcome]:
        """See `Hands.finished`."""
        ended, self._ended = self._ended, []
        if ended:
            return ended
        try:
            results = self._generator.finished(
                timeout, lambda number, step, steps: on_step(self._runs[number].id, step, steps)
            )
        except ChildDied as error:
            died = [Died(run.id, error) for run in self._runs.values()]
            self._runs = {}
            return died
        if results:
            failpoints.reach("generation-whole")
        return [self._outcome(self._runs.pop(number), result) for number, result in results.items()]

    def _outcome(self, run: Run, result: list[GeneratedImage] | FluxdropError) -> Outcome:
        return (
            Refused(run.id, result) if isinstance(result, FluxdropError) else Made(run.id, result)
        )

    def cancel(self, run: str) -> None:
        """See `Hands.cancel`: the generator looks at the mark that each order names."""

    def hosts(self) -> list[HostStatus]:
        """See `Hands.hosts`."""
        return []

    def tend(self) -> None:
        """See `Hands.tend`."""
        self._generator.check_health()
        self._generator.stop_if_idle()

    def close(self) -> None:
        """See `Hands.close`."""
        self._runs = {}
        self._ended = []
        self._generator.close()
