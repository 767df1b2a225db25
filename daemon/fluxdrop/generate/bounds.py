"""Check a prompt file's parameters against the limits in the settings."""

from __future__ import annotations

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.generate.parameters import PromptParameters


def check_bounds(parameters: PromptParameters, settings: Settings) -> None:
    """Check that *parameters* do not exceed the limits in *settings*.

    Values that they leave open are not checked: they come from the settings.

    Raises:
        FluxdropError: Kind ``prompt``, when a value exceeds its limit.
    """
    if parameters.steps is not None and parameters.steps > settings.max_steps:
        raise _limit_error(
            f"Steps is {parameters.steps}; at most {settings.max_steps} here", "max_steps"
        )
    width, height = parameters.width, parameters.height
    if width is None or height is None:
        return
    if width * height > settings.max_generated_pixels:
        raise _limit_error(
            f"Size is {width}x{height}, which is {width * height:,} pixels; at most"
            f" {settings.max_generated_pixels:,} here",
            "max_generated_pixels",
        )


def _limit_error(message: str, setting: str) -> FluxdropError:
    """Return the error for a value over the limit *setting*."""
    hint = f"Ask for less, or have {setting} in fluxdrop.toml raised."
    return FluxdropError(message, hint=hint, kind="prompt")
