"""Check a prompt file's parameters against the limits in the settings."""

from __future__ import annotations

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.generate.parameters import PromptParameters
from fluxdrop.generate.prompt_weights import parse_weights

MAX_PARTS = 10
"""The most parts of a prompt joined by ``AND``: each costs as much as a picture of its own."""
MAX_CHUNKS = 40
"""The most chunks of a prompt divided by ``BREAK``, in all its parts: each is encoded apart, and kept."""


def check_bounds(parameters: PromptParameters, settings: Settings) -> None:
    """Check that *parameters* do not exceed the limits in *settings*.

    Values that they leave open are not checked: they come from the settings. How many parts a prompt may have is no
    setting.

    Raises:
        FluxdropError: Kind ``prompt``, when a value exceeds its limit.
    """
    if parameters.steps is not None and parameters.steps > settings.max_steps:
        raise _limit_error(
            f"Steps is {parameters.steps}; at most {settings.max_steps} here", "max_steps"
        )
    _check_parts(parameters)
    width, height = parameters.width, parameters.height
    if width is None or height is None:
        return
    if width * height > settings.max_generated_pixels:
        raise _limit_error(
            f"Size is {width}x{height}, which is {width * height:,} pixels; at most"
            f" {settings.max_generated_pixels:,} here",
            "max_generated_pixels",
        )


def _check_parts(parameters: PromptParameters) -> None:
    prompts = (
        parse_weights(parameters.prompt),
        parse_weights(parameters.negative_prompt, composed=False),
    )
    for prompt in prompts:
        chunks = sum(len(part.chunks) for part in prompt.parts)
        for count, most, word in (
            (len(prompt.parts), MAX_PARTS, "AND"),
            (chunks, MAX_CHUNKS, "BREAK"),
        ):
            if count > most:
                raise FluxdropError(
                    f"The prompt has {count:,} parts, divided by {word}; at most {most} are drawn",
                    hint=f"Join some of them, or write {word} in small letters where it is only a word.",
                    kind="prompt",
                )


def _limit_error(message: str, setting: str) -> FluxdropError:
    """Return the error for a value over the limit *setting*."""
    hint = f"Ask for less, or have {setting} in fluxdrop.toml raised."
    return FluxdropError(message, hint=hint, kind="prompt")
