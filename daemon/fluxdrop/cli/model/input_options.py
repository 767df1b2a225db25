"""The options of ``fluxdrop model add`` that say how pictures become the model's input."""

from __future__ import annotations

import math
from typing import Annotated, Any

import typer

from fluxdrop.errors import FluxdropError
from fluxdrop.preprocess import crop_percentage
from fluxdrop.preprocess.presets import PRESETS

SizeOption = Annotated[
    str | None,
    typer.Option(
        metavar="N|WIDTHxHEIGHT",
        help="Give the model pictures of this size. Default: the size in the model.",
    ),
]
PresetOption = Annotated[
    str | None,
    typer.Option(
        metavar="PRESET",
        help=f"Preprocess as these do, unless another option says otherwise: {', '.join(PRESETS)}.",
    ),
]
ModeOption = Annotated[
    str | None,
    typer.Option(metavar="L|RGB|BGR", help="Convert pictures to L (grey), RGB or BGR."),
]
ResizeOption = Annotated[
    str | None,
    typer.Option(
        metavar="stretch|crop|letterbox|fit",
        help="Bring pictures to the size by stretch, crop, letterbox or fit.",
    ),
]
ResizeToOption = Annotated[
    str | None,
    typer.Option(
        metavar="N|WIDTHxHEIGHT",
        help="Resize to this before taking the centre. N alone means the shorter side.",
    ),
]
CropPctOption = Annotated[
    float | None,
    typer.Option(
        metavar="NUMBER",
        help="Resize to the size divided by this (such as 0.875) before taking the centre.",
    ),
]
PadOption = Annotated[
    str | None,
    typer.Option(
        metavar="center|corner",
        help="Put a letterboxed picture in the center or in the upper left corner.",
    ),
]
FilterOption = Annotated[
    str | None,
    typer.Option(
        "--filter",
        metavar="FILTER",
        help="Resize with nearest, box, bilinear, hamming, bicubic or lanczos.",
    ),
]
ResamplerOption = Annotated[
    str | None,
    typer.Option(
        metavar="pillow|torchvision|torch|opencv",
        help="Resize as this library does. Default: pillow.",
    ),
]
BackgroundOption = Annotated[
    str | None,
    typer.Option(
        metavar="#RRGGBB", help="The colour behind transparent pixels and around a picture."
    ),
]
ScaleOption = Annotated[
    float | None, typer.Option(metavar="NUMBER", help="Divide the pixels, 0 to 255, by this.")
]
MeanOption = Annotated[
    str | None,
    typer.Option(metavar="NUMBERS", help="Subtract these, one a channel, separated by commas."),
]
StdOption = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBERS", help="Then divide by these, one a channel, separated by commas."
    ),
]
LayoutOption = Annotated[
    str | None, typer.Option(metavar="NCHW|NHWC", help="Order the tensor as NCHW or NHWC.")
]


def with_preset(
    preset: str | None, options: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the *options* that are not None, with those of the *preset* that they leave open, and the source of these.

    Raises:
        FluxdropError: There is no such preset, or two options are about the size before the crop.
    """
    if preset is not None and preset not in PRESETS:
        raise FluxdropError(
            f"There is no preset {preset}", hint=f"There are: {', '.join(PRESETS)}."
        )
    given = {key: value for key, value in options.items() if value is not None}
    if "resize_to" in given and "crop_pct" in given:
        raise FluxdropError(
            "--resize-to and --crop-pct both say what to resize to", hint="Give one of them."
        )
    merged = crop_percentage.merged(PRESETS[preset] if preset is not None else {}, given)
    return merged, dict.fromkeys(merged.keys() - given.keys(), f"preset {preset}")


def numbers(option: str, text: str | None) -> list[float] | None:
    """Return the numbers of *text*, which commas separate; None of None.

    Raises:
        FluxdropError: One is not a finite number.
    """
    if text is None:
        return None
    found = _parsed(text, ",", float)
    if found is None:
        raise FluxdropError(f"{option} is {text!r}, not numbers with ',' between")
    return found


def size(text: str | None) -> list[int] | None:
    """Return the width and height that *text* names: both, or one number for a square.

    Raises:
        FluxdropError: It is not a size.
    """
    found = _size("--size", text)
    return [found, found] if isinstance(found, int) else found


def resize_to(text: str | None) -> int | list[int] | None:
    """Return the width and height that *text* names, or the one number.

    Raises:
        FluxdropError: It is not a size.
    """
    return _size("--resize-to", text)


def crop_pct(percentage: float | None) -> float | None:
    """Return *percentage* if it can divide a size.

    Raises:
        FluxdropError: It is not a number above 0.1 and up to 2.
    """
    if percentage is not None and not 0.1 < percentage <= 2:
        raise FluxdropError(
            f"--crop-pct is {percentage:g}, not a part of the resized picture's side",
            hint="Such as 0.875, which resizes to 256 for a model of 224.",
        )
    return percentage


def _size(option: str, text: str | None) -> int | list[int] | None:
    if text is None:
        return None
    found = _parsed(text, "x", int)
    if found is None or len(found) > 2:
        raise FluxdropError(
            f"{option} is {text!r}, not a number of pixels or WIDTHxHEIGHT",
            hint="Such as 224, or 224x160.",
        )
    return found[0] if len(found) == 1 else found


def _parsed(text: str, separator: str, kind: type[Any]) -> list[Any] | None:
    """Return the numbers of *text*, or None if they are not all finite numbers of this *kind*."""
    try:
        found = [kind(part) for part in text.lower().split(separator)]
    except ValueError:
        return None
    return found if all(map(math.isfinite, found)) else None
