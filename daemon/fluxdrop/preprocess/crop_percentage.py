"""The crop percentage: how much of a resized picture's side the model sees."""

from __future__ import annotations

import math
from typing import Any


def resize_to(size: tuple[int, int], percentage: float) -> int | tuple[int, int]:
    """Return ``input.resize_to`` for a model of this *size*: width and height; one number for a square.

    Each side is divided by *percentage* and rounded down, as in transforms_imagenet_eval of timm
    (timm/data/transforms_factory.py).
    """
    width, height = (math.floor(side / percentage) for side in size)
    return width if width == height else (width, height)


def merged(table: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of *table* and *options*; the options take precedence.

    What the table says of the size before the crop belongs to its ``resize``: it is left out where the options say
    another ``resize``, or another size before the crop.
    """
    resize = table.get("resize", "stretch")
    is_other = options.get("resize", resize) != resize
    if is_other or {"resize_to", "crop_pct"} & options.keys():
        table = {key: value for key, value in table.items() if key not in ("resize_to", "crop_pct")}
    return table | options


def resolve(table: dict[str, Any], options: dict[str, Any]) -> None:
    """Add *options* to an ``[input]`` table, with ``resize_to`` in the place of ``crop_pct``.

    An option that is about the shorter side (``crop_pct``, a ``resize_to`` of one number) means ``crop`` where no
    ``resize`` is said. Without a valid size, ``crop_pct`` is left out.
    """
    wanted = merged(table, options)
    table.clear()
    table |= wanted
    percentage = table.pop("crop_pct", None)
    if percentage is not None or isinstance(options.get("resize_to"), int):
        table.setdefault("resize", "crop")
    match table.get("size"), percentage:
        case [int(width), int(height)], float():
            table["resize_to"] = resize_to((width, height), percentage)
