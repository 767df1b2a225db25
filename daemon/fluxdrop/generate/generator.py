"""The daemon's side of image generation, which runs in a child process with torch."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from fluxdrop.config import Settings
from fluxdrop.generate import orders as root_orders
from fluxdrop.generate.messages import GeneratedImage
from fluxdrop.generate.orders import GenerationOrder as GenerationOrder
from fluxdrop.generate.parameters import PromptParameters
from fluxdrop.generate.pipeline_process import PipelineProcess, limits_of


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

    @property
    def pid(self) -> int | None:
        """The child's process id; None while there is no child."""
        return self._process.pid

    def generate(
        self,
        orders: Sequence[GenerationOrder],
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[GeneratedImage]:
        """Make the pictures of *orders* in one run.

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
