"""The daemon's side of image generation, which runs in a child process with torch."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.generate import orders as root_orders
from fluxdrop.generate.messages import GeneratedImage
from fluxdrop.generate.orders import GenerationOrder as GenerationOrder
from fluxdrop.generate.orders import PreparedRun
from fluxdrop.generate.parameters import PromptParameters
from fluxdrop.generate.pipeline_process import (
    OnStep,
    PipelineProcess,
    Result,
    limits_of,
)


class Generator:
    """Makes a root's pictures in a child process.

    Only one thread may use it, and that thread must outlive it: on Linux the child ends with the
    thread that started it.

    Args:
        settings: The pipelines, the folder of LoRAs, and the child's limits of time and memory.
        wait_hook: Called several times a second while a picture is awaited; what it raises ends the
            wait and the child.
    """

    def __init__(self, settings: Settings, wait_hook: Callable[[], None] | None = None) -> None:
        self._settings = settings
        self._process = PipelineProcess(limits_of(settings), wait_hook)
        self._in_hand: dict[int, PreparedRun] = {}
        """The runs that `begin` began, by their numbers."""

    @property
    def pid(self) -> int | None:
        """The child's process id; None while there is no child."""
        return self._process.pid

    @property
    def slots(self) -> int:
        """How many runs the child can work on at once, as far as is known."""
        return self._process.slots

    @property
    def room(self) -> int:
        """How many runs may be begun now."""
        return self._process.room

    def generate(
        self,
        orders: Sequence[GenerationOrder],
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[GeneratedImage]:
        """Make the pictures of *orders* in one run, while no other run is in hand.

        Args:
            orders: At least one order; all have the same `batch_key`.
            on_progress: Called with the number of finished steps and of all steps.

        Returns:
            The pictures, in the order of *orders*.

        Raises:
            FluxdropError: Kind ``prompt``, ``pipeline``, ``memory``, ``compute``, ``cancelled`` or
                ``generator``, when a picture cannot be made.
            ChildDied: When the child ends or does not answer in time. The next call starts another.
        """
        run = root_orders.prepare(self._settings, orders)
        return run.with_warnings(self._process.run(run.load, run.pictures, run.loras, on_progress))

    def begin(self, orders: Sequence[GenerationOrder]) -> int:
        """Begin a run as `generate` does, and return its number; call this only while there is `room`.

        Raises:
            FluxdropError: Kind ``prompt``, ``pipeline`` or ``generator``.
            ChildDied: The child ended, and all the runs in hand with it.
        """
        run = root_orders.prepare(self._settings, orders)
        try:
            number = self._process.begin(run.load, run.pictures, run.loras)
        except BaseException:
            self._in_hand = {}
            raise
        self._in_hand[number] = run
        return number

    def finished(self, timeout: float, on_step: OnStep) -> dict[int, Result]:
        """Wait until a run in hand has ended; see `PipelineProcess.finished`."""
        try:
            ended = self._process.finished(timeout, on_step)
        except BaseException:
            self._in_hand = {}
            raise
        results: dict[int, Result] = {}
        for number, result in ended.items():
            run = self._in_hand.pop(number)
            results[number] = (
                result if isinstance(result, FluxdropError) else run.with_warnings(result)
            )
        return results

    def batch_key(self, parameters: PromptParameters) -> Hashable:
        """Return a key that is equal for pictures that one run of a pipeline can make.

        Raises:
            FluxdropError: Kind ``prompt`` or ``pipeline``, when the picture cannot be made.
        """
        return root_orders.batch_key(self._settings, parameters)

    def check_health(self) -> None:
        """End a child that died, hangs or was stopped; called regularly while no picture is made.

        The next picture starts another.
        """
        self._process.check_health()

    def stop_if_idle(self) -> None:
        """Stop a child that was idle for ``generator_idle_seconds``, to free its memory."""
        self._process.stop_if_idle()

    def close(self) -> None:
        """Stop the child and free its memory; a later call starts another."""
        self._process.close()
