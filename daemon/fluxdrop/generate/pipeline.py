"""A loaded diffusers pipeline, which makes pictures.

This module imports torch; only the generator process imports it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from PIL import Image

from fluxdrop.config import PipelineTable
from fluxdrop.errors import FluxdropError
from fluxdrop.generate import failures, loading, prompting, samplers, threads
from fluxdrop.generate.messages import PictureOrder
from fluxdrop.generate.parameters import (
    Generated,
    GenerationParameters,
    GeneratorInfo,
    PromptParameters,
    check,
    random_seed,
)
from fluxdrop.generate.prompt_truncation import truncation_warnings
from fluxdrop.generate.prompting import ReadPrompts
from fluxdrop.generate.run import Run
from fluxdrop.generate.sources import PipelineSource
from fluxdrop.generate.weighted_prompts import WeightedPrompts


class Pipeline:
    """A pipeline in memory.

    Args:
        name: Its configured name.
        table: Its configuration.
        source: Where it is loaded from.

    Raises:
        FluxdropError: Kind ``pipeline``, when it cannot be loaded.
    """

    def __init__(self, name: str, table: PipelineTable, source: PipelineSource) -> None:
        self.name = name
        self._table = table
        self._defaults = source.defaults
        self._pipe, device, self._dtype = loading.load(name, table, source)
        self.twins = threads.twins(device)
        """How many processes, to be forked from this one, make the pictures; 0 if this one does."""
        self._own_scheduler = self._pipe.scheduler
        self._call = inspect.signature(self._pipe.__call__).parameters
        # Pipelines with a true_cfg_scale, such as FLUX, ignore the negative prompt unless that is raised,
        # which a prompt file cannot ask for.
        self._takes_negatives = (
            "negative_prompt" in self._call and "true_cfg_scale" not in self._call
        )
        self._loras: list[tuple[str, float]] = []
        self.info = GeneratorInfo(
            name=name,
            pipeline=type(self._pipe).__name__,
            model=source.model,
            revision=source.revision,
            device=device,
            dtype=str(self._dtype).removeprefix("torch."),
        )

    def is_small(self, parameters: PromptParameters) -> bool:
        """Return whether one thread makes the picture of *parameters* on a CPU."""
        arguments = self._arguments(parameters, [])
        return threads.is_small(self._pipe, arguments.get("width"), arguments.get("height"))

    def generate(
        self,
        wanted: Sequence[PictureOrder],
        loras: list[tuple[str, float]],
        on_step: Callable[[int, int], None],
    ) -> list[tuple[Image.Image, Generated]]:
        """Make several pictures in one run.

        On the same machine the same parameters with a seed give the same picture; in a batch with
        others that is not guaranteed.

        Args:
            wanted: At least one picture; their parameters differ in the prompts and seeds only.
            loras: Files with their weights.
            on_step: Called after each step with the number of finished steps and of all steps; what
                it raises ends the run.

        Returns:
            The pictures in the order of *wanted*, and how each was made.

        Raises:
            FluxdropError: Kind ``prompt``, ``pipeline`` or ``compute``.
            Exception: What torch raises when the memory does not suffice; see
                `failures.out_of_memory`.
        """
        first = wanted[0].parameters
        threads.use(small=self.is_small(first))
        for item in wanted:
            check(item.parameters)
        sampler, self._pipe.scheduler = samplers.choose(first.sampler, self._own_scheduler)
        warnings = samplers.warnings(sampler, self._own_scheduler)
        self._set_loras(loras)
        negatives = self._negatives(wanted, warnings)
        arguments = self._arguments(first, warnings)
        prompts = prompting.read(
            self._pipe,
            [item.prompt for item in wanted],
            negatives,
            arguments.get("guidance_scale"),
        )
        run = Run(
            self._pipe,
            self.name,
            self._table,
            self._dtype,
            prompts=[prompt.text for prompt in prompts.prompts],
            negatives=[prompt.text for prompt in prompts.negatives],
            seeds=[
                random_seed() if item.parameters.seed is None else item.parameters.seed
                for item in wanted
            ],
            arguments=arguments,
            on_step=on_step,
            warnings=warnings,
            weighted=self._weighted(prompts),
        )
        pixels, flagged = run.make()
        info = msgspec.structs.replace(self.info, batch=len(wanted))
        pictures = []
        for number, item in enumerate(wanted):
            image = Image.fromarray((pixels[number] * 255).round().astype(np.uint8))
            nsfw = None if flagged is None else bool(flagged[number])
            parameters = GenerationParameters(
                prompt=item.parameters.prompt,
                negative_prompt=negatives[number],
                steps=run.arguments["num_inference_steps"],
                guidance_scale=run.arguments.get("guidance_scale"),
                seed=run.seeds[number],
                width=image.width,
                height=image.height,
                sampler=sampler,
            )
            generated = Generated(
                parameters=parameters,
                generator=info,
                warnings=warnings
                + prompts.warnings[number]
                + self._warnings(run, number, image, nsfw),
                width=image.width,
                height=image.height,
                nsfw=nsfw,
                prompt_weights=prompts.weights(number),
            )
            pictures.append((image, generated))
        return pictures

    def _set_loras(self, loras: list[tuple[str, float]]) -> None:
        """Load the *loras* and unload all others."""
        if loras == self._loras:
            return
        if self._loras:
            self._pipe.unload_lora_weights()
            self._loras = []
        if not loras:
            return
        if not hasattr(self._pipe, "load_lora_weights"):
            raise FluxdropError(f"The pipeline {self.name} takes no LoRA.", kind="prompt")
        try:
            names = [f"lora_{number}" for number in range(len(loras))]
            for name, (file, _weight) in zip(names, loras, strict=True):
                self._pipe.load_lora_weights(
                    str(Path(file).parent), weight_name=Path(file).name, adapter_name=name
                )
            self._pipe.set_adapters(names, [weight for _file, weight in loras])
        except Exception as error:
            self._pipe.unload_lora_weights()
            if failures.out_of_memory(error):
                raise
            files = ", ".join(Path(file).stem for file, _weight in loras)
            raise FluxdropError(
                f"The LoRA {files} cannot be used with the pipeline {self.name}:"
                f" {failures.first_line(error)}",
                hint="A LoRA fits the kind of pipeline that it was trained with.",
                kind="pipeline",
            ) from error
        self._loras = loras

    def _arguments(self, parameters: PromptParameters, warnings: list[str]) -> dict[str, Any]:
        """Return the arguments of the pipeline's call, and add a warning for each that it does not take.

        A value comes from the parameters, else from the pipeline's table in the settings, else from the model's
        pipeline.toml, else from the pipeline's own default.
        """
        arguments: dict[str, Any] = {}
        for argument, asked, configured, recommended in (
            ("num_inference_steps", parameters.steps, self._table.steps, self._defaults.steps),
            (
                "guidance_scale",
                parameters.guidance_scale,
                self._table.guidance_scale,
                self._defaults.guidance_scale,
            ),
            ("width", parameters.width, self._table.width, self._defaults.width),
            ("height", parameters.height, self._table.height, self._defaults.height),
        ):
            named = (value for value in (asked, configured, recommended) if value is not None)
            value = next(named, None)
            if value is None and argument in self._call:
                value = self._call[argument].default
            if value is not None:
                arguments[argument] = value
        for argument in arguments.keys() - self._call.keys():
            warnings.append(f"The pipeline {self.name} takes no {argument.replace('_', ' ')}.")
            del arguments[argument]
        return arguments

    def _negatives(self, wanted: Sequence[PictureOrder], warnings: list[str]) -> list[str]:
        """Return the negative prompts; empty ones, with a warning, if the pipeline does not use any."""
        negatives = [item.parameters.negative_prompt for item in wanted]
        if self._takes_negatives:
            return negatives
        if any(negatives):
            warnings.append(f"The pipeline {self.name} takes no negative prompt.")
        return [""] * len(negatives)

    def _weighted(self, prompts: ReadPrompts) -> WeightedPrompts | None:
        """Return *prompts* to be encoded with their weights; None if there are none."""
        if prompts.are_plain:
            return None
        takes_negatives = self._takes_negatives
        return WeightedPrompts(
            self._pipe, prompts.prompts, prompts.negatives if takes_negatives else None
        )

    def _warnings(self, run: Run, number: int, image: Image.Image, nsfw: bool | None) -> list[str]:
        """Return the warnings about the picture *number*, which was made."""
        warnings = []
        texts = (("prompt", run.prompts[number]), ("negative prompt", run.negatives[number]))
        for what, text in texts:
            if run.weighted is None or not run.weighted.is_read_whole(number, what):
                warnings += truncation_warnings(self._pipe, self._call, what, text)
        if nsfw:
            warnings.append("The pipeline's safety checker took the picture for unsafe.")
        return warnings + self._size_warnings(image)

    def _size_warnings(self, image: Image.Image) -> list[str]:
        """Warn about a size that the model was not made for."""
        made_for = (self._defaults.width, self._defaults.height)
        if not self._defaults.fixed_size or image.size == made_for:
            return []
        return [
            f"The pipeline {self.name} is made for {made_for[0]}x{made_for[1]} only;"
            f" at {image.width}x{image.height} it may draw anything."
        ]
