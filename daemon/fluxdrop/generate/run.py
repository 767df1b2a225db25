"""One run of a pipeline, repeated with less memory or a wider dtype where necessary.

This module imports torch; only the generator process imports it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fluxdrop.config import PipelineTable
from fluxdrop.errors import FluxdropError
from fluxdrop.generate import failures, loading
from fluxdrop.generate.noise import float32_noise
from fluxdrop.generate.weighted_prompts import WeightedPrompts


class RunOutput(NamedTuple):
    """The pictures of a run."""

    pixels: NDArray[np.float32]
    """NHWC, 0 to 1."""
    flagged: list[bool] | None
    """What the safety checker flagged; None where there is no checker."""


@dataclass(slots=True)
class Run:
    """Makes one picture for each prompt, with the seed and negative prompt at the same index."""

    pipe: Any
    name: str
    """The pipeline's name, for errors."""
    table: PipelineTable
    dtype: torch.dtype
    prompts: list[str]
    negatives: list[str]
    seeds: list[int]
    arguments: Mapping[str, Any]
    """The other arguments of the pipeline's call, the same for all pictures."""
    on_step: Callable[[int, int], None]
    """Called after each step with the number of finished steps and of all steps; what it raises ends the run."""
    warnings: list[str] = field(default_factory=list)
    """What was done in another way than asked."""
    weighted: WeightedPrompts | None = None
    """The same prompts with their weights, if any has some."""

    def make(self) -> RunOutput:
        """Make the pictures; make them again in float32 if one overflowed the dtype.

        Raises:
            FluxdropError: Kind ``prompt`` or ``compute``.
            Exception: What torch raises when the memory does not suffice; see
                `failures.out_of_memory`.
        """
        made = self._make_within_memory(0, len(self.prompts))
        if not _is_broken(made):
            return made
        if self.dtype is not torch.float32 and self.table.offload == "none":
            self.pipe.to(torch.float32)
            try:
                made = self._make_within_memory(0, len(self.prompts))
            finally:
                self.pipe.to(self.dtype)
            dtype_name = str(self.dtype).removeprefix("torch.")
            self.warnings.append(f"Black in {dtype_name}, so it was made again in float32.")
        if np.isnan(made.pixels).any():
            raise FluxdropError(
                f"The pipeline {self.name} computes no numbers (NaN), only a black picture.",
                hint='Set dtype = "float32" for the pipeline, or try another sampler.',
                kind="compute",
            )
        return made

    def _make_within_memory(self, first: int, end: int) -> RunOutput:
        """Make the pictures *first* to *end*, the end excluded, with less memory if necessary.

        When the memory does not suffice, the batch is halved; a single picture is made with VAE
        tiling, then also with attention slicing.
        """
        if (made := self._try_call(first, end)) is not None:
            return made
        if end - first > 1:
            self.warnings.append(f"There was not enough memory for {end - first} pictures at once.")
            middle = (first + end) // 2
            return _concatenate(
                self._make_within_memory(first, middle), self._make_within_memory(middle, end)
            )
        try:
            # Slicing comes last: torch's own attention takes less memory, where it has one.
            loading.set_memory_saving(
                self.pipe, attention_slicing=self.table.attention_slicing, vae_tiling=True
            )
            self.warnings.append("There was not enough memory without VAE tiling.")
            if (made := self._try_call(first, end)) is not None:
                return made
            loading.set_memory_saving(self.pipe, attention_slicing=True, vae_tiling=True)
            self.warnings.append("There was not enough memory without attention slicing.")
            return self._call(first, end)
        finally:
            loading.set_memory_saving(
                self.pipe,
                attention_slicing=self.table.attention_slicing,
                vae_tiling=self.table.vae_tiling,
            )

    def _try_call(self, first: int, end: int) -> RunOutput | None:
        """Make the pictures; return None, and free memory, when it does not suffice."""
        try:
            return self._call(first, end)
        except Exception as error:
            if not failures.out_of_memory(error):
                raise
        # Only outside of the handler does no traceback refer to the tensors any more.
        loading.free_memory()
        return None

    def _call(self, first: int, end: int) -> RunOutput:
        """Make the pictures *first* to *end*, the end excluded, in one call of the pipeline."""
        arguments = dict(self.arguments)
        steps = arguments["num_inference_steps"]

        def on_step_end(
            pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]
        ) -> Mapping[str, Any]:
            # A second-order sampler calls the model more than once per step.
            self.on_step(step + 1, getattr(pipe, "num_timesteps", steps))
            return tensors

        if "callback_on_step_end" in inspect.signature(self.pipe.__call__).parameters:
            arguments["callback_on_step_end"] = on_step_end
        composing: AbstractContextManager[None] = nullcontext()
        if self.weighted is not None:
            arguments |= self.weighted.arguments(first, end)
            composing = self.weighted.composing(first, end)
        else:
            arguments["prompt"] = self.prompts[first:end]
            if any(self.negatives):
                arguments["negative_prompt"] = self.negatives[first:end]
        try:
            # A generator on the CPU yields the same noise for every device.
            generators = [torch.Generator("cpu").manual_seed(s) for s in self.seeds[first:end]]
            with float32_noise(), composing:
                output = self.pipe(
                    generator=generators,
                    output_type="np",
                    **arguments,
                )
        except ValueError as error:
            # A pipeline raises this for invalid arguments, such as a size.
            raise FluxdropError(
                f"The pipeline {self.name} refuses this prompt file: {failures.first_line(error)}",
                kind="prompt",
            ) from error
        return RunOutput(output.images, getattr(output, "nsfw_content_detected", None))


def _is_broken(made: RunOutput) -> bool:
    """Return whether a picture contains NaN or is all black, without being flagged by the safety checker."""
    flagged = made.flagged or [False] * len(made.pixels)
    return any(
        not is_flagged and (np.isnan(pixels).any() or not pixels.any())
        for pixels, is_flagged in zip(made.pixels, flagged, strict=True)
    )


def _concatenate(one: RunOutput, other: RunOutput) -> RunOutput:
    flagged = None if one.flagged is None else [*one.flagged, *(other.flagged or [])]
    return RunOutput(np.concatenate([one.pixels, other.pixels]), flagged)
