"""The weighted prompts of a run, as arguments of the pipeline's call.

This module imports torch; only the generator process imports it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from fluxdrop.generate.prompt_weights import WeightedPrompt
from fluxdrop.generate.weighted_encoding import Tensors, WeightedEncoder

_COMPOSING = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")


def composes(pipe: Any, guidance_scale: float | None) -> bool:
    """Return whether *pipe* can add up the predictions for several prompts, as ``AND`` asks for.

    It has to be a U-Net that predicts with and without the prompt.
    """
    return (
        type(pipe).__name__ in _COMPOSING
        and guidance_scale is not None
        and guidance_scale > 1
        and pipe.unet.config.time_cond_proj_dim is None
    )


class WeightedPrompts:
    """The prompts of a run's pictures, for a *pipe* that `takes_weights`.

    Args:
        pipe: The pipeline.
        prompts: The prompts; only where the pipeline `composes` may they have several parts.
        negatives: As many negative prompts; None if the pipeline takes none.
    """

    def __init__(
        self,
        pipe: Any,
        prompts: Sequence[WeightedPrompt],
        negatives: Sequence[WeightedPrompt] | None,
    ) -> None:
        self._pipe = pipe
        self._encoder = WeightedEncoder(pipe)
        self._prompts = prompts
        self._negatives = negatives

    def is_read_whole(self, number: int, what: str) -> bool:
        """Return whether the ``prompt`` or ``negative prompt`` of the picture *number* is read whole, in chunks."""
        prompts = self._prompts if what == "prompt" else self._negatives or ()
        return self._encoder.takes_chunks and not prompts[number].is_plain

    def arguments(self, first: int, end: int) -> Tensors:
        """Return the arguments of the pipeline's call for the pictures *first* to *end*, the end excluded.

        They have the first part of each prompt; `composing` adds the others.
        """
        prompts = self._encoded(first, end, 0)
        if self._negatives is None:
            return self._padded([prompts])[0]
        # SDXL takes zeros for empty negative prompts.
        if not any(negative.text for negative in self._negatives) and self._pipe.config.get(
            "force_zeros_for_empty_prompt"
        ):
            (arguments,) = self._padded([prompts])
            negatives = {name: torch.zeros_like(tensor) for name, tensor in arguments.items()}
        else:
            encoded = [
                self._encoder.encode(negative.parts[0], whole=not negative.is_plain)
                for negative in self._negatives[first:end]
            ]
            arguments, negatives = self._padded([prompts, encoded])
        return arguments | {f"negative_{name}": tensor for name, tensor in negatives.items()}

    @contextmanager
    def composing(self, first: int, end: int) -> Iterator[None]:
        """Have the U-Net predict the noise for all parts of the prompts, and add up their effects.

        webui computes uncond + scale * sum(weight * (cond - uncond)) (``modules/sd_samplers_cfg_denoiser.py``). Here
        the prediction for the prompts becomes uncond + sum(weight * (cond - uncond)), which the pipeline scales.
        """
        count = max(len(prompt.parts) for prompt in self._prompts[first:end])
        if count == 1:
            yield
            return
        others = [
            self._padded([self._encoded(first, end, number)])[0] for number in range(1, count)
        ]
        weights = [
            torch.tensor(
                [
                    prompt.parts[number].weight if number < len(prompt.parts) else 0.0
                    for prompt in self._prompts[first:end]
                ]
            ).reshape(-1, 1, 1, 1)
            for number in range(count)
        ]
        unet = self._pipe.unet
        own = unet.__dict__.get("forward")
        predict = unet.forward

        def predict_all(sample: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor]:
            uncond, cond = predict(sample, *args, **kwargs)[0].chunk(2)
            total = uncond + weights[0].to(uncond) * (cond - uncond)
            for part, weight in zip(others, weights[1:], strict=True):
                changed: dict[str, Any] = {
                    "encoder_hidden_states": part["prompt_embeds"].to(sample)
                }
                if "pooled_prompt_embeds" in part:
                    added = kwargs["added_cond_kwargs"]
                    changed["added_cond_kwargs"] = {
                        "text_embeds": part["pooled_prompt_embeds"].to(sample),
                        "time_ids": added["time_ids"].chunk(2)[1],
                    }
                prediction = predict(sample.chunk(2)[1], *args, **{**kwargs, **changed})[0]
                total = total + weight.to(uncond) * (prediction - uncond)
            return (torch.cat([uncond, total]),)

        unet.forward = predict_all
        try:
            yield
        finally:
            if own is None:
                del unet.forward
            else:
                unet.forward = own

    def _encoded(self, first: int, end: int, number: int) -> list[list[Tensors]]:
        """Return the chunks of each picture's part *number*; those of its first part if it has no such."""
        return [
            self._encoder.encode(
                prompt.parts[number if number < len(prompt.parts) else 0], whole=not prompt.is_plain
            )
            for prompt in self._prompts[first:end]
        ]

    def _padded(self, groups: Sequence[list[list[Tensors]]]) -> list[Tensors]:
        """Return each group of prompts' chunks as one batch; all get as many chunks, the last ones empty."""
        count = max(len(chunks) for group in groups for chunks in group)
        batches = []
        for group in groups:
            rows = [chunks + [self._encoder.empty()] * (count - len(chunks)) for chunks in group]
            batch = {
                name: torch.cat(
                    [
                        torch.cat([chunk[name] for chunk in row], dim=1)
                        if name == "prompt_embeds"
                        else row[0][name]
                        for row in rows
                    ]
                )
                for name in rows[0][0]
            }
            batches.append(batch)
        return batches
