"""What a station allows one prompt file to ask for."""

from __future__ import annotations

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.generate.request import GenerationRequest


def check_bounds(request: GenerationRequest, settings: Settings) -> None:
    """Refuse a *request* that asks for more than *settings* allow, with FluxdropError of kind
    ``prompt``. What it leaves to the pipeline is the station's own choice.
    """
    if request.steps is not None and request.steps > settings.max_steps:
        raise _beyond(
            f"Steps is {request.steps}; possible here are {settings.max_steps}", "max_steps"
        )
    width, height = request.width, request.height
    if width is None or height is None:
        return
    if width * height > settings.max_generated_pixels:
        raise _beyond(
            f"Size is {width}x{height}, which is {width * height:,} pixels; possible here are"
            f" {settings.max_generated_pixels:,}",
            "max_generated_pixels",
        )


def _beyond(message: str, setting: str) -> FluxdropError:
    hint = f"Ask for less, or have {setting} in fluxdrop.toml raised."
    return FluxdropError(message, hint=hint, kind="prompt")
