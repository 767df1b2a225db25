"""Read the values of parameters, as infotext writes them, into the fields of `PromptParameters`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fluxdrop.errors import FluxdropError
from fluxdrop.generate.parameter_lines import Pair
from fluxdrop.generate.parameters import BATCH_SIZES, Range
from fluxdrop.generate.sampler_names import our_name

# Takes a value and the ranges that errors name; returns the fields that the value stands for.
_Reader = Callable[[str, Mapping[str, Range]], dict[str, Any]]

# Programs that keep numbers as floats write "20.0".
_WHOLE = re.compile(r"([+-]?\d{1,4000})(?:\.0*)?", re.ASCII)
_SIZE = re.compile(r"(\d{1,9})\s*[xX*\u00d7]\s*(\d{1,9})", re.ASCII)


def read_values(
    pairs: Sequence[Pair], shown: Mapping[str, Range]
) -> tuple[dict[str, Any], list[str]]:
    """Read the values of *pairs*.

    Args:
        pairs: Keys, in any case, with their values. Of equal keys the last one counts.
        shown: The ranges that errors name.

    Returns:
        Fields of PromptParameters, with ``batch_size`` and ``batch_position`` beside them; and the pairs that are not
        used, as text.

    Raises:
        FluxdropError: Kind ``prompt``, when a value cannot be read.
    """
    values: dict[str, Any] = {}
    unused = []
    schedule = ""
    distilled: float | None = None
    for key, quoted in pairs:
        value = unquote(quoted)
        folded = key.casefold()
        if folded in ("schedule type", "scheduler"):
            schedule = value
        elif folded == "distilled cfg scale":
            distilled = _guidance_scale(value, shown)["guidance_scale"]
        elif reader := _READERS.get(folded):
            values |= reader(value, shown)
        else:
            unused.append(f"{key}: {value}")
    # Forge writes this for FLUX, which has only distilled guidance; the CFG scale is 1 then.
    if distilled is not None:
        scale = values.get("guidance_scale", 1)
        unused += [f"CFG scale: {format_number(scale)}"] if scale != 1 else []
        values["guidance_scale"] = distilled
    # Since stable-diffusion-webui 1.9 "DPM++ 2M Karras" is split into a sampler and a schedule type.
    if values.get("sampler"):
        values["sampler"] = our_name(values["sampler"], schedule)
    elif our_name("", schedule).strip():
        unused.append(f"Schedule type: {schedule}")
    return values, unused


def format_number(value: float | None) -> str | None:
    """Return *value* without a needless ``.0``; None for None."""
    return None if value is None else repr(float(value)).removesuffix(".0")


def quote(text: str) -> str:
    """Return *text* as an infotext value, in quotes if it could be read as several values."""
    plain = not re.search(r"[,:\n]", text) and not text.startswith('"') and text == text.strip()
    return text if plain else json.dumps(text, ensure_ascii=False)


def unquote(text: str) -> str:
    """Undo `quote`."""
    if len(text) < 2 or not (text.startswith('"') and text.endswith('"')):
        return text
    try:
        return str(json.loads(text))
    except ValueError:
        return text


def _integer_reader(field: str) -> _Reader:
    """Return a reader of a whole number for the *field* of PromptParameters."""

    def read(value: str, shown: Mapping[str, Range]) -> dict[str, Any]:
        match = _WHOLE.fullmatch(value)
        if match is None:
            raise _invalid_value(shown[field], value, "a whole number")
        return {field: int(match[1])}

    return read


def _seed(value: str, shown: Mapping[str, Range]) -> dict[str, Any]:
    read = _integer_reader("seed")(value, shown)
    return {"seed": None, "random_seed": True} if read["seed"] == -1 else read


def _guidance_scale(value: str, shown: Mapping[str, Range]) -> dict[str, Any]:
    try:
        return {"guidance_scale": float(re.sub(r"^(\d+),(\d+)$", r"\1.\2", value))}
    except ValueError:
        raise _invalid_value(shown["guidance_scale"], value, "a number") from None


def _size(value: str, shown: Mapping[str, Range]) -> dict[str, Any]:
    match = _SIZE.fullmatch(value)
    if match is None:
        raise FluxdropError(
            f"Size is {value!r}, not WIDTHxHEIGHT with both {shown['width']}.", kind="prompt"
        )
    return {"width": int(match[1]), "height": int(match[2])}


def _batch_size(value: str, shown: Mapping[str, Range]) -> dict[str, Any]:
    match = _WHOLE.fullmatch(value)
    size = int(match[1]) if match else 0
    if not BATCH_SIZES.low <= size <= BATCH_SIZES.high:
        allowed = shown["batch_size"]
        raise FluxdropError(f"{allowed.key} is {value}; must be {allowed}.", kind="prompt")
    return {"batch_size": size}


def _sampler(value: str, _shown: Mapping[str, Range]) -> dict[str, Any]:
    # SD.Next calls the pipeline's own sampler Default.
    return {"sampler": None if value.casefold() in ("", "default") else value}


def _name_reader(field: str) -> _Reader:
    """Return a reader of a name for the *field* of PromptParameters."""
    return lambda value, _shown: {field: value or None}


_READERS: dict[str, _Reader] = {
    "steps": _integer_reader("steps"),
    "sampler": _sampler,
    "cfg": _guidance_scale,
    "cfg scale": _guidance_scale,
    "guidance scale": _guidance_scale,
    "seed": _seed,
    "size": _size,
    "width": _integer_reader("width"),
    "height": _integer_reader("height"),
    "batch size": _batch_size,
    "batch pos": lambda value, _shown: {"batch_position": value},
    "model": _name_reader("pipeline"),
}


def _invalid_value(allowed: Range, value: str, what: str) -> FluxdropError:
    """Return the error for a *value* that is not *what*."""
    return FluxdropError(f"{allowed.key} is {value!r}, not {what}: {allowed}.", kind="prompt")
