"""The hands of this machine: one generator process."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from fluxdrop import failpoints
from fluxdrop.errors import FluxdropError
from fluxdrop.generate.generator import Generator
from fluxdrop.generate.hands import Died, HostStatus, Made, OnStep, Outcome, Refused, Run
from fluxdrop.generate.parameters import PromptParameters
from fluxdrop.processes.child import ChildDied


class LocalHands:
    """See `fluxdrop.generate.hands.Hands`. One run at a time, which `finished` makes."""

    def __init__(self, generator: Generator) -> None:
        """Use *generator*, which belongs to these hands from now on."""
        self._generator = generator
        self._begun: Run | None = None

    @property
    def pid(self) -> int | None:
        """See `Hands.pid`: the generator's."""
        return self._generator.pid

    @property
    def slots(self) -> int:
        """See `Hands.slots`."""
        return 1

    @property
    def room(self) -> int:
        """See `Hands.room`."""
        return 0 if self._begun else 1

    @property
    def outage(self) -> None:
        """See `Hands.outage`."""
        return

    def batch_key(self, parameters: PromptParameters) -> Hashable:
        """See `Hands.batch_key`."""
        return self._generator.batch_key(parameters)

    def begin(self, run: Run) -> None:
        """See `Hands.begin`."""
        self._begun = run

    def finished(self, timeout: float, on_step: OnStep) -> Sequence[Outcome]:
        """See `Hands.finished`: make the pictures of the run that was begun, if any."""
        del timeout
        run, self._begun = self._begun, None
        if run is None:
            return []
        try:
            failpoints.reach("generation-begun")
            images = self._generator.generate(
                run.orders, lambda step, steps: on_step(run.id, step, steps)
            )
            failpoints.reach("generation-whole")
        except ChildDied as error:
            return [Died(run.id, error)]
        except FluxdropError as error:
            return [Refused(run.id, error)]
        return [Made(run.id, images)]

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
        self._begun = None
        self._generator.close()
