"""One run of a pipeline, which gets by with the memory and the dtype that there are.

This module imports torch; only the generator process imports it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fluxdrop.config import PipelineTable
from fluxdrop.errors import FluxdropError
from fluxdrop.generate import failures, loading


class Made(NamedTuple):
    """*pixels* are NHWC, 0 to 1; *flagged* is the safety checker's word, None where there is none."""

    pixels: NDArray[np.float32]
    flagged: list[bool] | None


@dataclass(slots=True)
class Run:
    """Makes a picture of each of *prompts* with its seed and negative prompt; *arguments* are the
    same for all. *on_step* gets the steps done and all steps after each; what it raises ends the
    run. What had to be done otherwise than asked is in *warnings*.
    """

    pipe: Any
    name: str
    table: PipelineTable
    dtype: torch.dtype
    prompts: list[str]
    negatives: list[str]
    seeds: list[int]
    arguments: Mapping[str, Any]
    on_step: Callable[[int, int], None]
    warnings: list[str] = field(default_factory=list)

    def make(self) -> Made:
        """The pictures, made again in float32 where the dtype was too narrow for one.

        Raises FluxdropError of kind ``prompt`` or ``compute``, and what torch raises where the
        memory does not suffice.
        """
        made = self._within_memory(0, len(self.prompts))
        if not _is_broken(made):
            return made
        if self.dtype is not torch.float32 and self.table.offload == "none":
            self.pipe.to(torch.float32)
            try:
                made = self._within_memory(0, len(self.prompts))
            finally:
                self.pipe.to(self.dtype)
            narrow = str(self.dtype).removeprefix("torch.")
            self.warnings.append(f"Black in {narrow}, so it was made again in float32.")
        if np.isnan(made.pixels).any():
            raise FluxdropError(
                f"The pipeline {self.name} computes no numbers (NaN), only a black picture.",
                hint='Set dtype = "float32" for the pipeline, or try another sampler.',
                kind="compute",
            )
        return made

    def _within_memory(self, first: int, end: int) -> Made:
        """The pictures from *first* to *end*, made fewer at once, and at last one with tiling and
        slicing, where the memory demands it.
        """
        if (made := self._unless_out_of_memory(first, end)) is not None:
            return made
        if end - first > 1:
            self.warnings.append(f"The memory did not suffice for {end - first} pictures at once.")
            middle = (first + end) // 2
            return _joined(self._within_memory(first, middle), self._within_memory(middle, end))
        try:
            # Slicing comes last: torch's own attention takes less memory, where it has one.
            loading.be_thrifty(
                self.pipe, attention_slicing=self.table.attention_slicing, vae_tiling=True
            )
            self.warnings.append("The memory did not suffice without VAE tiling.")
            if (made := self._unless_out_of_memory(first, end)) is not None:
                return made
            loading.be_thrifty(self.pipe, attention_slicing=True, vae_tiling=True)
            self.warnings.append("The memory did not suffice without attention slicing.")
            return self._call(first, end)
        finally:
            loading.be_thrifty(
                self.pipe,
                attention_slicing=self.table.attention_slicing,
                vae_tiling=self.table.vae_tiling,
            )

    def _unless_out_of_memory(self, first: int, end: int) -> Made | None:
        try:
            return self._call(first, end)
        except Exception as error:
            if not failures.out_of_memory(error):
                raise
        # Only here, behind the handler, does the traceback hold no tensors any more.
        loading.free_memory()
        return None

    def _call(self, first: int, end: int) -> Made:
        arguments = dict(self.arguments)
        steps = arguments["num_inference_steps"]

        def step_ended(
            pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]
        ) -> Mapping[str, Any]:
            # A second-order sampler calls the model more often than it has steps.
            self.on_step(step + 1, getattr(pipe, "num_timesteps", steps))
            return tensors

        if "callback_on_step_end" in inspect.signature(self.pipe.__call__).parameters:
            arguments["callback_on_step_end"] = step_ended
        if any(self.negatives):
            arguments["negative_prompt"] = self.negatives[first:end]
        try:
            output = self.pipe(
                prompt=self.prompts[first:end],
                # A generator on the CPU gives the same noise on every device.
                generator=[torch.Generator("cpu").manual_seed(s) for s in self.seeds[first:end]],
                output_type="np",
                **arguments,
            )
        except ValueError as error:
            # What a pipeline says about arguments that it cannot take, such as a size.
            raise FluxdropError(
                f"The pipeline {self.name} refuses this prompt file: {failures.first_line(error)}",
                kind="prompt",
            ) from error
        return Made(output.images, getattr(output, "nsfw_content_detected", None))


def _is_broken(made: Made) -> bool:
    """Whether a picture has no numbers or is black all over, by no safety checker's doing."""
    flagged = made.flagged or [False] * len(made.pixels)
    return any(
        not is_flagged and (np.isnan(pixels).any() or not pixels.any())
        for pixels, is_flagged in zip(made.pixels, flagged, strict=True)
    )


def _joined(one: Made, other: Made) -> Made:
    flagged = None if one.flagged is None else [*one.flagged, *(other.flagged or [])]
    return Made(np.concatenate([one.pixels, other.pixels]), flagged)
