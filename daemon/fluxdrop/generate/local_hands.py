"""The hands of this machine: one generator process."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from fluxdrop import failpoints
from fluxdrop.errors import FluxdropError
from fluxdrop.generate.generator import Generator
from fluxdrop.generate.hands import (
    Died,
    HostLost,
    HostStatus,
    Made,
    OnStep,
    Outcome,
    Refused,
    Run,
)
from fluxdrop.generate.parameters import PromptParameters
from fluxdrop.generate.pipeline_process import Result
from fluxdrop.processes.child import ChildDied


class LocalHands:
    """See `fluxdrop.generate.hands.Hands`. A generator makes several small pictures at a time on a CPU."""

    def __init__(self, generator: Generator) -> None:
        """Use *generator*, which belongs to these hands from now on."""
        self._generator = generator
        self._runs: dict[int, Run] = {}
        """The runs in hand, by the generator's numbers."""
        self._ended: list[Outcome] = []
        """Outcomes of runs that could not be begun."""
        self._suspects = 0
        """How many runs have to end well, one at a time, before several are made at a time again."""

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
        in_hand = len(self._runs) + len(self._ended)
        if self._suspects or any(run.alone for run in self._runs.values()):
            return 0 if in_hand else 1
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
        failpoints.reach("generation-begun")
        try:
            self._runs[self._generator.begin(run.orders)] = run
        except ChildDied as error:
            self._ended += self._died([*self._runs.values(), run], error)
        except FluxdropError as error:
            self._ended.append(Refused(run.id, error))

    def finished(self, timeout: float, on_step: OnStep) -> Sequence[Outcome]:
        """See `Hands.finished`."""
        if self._ended:
            ended, self._ended = self._ended, []
            return ended
        try:
            results = self._generator.finished(
                timeout, lambda number, step, steps: on_step(self._runs[number].id, step, steps)
            )
        except ChildDied as error:
            return self._died(list(self._runs.values()), error)
        except BaseException:
            self._runs = {}
            raise
        if results:
            failpoints.reach("generation-whole")
        return [self._outcome(self._runs.pop(number), result) for number, result in results.items()]

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
        self._runs, self._ended = {}, []
        self._generator.close()

    def _outcome(self, run: Run, result: Result) -> Outcome:
        if isinstance(result, ChildDied):
            return Died(run.id, result)
        self._suspects = max(0, self._suspects - 1)
        if isinstance(result, FluxdropError):
            return Refused(run.id, result)
        return Made(run.id, result)

    def _died(self, runs: Sequence[Run], error: ChildDied) -> list[Outcome]:
        """Return the outcomes of the *runs* that were in hand when the whole generator died.

        One of several is to blame, but not known: they are made once more, one at a time.
        """
        self._runs = {}
        if len(runs) == 1:
            return [Died(runs[0].id, error)]
        self._suspects = len(runs)
        return [HostLost(run.id, "", error.message) for run in runs]
