"""A diffusers pipeline in memory, and a picture from it.

This module imports torch; only the generator process imports it.
"""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Callable, Mapping
from typing import Any

import diffusers
import torch
import transformers
from PIL.Image import Image

from fluxdrop.errors import FluxdropError
from fluxdrop.generate import failures, samplers
from fluxdrop.generate.request import (
    Generated,
    GenerationParameters,
    GenerationRequest,
    GeneratorInfo,
    check,
)
from fluxdrop.generate.sources import Source

_SEED_BITS = 32


class Pipeline:
    """The pipeline *name* that *source* has, loaded at construction.

    Raises FluxdropError of kind ``pipeline`` where it cannot be.
    """

    def __init__(self, name: str, source: Source) -> None:
        self.name = name
        self._source = source
        device, dtype = _device()
        self._pipe = _load(name, self._source, dtype)
        self._pipe.to(device)
        self._pipe.set_progress_bar_config(disable=True)
        self._own_scheduler = self._pipe.scheduler
        self._call = inspect.signature(self._pipe.__call__).parameters
        self.info = GeneratorInfo(
            pipeline=type(self._pipe).__name__,
            model=self._source.model,
            revision=self._source.revision,
            device=device,
            dtype=str(dtype).removeprefix("torch."),
        )

    def generate(
        self, request: GenerationRequest, on_step: Callable[[int, int], None]
    ) -> tuple[Image, Generated]:
        """Make one picture; *on_step* gets the steps done and all steps after each.

        The same request with a seed gives the same picture on the same machine.
        """
        check(request)
        warnings: list[str] = []
        sampler, self._pipe.scheduler = samplers.choose(request.sampler, self._own_scheduler)
        seed = secrets.randbits(_SEED_BITS) if request.seed is None else request.seed
        arguments = self._arguments(request, warnings)
        steps = arguments["num_inference_steps"]

        def step_ended(
            pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]
        ) -> Mapping[str, Any]:
            # A second-order sampler calls the model more often than it has steps.
            on_step(step + 1, getattr(pipe, "num_timesteps", steps))
            return tensors

        if "callback_on_step_end" in self._call:
            arguments["callback_on_step_end"] = step_ended
        # A generator on the CPU gives the same noise on every device.
        generator = torch.Generator("cpu").manual_seed(seed)
        try:
            output = self._pipe(**arguments, generator=generator)
        except ValueError as error:
            # What a pipeline says about arguments that it cannot take, such as a size.
            raise FluxdropError(
                f"The pipeline {self.name} refuses this prompt file: {failures.first_line(error)}",
                kind="prompt",
            ) from error
        image: Image = output.images[0].convert("RGB")
        parameters = GenerationParameters(
            prompt=request.prompt,
            negative_prompt=arguments.get("negative_prompt", ""),
            steps=steps,
            guidance_scale=arguments.get("guidance_scale"),
            seed=seed,
            width=image.width,
            height=image.height,
            sampler=sampler,
        )
        flagged = getattr(output, "nsfw_content_detected", None)
        return image, Generated(
            parameters=parameters,
            generator=self.info,
            warnings=warnings + self._size_warnings(image),
            width=image.width,
            height=image.height,
            nsfw=None if flagged is None else bool(flagged[0]),
        )

    def _arguments(self, request: GenerationRequest, warnings: list[str]) -> dict[str, Any]:
        """The pipeline's arguments: the request's values, else the model's, else its own."""
        defaults = self._source.defaults
        arguments: dict[str, Any] = {"prompt": request.prompt}
        if request.negative_prompt:
            arguments["negative_prompt"] = request.negative_prompt
        for argument, asked, recommended in (
            ("num_inference_steps", request.steps, defaults.steps),
            ("guidance_scale", request.guidance_scale, defaults.guidance_scale),
            ("width", request.width, defaults.width),
            ("height", request.height, defaults.height),
        ):
            value = recommended if asked is None else asked
            if value is None and argument in self._call:
                value = self._call[argument].default
            if value is not None:
                arguments[argument] = value
        for argument in arguments.keys() - self._call.keys():
            warnings.append(f"The pipeline {self.name} takes no {argument.replace('_', ' ')}.")
            del arguments[argument]
        return arguments

    def _size_warnings(self, image: Image) -> list[str]:
        made_for = (self._source.defaults.width, self._source.defaults.height)
        if not self._source.defaults.fixed_size or image.size == made_for:
            return []
        return [
            f"The pipeline {self.name} is made for {made_for[0]}x{made_for[1]} only;"
            f" at {image.width}x{image.height} it may draw anything."
        ]


def _device() -> tuple[str, torch.dtype]:
    if torch.cuda.is_available():
        return "cuda", torch.float16
    if torch.backends.mps.is_available():
        return "mps", torch.float32
    return "cpu", torch.float32


def _load(name: str, source: Source, dtype: torch.dtype) -> Any:
    for library in (diffusers, transformers):
        logging: Any = library.utils.logging
        logging.disable_progress_bar()
    torch.use_deterministic_algorithms(True, warn_only=True)
    auto: Any = diffusers.AutoPipelineForText2Image
    try:
        return auto.from_pretrained(
            source.location,
            revision=source.revision,
            local_files_only=source.local_files_only,
            use_safetensors=True,
            dtype=dtype,
        )
    except Exception as error:
        if failures.out_of_memory(error):
            raise
        if isinstance(error, ValueError) and "AutoPipeline" in str(error):
            raise FluxdropError(
                f"{name} is not a text-to-image pipeline that diffusers knows.",
                hint="Choose one that AutoPipelineForText2Image can load.",
                kind="pipeline",
            ) from error
        raise FluxdropError(
            f"The pipeline {name} cannot be loaded: {failures.first_line(error)}",
            hint="The log has the traceback.",
            kind="pipeline",
        ) from error
